"""Tokens are judged in threads, and no more of them wait than somebody has the patience for."""

from __future__ import annotations

import asyncio
import datetime
import threading

import pytest

from certs.caller import Caller, How
from certs.refusals import Refusal, Refused
from certs.spiffe import SpiffeId
from proxy.authority import tokens as tokens_module
from proxy.authority.tokens import Tokens

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
ORDERS = Caller(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders"), how=How.SERVICE_ACCOUNT_TOKEN)


class Slow:
    """Answers nobody until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def judge(self, token: str, now: datetime.datetime) -> Caller:
        if not self.may.wait(10):
            raise Refused(Refusal.REVIEW_UNAVAILABLE, "nobody let it answer")
        return ORDERS


def test_who_comes_while_too_many_wait_is_refused_and_then_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "WAITING", 2)
    slow = Slow()

    async def come() -> None:
        tokens = Tokens(slow)
        try:
            first = [asyncio.ensure_future(tokens.authenticate(name, NOW)) for name in ("one", "two", "three")]
            done, waiting = await asyncio.wait(first, return_when=asyncio.FIRST_EXCEPTION)
            [refused] = [each.exception() for each in done]
            assert isinstance(refused, Refused)
            assert refused.reason is Refusal.REVIEW_UNAVAILABLE
            slow.may.set()
            assert await asyncio.gather(*waiting) == [ORDERS, ORDERS]
            assert await tokens.authenticate("four", NOW) == ORDERS
        finally:
            slow.may.set()
            tokens.close()

    asyncio.run(come())
