"""A sidecar whose clock is set by an hour keeps its certificate, renews it in time and with patience, and says so.

The clocks are the sidecar's own: the calendar that somebody sets, and the one that never jumps. Time goes on for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from enrolment_lab import AUTHORITY_ID, Lab
from mesh import eventually

from certs.authority import Authority
from certs.spiffe import SpiffeId, parse_trust_domain
from proxy.config_values import Address, IdentityAuthority
from proxy.enrolment.authority import Enrolment
from proxy.identity.renewal import LONGEST_RETRY

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
HOUR, QUARTER = 3_600.0, 900.0
LONGEST = LONGEST_RETRY + 1.0

pytestmark = pytest.mark.asyncio
ways = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An authority of yesterday, whose own certificate is some hours old."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    issuer = Authority.create(parse_trust_domain("cluster.local"), yesterday)
    with Lab(tmp_path / "authority", issuer=issuer) as made:
        made.show(AUTHORITY_ID, age=datetime.timedelta(hours=6))
        yield made


@dataclass
class House:
    """An enrolment that runs, and its clocks: how far the calendar was set, and how much time was skipped."""

    lab: Lab
    lifetime: float | None = None
    wrong: float = 0.0
    skipped: float = 0.0
    changes: int = 0
    enrolment: Enrolment = field(init=False)

    def begin(self) -> None:
        asks = self.lab.section("orders")["authority"]
        self.enrolment = Enrolment(
            IdentityAuthority(
                url=asks["url"],
                address=Address(host="127.0.0.1", port=self.lab.port),
                token_file=asks["token_file"],
                bundle_file=asks["bundle_file"],
                identity=SpiffeId.parse(AUTHORITY_ID),
                lifetime=self.lifetime,
                timeout=3.0,
            ),
            expected=ORDERS,
            instance="orders-0",
            in_force=lambda: None,
            changed=self._change,
            now=lambda: time.time() + self.wrong + self.skipped,
            ticks=lambda: time.monotonic() + self.skipped,
            jitter=lambda: 0.5,
        )

    def set(self, seconds: float) -> None:
        """Set the calendar."""
        self.wrong += seconds
        self.enrolment._woken.set()

    def go_on(self, seconds: float) -> None:
        """Let time go by."""
        self.skipped += seconds
        self.enrolment._woken.set()

    @property
    def serial(self) -> str:
        enrolled = self.enrolment._enrolled
        assert enrolled is not None
        return enrolled.identity_set.serial

    def _change(self) -> None:
        self.changes += 1


@contextlib.asynccontextmanager
async def running(house: House) -> AsyncIterator[Enrolment]:
    house.begin()
    task = asyncio.create_task(house.enrolment.run())
    try:
        await eventually(lambda: house.enrolment.renewals == 1, "the first certificate")
        yield house.enrolment
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        house.enrolment.close()


@pytest_asyncio.fixture
async def day(lab: Lab) -> AsyncIterator[House]:
    """One whose certificate lives for a day."""
    house = House(lab)
    async with running(house):
        yield house


@pytest_asyncio.fixture
async def quarter(lab: Lab) -> AsyncIterator[House]:
    """One whose certificate lives for a quarter of an hour."""
    house = House(lab, lifetime=QUARTER)
    async with running(house):
        yield house


def _time(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds)


def said(caplog: pytest.LogCaptureFixture, words: str) -> Callable[[], bool]:
    return lambda: words in caplog.text


@ways
async def test_a_certificate_of_a_day_is_not_touched_and_the_jump_is_named(
    day: House, jump: float, caplog: pytest.LogCaptureFixture
) -> None:
    before = day.serial
    day.set(jump)
    how, where = ("ahead", "ahead of") if jump > 0 else ("back", "behind")
    await eventually(said(caplog, f"this machine's clock went 3600 s {how} at once"), "the jump")
    day.go_on(10.0)
    # An answer of the authority says that it is our clock which is wrong.
    await eventually(said(caplog, f"s {where} the authority's; set one of them right"), "the difference")
    polls = len(day.lab.polled)
    assert polls >= 1
    assert (day.serial, day.enrolment.renewals, day.enrolment.failures) == (before, 1, 0)
    day.set(-jump)
    await eventually(lambda: caplog.text.count("at once: it was set") == 2, "the second jump")
    day.go_on(10.0)
    await eventually(lambda: len(day.lab.polled) > polls, "a poll")
    await eventually(lambda: day.enrolment._skew.words == "", "no difference is left")
    assert (day.serial, day.enrolment.renewals) == (before, 1)


@ways
async def test_half_of_a_day_after_it_was_issued_it_is_renewed_whatever_the_calendar_says(
    day: House, jump: float
) -> None:
    day.set(jump)
    day.go_on(10.5 * HOUR)
    await eventually(lambda: len(day.lab.polled) >= 1, "a poll")
    assert day.enrolment.renewals == 1
    day.lab.ahead += _time(day.skipped)  # the authority has the time that went by, and not the one that was set
    day.go_on(1.6 * HOUR)
    day.lab.ahead += _time(1.6 * HOUR)
    await eventually(lambda: len(day.lab.signed) >= 2, "it asks")


async def test_a_certificate_that_seems_to_have_ended_stays_and_is_asked_for_with_patience(
    quarter: House, caplog: pytest.LogCaptureFixture
) -> None:
    before, enrolment = quarter.serial, quarter.enrolment
    quarter.set(HOUR)
    await eventually(lambda: enrolment.failures >= 1, "an attempt")
    # What is given ended long ago by our own clock: it is not taken, and the reason is named.
    assert "what the authority gave cannot be taken" in enrolment.fault
    assert "s ahead of the authority's; set one of them right" in enrolment.fault
    assert "has ended" in enrolment.ended()
    for _ in range(4):
        failures = enrolment.failures
        quarter.go_on(LONGEST)
        await eventually(lambda failures=failures: enrolment.failures > failures, "another attempt")
    assert enrolment.failures <= 8, "it does not ask without end"
    quarter.lab.ahead += _time(quarter.skipped)
    assert quarter.serial == before
    quarter.set(-HOUR)
    quarter.go_on(LONGEST)
    quarter.lab.ahead += _time(LONGEST)
    await eventually(lambda: enrolment.renewals == 2, "a certificate by the right clock")
    assert (enrolment.fault, enrolment.ended()) == ("", "")
    assert quarter.serial != before


async def test_a_calendar_that_was_set_back_does_not_put_off_a_renewal(
    quarter: House, caplog: pytest.LogCaptureFixture
) -> None:
    before, enrolment = quarter.serial, quarter.enrolment
    quarter.set(-HOUR)
    assert enrolment.renewal_due - time.time() > 0
    quarter.go_on(QUARTER / 2)
    quarter.lab.ahead += _time(QUARTER / 2)
    await eventually(lambda: enrolment.failures >= 1, "it is due by the clock that never jumps")
    # What is given begins in the future by our own clock.
    assert "is not valid before" in enrolment.fault
    assert "s behind the authority's; set one of them right" in enrolment.fault
    assert quarter.serial == before
    assert enrolment.ended() == ""
    quarter.set(HOUR)
    quarter.go_on(LONGEST)
    quarter.lab.ahead += _time(LONGEST)
    await eventually(lambda: enrolment.renewals == 2, "a certificate by the right clock")
    assert quarter.serial != before


async def test_an_authority_that_seems_to_begin_tomorrow_is_not_believed_and_the_clocks_are_named(
    quarter: House,
) -> None:
    quarter.lab.show(AUTHORITY_ID)
    quarter.set(-HOUR)
    quarter.go_on(QUARTER / 2)
    await eventually(lambda: quarter.enrolment.failures >= 1, "an attempt")
    assert "compare the clocks of both hosts" in quarter.enrolment.fault


@pytest.mark.parametrize("skew", [55.0, -55.0])
async def test_less_than_a_minute_is_survived_and_not_named(
    quarter: House, skew: float, caplog: pytest.LogCaptureFixture
) -> None:
    quarter.set(skew)
    quarter.go_on(QUARTER / 2 + 60.0)
    quarter.lab.ahead += _time(QUARTER / 2 + 60.0)
    await eventually(lambda: quarter.enrolment.renewals == 2, "a renewal")
    assert quarter.enrolment.failures == 0
    assert "clock" not in caplog.text
