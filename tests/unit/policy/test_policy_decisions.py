"""The memory of decisions: used only where nothing but the key decides, bounded, dropped with its snapshot."""

from __future__ import annotations

import dataclasses

import pytest
from policy_world import WEB, connection, policy, snapshot

from proxy.policy import PolicySnapshot
from proxy.policy.decisions import DECISIONS, Decisions
from proxy.protocol.gate import parse_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.types import Denial, Permit

GETS = policy([{"from": [{"source": {"principals": [WEB]}}], "to": [{"operation": {"methods": ["GET"]}}]}])
BY_HEADER = policy([{"when": [{"key": "request.headers[x-tenant]", "values": ["a"]}]}])
BY_ADDRESS = policy([{"from": [{"source": {"ipBlocks": ["10.0.0.0/24"]}}]}])


def head(path: bytes = b"/", *fields: bytes, method: bytes = b"GET", host: bytes = b"orders") -> RequestHead:
    lines = b"".join(field + b"\r\n" for field in fields)
    return parse_request_head(
        b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, path, host, lines),
        limits=HeadLimits(),
        normalization=PathNormalization.BASE,
        stream=1,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that a snapshot was asked about."""
    paths: list[str] = []
    original = PolicySnapshot.request

    def request(self: PolicySnapshot, *arguments: object) -> Permit | Denial:
        paths.append(arguments[1].path)  # type: ignore[attr-defined]
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PolicySnapshot, "request", request)
    return paths


def test_a_permit_is_remembered(asked: list[str]) -> None:
    decisions, compiled = Decisions(), snapshot(GETS)
    first = decisions.judge(compiled, connection(), head())
    assert isinstance(first, Permit)
    assert decisions.judge(compiled, connection(), head()) is first
    assert asked == ["/"]


def test_a_denial_is_not_remembered(asked: list[str]) -> None:
    decisions, compiled = Decisions(), snapshot(GETS)
    for _ in range(2):
        assert isinstance(decisions.judge(compiled, connection(), head(method=b"POST")), Denial)
    assert len(asked) == 2


def test_another_method_path_host_port_or_certificate_is_another_question(asked: list[str]) -> None:
    decisions, compiled = Decisions(), snapshot(GETS)
    here = connection()
    decisions.judge(compiled, here, head())
    assert isinstance(decisions.judge(compiled, here, head(method=b"POST")), Denial)
    decisions.judge(compiled, here, head(b"/other"))
    decisions.judge(compiled, here, head(host=b"other"))
    decisions.judge(compiled, connection(port=9090), head())
    assert here.peer is not None
    renewed = dataclasses.replace(here, peer=dataclasses.replace(here.peer, fingerprint="11" * 32, not_after=5e9))
    permit = decisions.judge(compiled, renewed, head())
    assert isinstance(permit, Permit)
    assert permit.peer == renewed.peer, "a permit speaks of the certificate that was shown"
    assert isinstance(decisions.judge(compiled, connection(principal=None), head()), Denial)
    assert len(asked) == 7


def test_a_new_snapshot_drops_everything(asked: list[str]) -> None:
    decisions, old = Decisions(), snapshot(GETS)
    decisions.judge(old, connection(), head())
    new = snapshot(policy(None))
    assert isinstance(decisions.judge(new, connection(), head()), Denial)
    assert isinstance(decisions.judge(old, connection(), head()), Permit)
    assert len(asked) == 3


@pytest.mark.parametrize("document", [BY_HEADER, BY_ADDRESS])
def test_what_depends_on_more_than_the_key_is_asked_each_time(document: bytes, asked: list[str]) -> None:
    decisions, compiled = Decisions(), snapshot(document)
    allowed = decisions.judge(compiled, connection(), head(b"/", b"x-tenant: a"))
    denied = decisions.judge(compiled, connection(ip="192.0.2.1"), head(b"/", b"x-tenant: b"))
    assert isinstance(allowed, Permit)
    assert isinstance(denied, Denial)
    assert len(asked) == 2


def test_the_memory_is_bounded() -> None:
    decisions, compiled, caller, request = Decisions(), snapshot(GETS), connection(), head()
    for number in range(DECISIONS + 10):
        request.path = b"/%d" % number
        decisions.judge(compiled, caller, request)
        assert len(decisions._known) <= DECISIONS
    assert len(decisions._known) == 10
    assert DECISIONS == 4_096
