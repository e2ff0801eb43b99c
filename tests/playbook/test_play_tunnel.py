"""Opaque tunnels, joined at once or by an Upgrade: half-close end to end, a reset as a reset."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import math

import pytest
from stage import HIGH, App, Client, Stage, StageWire, get, ok, permit, post

from proxy.errors import Reason
from proxy.forward.tunnel import Tunnel

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
UPGRADE = get(b"/chat", b"connection: upgrade", b"upgrade: websocket")


class Joined:
    """Two wires and the tunnel between them."""

    def __init__(self, stage: Stage, *, ends_at: float = math.inf) -> None:
        self.stage = stage
        self.down, self.up = StageWire("down"), StageWire("up")
        self.ends: list[Reason] = []
        self.tunnel = Tunnel(
            permit(), self.down, self.up, clock=stage.clock, idle=100.0, ends_at=ends_at, on_end=self.ends.append
        )

    def start(self, **first: bytes) -> Joined:
        self.tunnel.start(**first)
        return self.run()

    def say(self, wire: StageWire, data: bytes | OSError) -> None:
        wire.inbox.append(data)
        self.run()

    def run(self) -> Joined:
        wires = (self.down, self.up)
        while steps := [w.step_read for w in wires if w.readable()] + [w.step_write for w in wires if w.writable()]:
            steps[0]()
        for wire in wires:
            assert not wire.misuse, wire.misuse
        return self


@pytest.fixture
def joined(stage: Stage) -> Joined:
    return Joined(stage)


def test_bytes_go_both_ways(joined: Joined) -> None:
    joined.start()
    joined.say(joined.down, b"ping")
    joined.say(joined.up, b"pong")
    assert (joined.up.taken, joined.down.taken) == (b"ping", b"pong")


def test_bytes_that_were_read_before_go_first(joined: Joined) -> None:
    joined.down.inbox.append(b" and more")
    joined.start(from_downstream=b"first", from_upstream=b"greeting")
    assert (joined.up.taken, joined.down.taken) == (b"first and more", b"greeting")


def test_a_half_close_is_carried_on_and_the_other_half_goes_on(joined: Joined) -> None:
    joined.start()
    joined.say(joined.down, b"question")
    joined.say(joined.down, b"")
    assert joined.up.end_sent
    assert not joined.ends
    joined.say(joined.up, b"answer")
    assert joined.down.taken == b"answer"
    joined.say(joined.up, b"")
    assert joined.down.end_sent
    assert joined.ends == [Reason.OK]
    assert joined.down.closed
    assert joined.up.closed
    assert not joined.down.aborted
    assert not joined.up.aborted


def test_a_half_that_was_closed_before_the_tunnel_stood_is_closed_there_too(joined: Joined) -> None:
    joined.down.read_ended = True
    joined.start(from_downstream=b"all there is")
    assert joined.up.taken == b"all there is"
    assert joined.up.end_sent


@pytest.mark.parametrize("side", ["down", "up"])
def test_a_reset_is_carried_on_as_a_reset(joined: Joined, side: str) -> None:
    joined.start()
    broken, other = (joined.down, joined.up) if side == "down" else (joined.up, joined.down)
    joined.say(broken, ConnectionResetError(104, "Connection reset by peer"))
    assert other.aborted
    assert not other.end_sent
    assert joined.ends == [Reason.DOWNSTREAM_RESET if side == "down" else Reason.UPSTREAM_RESET]


def test_a_reset_after_a_half_close_is_still_a_reset(joined: Joined) -> None:
    joined.start()
    joined.say(joined.down, b"")
    joined.say(joined.up, ConnectionResetError(104, "Connection reset by peer"))
    assert joined.down.aborted
    assert joined.ends == [Reason.UPSTREAM_RESET]


@pytest.mark.parametrize("side", ["down", "up"])
def test_the_source_stops_when_the_target_does_not_take(joined: Joined, side: str) -> None:
    joined.start()
    source, target = (joined.down, joined.up) if side == "down" else (joined.up, joined.down)
    target.room = 0
    for _ in range(4):
        joined.say(source, b"x" * 40_000)
    assert not source.reading
    assert len(target._held) <= HIGH + 40_000
    assert joined.down.reading or joined.up.reading, "the other direction goes on"
    target.room = math.inf
    joined.run()
    assert target.taken == b"x" * 160_000
    assert source.reading


@pytest.mark.parametrize("side", ["down", "up"])
def test_what_came_before_the_tunnel_stood_counts_too(joined: Joined, side: str) -> None:
    source, target = (joined.down, joined.up) if side == "down" else (joined.up, joined.down)
    target.room = 0
    source.inbox.append(b"more")
    first = b"x" * (HIGH + 1)
    joined.start(**({"from_downstream": first} if side == "down" else {"from_upstream": first}))
    assert not source.reading
    assert source.inbox, "nothing is read for a target that takes nothing"
    target.room = math.inf
    joined.run()
    assert target.taken == first + b"more"


def test_the_end_waits_until_everything_was_taken(joined: Joined) -> None:
    joined.start()
    joined.up.room = 3
    joined.say(joined.down, b"0123456789")
    joined.say(joined.up, b"")
    joined.say(joined.down, b"")
    assert not joined.ends
    assert not joined.up.end_sent
    joined.up.room = math.inf
    joined.run()
    assert joined.up.taken == b"0123456789"
    assert joined.up.end_sent
    assert joined.ends == [Reason.OK]


def test_silence_ends_a_tunnel(joined: Joined) -> None:
    joined.start()
    joined.stage.clock.advance(99)
    joined.say(joined.up, b"still here")
    joined.stage.clock.advance(99)
    assert not joined.ends
    joined.stage.clock.advance(1)
    assert joined.ends == [Reason.IDLE_TIMEOUT]
    assert joined.down.aborted
    assert joined.up.aborted


def test_the_certificates_end_ends_a_tunnel_however_busy(stage: Stage) -> None:
    joined = Joined(stage, ends_at=stage.clock.now + 50).start()
    for _ in range(5):
        stage.clock.advance(9)
        joined.say(joined.up, b"busy")
        joined.say(joined.down, b"busy")
    assert not joined.ends
    stage.clock.advance(5)
    assert joined.ends == [Reason.PEER_CERTIFICATE_ENDED]
    assert not stage.clock.armed


def test_a_tunnel_outlasts_a_drain_and_is_cut_at_its_deadline(joined: Joined) -> None:
    joined.start()
    joined.tunnel.drain()
    joined.say(joined.down, b"still here")
    assert joined.up.taken == b"still here"
    joined.tunnel.break_off(Reason.DRAIN_DEADLINE)
    joined.tunnel.break_off(Reason.DRAIN_DEADLINE)
    assert joined.ends == [Reason.DRAIN_DEADLINE]
    assert joined.down.aborted
    assert joined.up.aborted
    assert not joined.stage.clock.armed


def test_a_tunnel_that_is_cut_before_it_starts_has_ended(joined: Joined) -> None:
    joined.tunnel.break_off(Reason.DRAIN_DEADLINE)
    assert joined.ends == [Reason.DRAIN_DEADLINE]


# --- Upgrade ---------------------------------------------------------------------------------------------------------


def upgraded(stage: Stage) -> tuple[Client, App]:
    client = stage.client()
    client >> UPGRADE
    assert stage.app << b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    stage.app >> SWITCH
    assert client << SWITCH
    return client, stage.app


def test_after_101_bytes_go_both_ways(stage: Stage) -> None:
    client, app = upgraded(stage)
    client >> b"\x81\x01a"
    app >> b"\x81\x01b"
    assert app << b"\x81\x01a"
    assert client << b"\x81\x01b"
    assert stage.pool.total == 0


def test_bytes_behind_the_101_belong_to_the_tunnel(stage: Stage) -> None:
    client = stage.client()
    client >> UPGRADE
    stage.app >> SWITCH + b"hello"
    assert client << SWITCH + b"hello"


def test_an_upgraded_connection_has_one_record_of_its_request(stage: Stage) -> None:
    client, app = upgraded(stage)
    client >> b"12345"
    app >> b"123"
    assert not client.route.records[0].reasons
    client.ends()
    app >> b""
    (record,) = client.route.records
    assert (record.reasons, record.response_code) == ([Reason.OK], 101)
    assert (record.bytes_received, record.bytes_sent) == (5, 3)
    assert client.end is Reason.OK
    assert app.closed


@pytest.mark.parametrize("end", ["client resets", "app resets", "break off", "idle", "drain deadline"])
def test_every_end_of_an_upgraded_connection_is_on_record_once(stage: Stage, end: str) -> None:
    client, app = upgraded(stage)
    if end == "client resets":
        client.resets()
    elif end == "app resets":
        app.resets()
    elif end == "idle":
        stage.wait(100)
    else:
        client.pump.drain()
        stage.run()
        assert client.end is None
        client.pump.break_off(Reason.DRAIN_DEADLINE)
    expected = {
        "client resets": Reason.DOWNSTREAM_RESET,
        "app resets": Reason.UPSTREAM_RESET,
        "idle": Reason.IDLE_TIMEOUT,
    }.get(end, Reason.DRAIN_DEADLINE)
    assert client.route.records[0].reasons == [expected]
    assert client.end is expected
    assert app.closed
    assert client.closed


def test_an_upgraded_connection_ends_with_the_first_certificate(stage: Stage) -> None:
    stage.upstream_expires_at = stage.clock.now + 20
    client, _ = upgraded(stage)
    stage.wait(20)
    assert client.end is Reason.PEER_CERTIFICATE_ENDED


def test_a_refused_upgrade_is_an_answer_and_ends_the_connection(stage: Stage) -> None:
    client = stage.client()
    client >> UPGRADE
    stage.app >> ok(b"no")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    assert client.wire.end_sent
    stage.app.heard()
    client >> b"\x81\x01a"
    assert stage.app << b""


def test_bytes_before_the_101_are_refused(stage: Stage) -> None:
    """One side would read them as the new protocol, the other as a request: that is how requests are smuggled."""
    client = stage.client()
    client >> UPGRADE + get(b"/smuggled")
    assert client.heard().startswith(b"HTTP/1.1 400 ")
    assert client.route.records[0].reason is Reason.UPGRADE_INVALID
    assert not any(b"smuggled" in app.heard() for app in stage.apps)
    assert client.wire.end_sent


def test_bytes_that_come_while_the_101_is_on_its_way_are_refused(stage: Stage) -> None:
    client = stage.client()
    client >> UPGRADE
    client >> b"early"
    assert client.heard().startswith(b"HTTP/1.1 400 ")
    assert stage.app.closed


def test_a_101_that_nobody_asked_for_is_a_bad_answer(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> SWITCH
    assert client.heard().startswith(b"HTTP/1.1 502 ")
    assert client.route.records[0].reason is Reason.UPSTREAM_RESPONSE_INVALID


def test_a_101_within_the_requests_body_is_a_bad_answer(stage: Stage) -> None:
    """The rest of the body would be read as the new protocol: for a request with a body none is asked for."""
    client = stage.client()
    client >> post(b"abc", b"connection: upgrade", b"upgrade: websocket", length=6)
    stage.app >> SWITCH
    assert client.heard().startswith(b"HTTP/1.1 502 ")
    client >> b"def"
    assert client.route.records[0].reason is Reason.UPSTREAM_RESPONSE_INVALID


def test_a_client_that_half_closed_before_the_101_is_half_closed_behind_it(stage: Stage) -> None:
    client = stage.client()
    client >> UPGRADE
    client.ends()
    stage.app >> SWITCH + b"news"
    assert stage.app.wire.end_sent
    assert client.heard().endswith(b"news")
