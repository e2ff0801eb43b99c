"""Asks a real Envoy, configured as istiod does it, and our engine the same, and small policies to ask about."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from callers import Caller, calls_as
from envoy_claims import NAMESPACE
from envoy_judge import Verdict, judging
from envoy_ours import Call, compiled, filters, our_verdict
from envoy_rbac import Json

WEB: Final = calls_as("cluster.local/ns/a/sa/web")


def policy(
    rules: Sequence[Json], action: str = "ALLOW", name: str = "p", kind: str = "AuthorizationPolicy", **metadata: Any
) -> Json:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"action": action, "rules": list(rules)},
    }


def operation(action: str = "ALLOW", **fields: list[str]) -> Json:
    return policy([{"to": [{"operation": fields}]}], action)


def source(action: str = "ALLOW", **fields: list[str]) -> Json:
    return policy([{"from": [{"source": fields}]}], action)


def condition(key: str, *values: str, action: str = "ALLOW") -> Json:
    return policy([{"when": [{"key": key, "values": list(values)}]}], action)


def asks(target: str = "/", *headers: tuple[str, str], caller: Caller = WEB, host: str = "h") -> Call:
    return Call(caller=caller, method="GET", target=target, headers=headers, host=host)


@dataclass
class Both:
    """Asks both sides the same."""

    directory: Path
    started: int = 0

    def theirs(self, policies: Sequence[Json], call: Call, mode: str = "base", **more: Any) -> Verdict:
        """What Envoy says; `more` goes to `judging`."""

        async def ask() -> Verdict:
            self.started += 1
            directory = self.directory / str(self.started)
            async with judging(directory, [filters(policies)], modes=[mode], **more) as judge:
                return await judge.request(0, call.head, call.caller, mode=mode)

        return asyncio.run(ask())

    def lets_through(self, policies: Sequence[Json], caller: Caller) -> bool:
        """Whether Envoy lets an opaque connection through."""

        async def ask() -> bool:
            self.started += 1
            async with judging(self.directory / str(self.started), [filters(policies)]) as judge:
                return await judge.opaque(0, caller)

        return asyncio.run(ask())

    def statuses(
        self, policies: Sequence[Json], call: Call, *, mode: str = "base", default: str = "allow-all"
    ) -> tuple[int, int]:
        """Give Envoy's status and ours."""
        ours = our_verdict(compiled(policies, default), call, mode)
        return self.theirs(policies, call, mode).status, ours.status
