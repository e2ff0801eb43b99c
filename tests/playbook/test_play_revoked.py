"""A tunnel that is no longer allowed: reset, or closed on both sides within its time, and nothing more is carried."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import math

import pytest
from fake_clock import FakeClock
from stage import StageWire, permit

from proxy.errors import Reason
from proxy.forward.tunnel import Tunnel


class Revoked:
    """A tunnel between two wires that has `seconds` to close."""

    def __init__(self, clock: FakeClock, seconds: float = 5.0, ends_at: float = math.inf) -> None:
        self.down, self.up = StageWire("down"), StageWire("up")
        self.ends: list[Reason] = []
        self.tunnel = Tunnel(
            permit(),
            self.down,
            self.up,
            clock=clock,
            idle=100.0,
            ends_at=ends_at,
            ends_for=Reason.TOKEN_EXPIRED,
            close_revoked=lambda: seconds,
            on_end=self.ends.append,
        )
        self.tunnel.start()

    def say(self, wire: StageWire, data: bytes | OSError) -> None:
        wire.inbox.append(data)
        self.run()

    def run(self) -> None:
        wires = (self.down, self.up)
        while steps := [w.step_read for w in wires if w.readable()] + [w.step_write for w in wires if w.writable()]:
            steps[0]()
        for wire in wires:
            assert not wire.misuse, wire.misuse

    @property
    def state(self) -> tuple[bool, bool, bool, bool]:
        """Closed and aborted, of both wires."""
        return self.down.closed, self.up.closed, self.down.aborted, self.up.aborted


def test_without_time_both_sides_are_reset(clock: FakeClock) -> None:
    play = Revoked(clock, seconds=0.0)
    play.tunnel.revoke(Reason.DENIED_BY_POLICY)
    assert play.state == (True, True, True, True)
    assert play.ends == [Reason.DENIED_BY_POLICY]


def test_both_sides_end_and_close_when_their_peers_have_ended(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.tunnel.revoke(Reason.DENIED_BY_POLICY)
    assert (play.down.end_sent, play.up.end_sent) == (True, True)
    assert play.state == (False, False, False, False)
    play.say(play.down, b"")
    assert not play.ends
    play.say(play.up, b"")
    assert play.state == (True, True, False, False)
    assert play.ends == [Reason.DENIED_BY_POLICY]
    assert not clock.armed


def test_what_still_comes_is_dropped(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.say(play.down, b"before")
    play.tunnel.revoke(Reason.TRUST_ENDED)
    play.say(play.down, b"after")
    play.say(play.up, b"after")
    assert (play.up.taken, play.down.taken) == (b"before", b"")


def test_peers_that_do_not_end_are_closed_when_the_time_is_up(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.tunnel.revoke(Reason.TRUST_ENDED)
    play.say(play.down, b"and another thing")
    clock.advance(4.9)
    assert not play.ends
    clock.advance(0.2)
    assert play.state == (True, True, False, False)
    assert play.ends == [Reason.TRUST_ENDED]


def test_what_was_held_goes_out_before_the_end(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.up.room = 3
    play.say(play.down, b"before")
    play.tunnel.revoke(Reason.TRUST_ENDED)
    assert (play.up.taken, play.up.end_sent) == (b"bef", False)
    play.up.room = math.inf
    play.run()
    assert (play.up.taken, play.up.end_sent) == (b"before", True)


def test_who_never_takes_it_is_reset_so_that_nothing_looks_whole(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.up.room = 3
    play.say(play.down, b"before")
    play.tunnel.revoke(Reason.TRUST_ENDED)
    clock.advance(6.0)
    assert play.state == (True, True, False, True)
    assert play.ends == [Reason.TRUST_ENDED]


def test_a_side_that_breaks_ends_the_other_at_once(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.tunnel.revoke(Reason.TRUST_ENDED)
    play.say(play.down, ConnectionResetError())
    assert play.state[:2] == (True, True)
    assert play.ends == [Reason.TRUST_ENDED]


def test_half_closed_already(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.say(play.down, b"")
    play.tunnel.revoke(Reason.TRUST_ENDED)
    play.say(play.up, b"")
    assert play.state == (True, True, False, False)
    assert play.ends == [Reason.TRUST_ENDED]


def test_a_second_word_changes_nothing_and_the_drain_deadline_still_cuts(clock: FakeClock) -> None:
    play = Revoked(clock)
    play.tunnel.revoke(Reason.TRUST_ENDED)
    clock.advance(4.0)
    play.tunnel.revoke(Reason.DENIED_BY_POLICY)
    play.tunnel.drain()
    assert not play.ends
    play.tunnel.break_off(Reason.DRAIN_DEADLINE)
    assert play.state == (True, True, True, True)
    assert play.ends == [Reason.DRAIN_DEADLINE]
    play.tunnel.revoke(Reason.TRUST_ENDED)
    assert play.ends == [Reason.DRAIN_DEADLINE]


@pytest.mark.parametrize(("seconds", "aborted"), [(0.0, True), (5.0, False)])
def test_what_it_stands_on_ends(clock: FakeClock, seconds: float, aborted: bool) -> None:
    play = Revoked(clock, seconds, ends_at=clock.now + 3.0)
    clock.advance(3.0)
    if seconds:
        play.say(play.down, b"")
        play.say(play.up, b"")
    assert play.ends == [Reason.TOKEN_EXPIRED]
    assert (play.down.aborted, play.up.aborted) == (aborted, aborted)


def test_idle_is_no_revocation(clock: FakeClock) -> None:
    play = Revoked(clock)
    clock.advance(101.0)
    assert play.ends == [Reason.IDLE_TIMEOUT]
    assert play.state == (True, True, True, True)


def test_revoked_before_it_has_begun(clock: FakeClock) -> None:
    """Its wires were not read yet: they are from then on, so that the close is no reset."""
    down, up, ends = StageWire("down"), StageWire("up"), list[Reason]()
    tunnel = Tunnel(
        permit(), down, up, clock=clock, idle=9.0, ends_at=math.inf, close_revoked=lambda: 5.0, on_end=ends.append
    )
    tunnel.revoke(Reason.TRUST_ENDED)
    for wire in (down, up):
        wire.inbox.extend([b"late", b""])
        wire.step_read()
        wire.step_read()
    assert ends == [Reason.TRUST_ENDED]
    assert down.taken == up.taken == b""
    assert not down.aborted
    assert not up.aborted
