"""Told to end, the webhook is not ready any more, answers what still comes, lets connections go, and ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import pytest
from injector_process import ASK, InjectorProcess, eventually

from injector import webhook
from injector.doors import World
from injector.review import Answered, review
from injector.webhook import Webhook, WebhookConfig
from proxy.config_values import Address
from proxy.runtime.pages import PageRequest
from tests.reviews import encoded, response_of, review_of

BODY = encoded(review_of())


def test_while_it_drains_it_is_not_ready_and_still_answers_old_and_new_connections(injector: InjectorProcess) -> None:
    injector.start("--drain", "60s")
    with injector.api_server() as kept, injector.api_server() as new:
        assert kept.post(BODY)[0] == 200
        assert injector.process is not None
        injector.process.send_signal(signal.SIGTERM)
        eventually(lambda: injector.page("/readyz")[0] == 503, "not ready")
        for api in (kept, new):
            status, body = api.post(BODY)
            assert (status, response_of(body)["allowed"]) == (200, True)
            assert not api.is_open, "the API server is told to open no more"
    assert injector.stop() == 0, "a second signal ends it at once"


@pytest.mark.asyncio
async def test_a_review_under_way_is_finished_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def held(data: bytes, world: World) -> Answered:
        gate.wait(ASK)
        return review(data, world)

    monkeypatch.setattr(webhook, "_review", held)
    audit = tmp_path / "audit.log"
    config = WebhookConfig(
        listen=Address(host="127.0.0.1", port=0), tls_directory=tmp_path, drain=0.0, audit_log=str(audit)
    )
    served = Webhook(config, asyncio.get_running_loop())
    asked = PageRequest(method="POST", path="/inject", headers={"content-type": "application/json"}, body=BODY)
    making = served._inject(asked)
    assert isinstance(making, asyncio.Future)
    served.stop()
    closing = asyncio.create_task(served.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    page = await making
    await closing
    assert response_of(page.body)["allowed"]
    assert page.headers["connection"] == "close"
    assert len(audit.read_text().splitlines()) == 1


def test_an_audit_log_that_was_moved_away_is_opened_anew(injector: InjectorProcess) -> None:
    injector.start()
    with injector.api_server() as api:
        api.post(BODY)
        injector.audit_file.rename(injector.base / "audit.1")
        assert injector.process is not None
        injector.process.send_signal(signal.SIGUSR1)
        eventually(injector.audit_file.exists, "a new audit log")
        api.post(BODY)
    assert len(injector.audit()) == 1
