"""How often the webhook looks after its certificate in the cluster, and what it says when a look fails."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable

import pytest

from certs.kube import KubeError
from injector import webhook_certificate
from injector.bootstrap import Looked
from injector.webhook_certificate import INTERVAL, KIND, Renewals
from injector.webhook_metrics import Counts
from proxy.admin.pages import Readiness

GOOD = Looked(did=("made a certificate",), not_after=datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC))


class Script:
    """Looks that go as they are told, one after the other."""

    def __init__(self, *results: Looked | Exception) -> None:
        self.results = list(results)

    def look(self, now: datetime.datetime) -> Looked:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], tuple[Renewals, Readiness, Counts]]:
    monkeypatch.setattr(webhook_certificate, "FIRST_DELAY", 0.0)

    def make(script: Script) -> tuple[Renewals, Readiness, Counts]:
        readiness, counts = Readiness(), Counts()
        return Renewals(asyncio.get_running_loop(), script.look, readiness, counts), readiness, counts

    return make


@pytest.mark.asyncio
async def test_the_first_look_is_tried_until_it_succeeds(
    made: Callable[[Script], tuple[Renewals, Readiness, Counts]],
) -> None:
    refused = KubeError(403, "Forbidden", "no", "give us the verb")
    renewals, readiness, counts = made(Script(refused, OSError("full"), RuntimeError("odd"), GOOD))
    assert KIND in readiness.missing
    await renewals.first()
    assert readiness.is_ready
    assert counts.looks == {"ok": 1, "failed": 3}
    assert renewals.delay == INTERVAL


@pytest.mark.asyncio
async def test_until_then_readiness_says_what_fails(
    made: Callable[[Script], tuple[Renewals, Readiness, Counts]],
) -> None:
    renewals, readiness, _ = made(Script(KubeError(403, "Forbidden", "no", "give us the verb")))
    assert not await renewals._try()
    assert readiness.missing[KIND] == ["no; give us the verb"]


@pytest.mark.asyncio
async def test_a_later_failure_keeps_it_ready_and_is_told_until_a_look_succeeds(
    made: Callable[[Script], tuple[Renewals, Readiness, Counts]],
) -> None:
    renewals, readiness, counts = made(Script(GOOD, KubeError(0, "Timeout", "silence", "look at it"), GOOD))
    await renewals.first()
    assert not await renewals._try()
    assert readiness.is_ready
    assert readiness.rejected[KIND] == ["silence; look at it"]
    assert renewals.delay < INTERVAL
    assert await renewals._try()
    assert KIND not in readiness.rejected
    assert counts.looks == {"ok": 2, "failed": 1}


@pytest.mark.asyncio
async def test_a_look_at_a_silent_api_server_does_not_keep_the_process_from_ending() -> None:
    daemons: list[bool] = []

    def look(now: datetime.datetime) -> Looked:
        daemons.append(threading.current_thread().daemon)
        return GOOD

    await Renewals(asyncio.get_running_loop(), look, Readiness(), Counts()).first()
    assert daemons == [True]
