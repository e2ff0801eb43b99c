"""The memory of decisions and tokens: a permit that stands on a token is never remembered, nor given to another."""

from __future__ import annotations

import pytest
from policy_world import connection, policy, snapshot

from proxy.policy.decisions import Decisions
from proxy.protocol.gate import parse_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits
from proxy.types import Denial, Permit, VerifiedToken

ANYBODY = policy([{}])
ALICE = policy([{"from": [{"source": {"requestPrincipals": ["https://issuer.example/alice"]}}]}])
NOBODY_WITH_TOKEN = policy([{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}])

HEAD = parse_request_head(
    b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n", limits=HeadLimits(), normalization=PathNormalization.BASE, stream=1
)


def token(subject: str = "alice", expires_at: float = 1_000.0) -> VerifiedToken:
    return VerifiedToken(
        issuer="https://issuer.example",
        subject=subject,
        claims={"iss": "https://issuer.example", "sub": subject},
        expires_at=expires_at,
    )


def test_a_permit_ends_with_the_token_that_it_was_given_for() -> None:
    decisions, compiled = Decisions(), snapshot(ANYBODY)
    ends = []
    for expires_at in (1_000.0, 2_000.0, None, 3_000.0, None):
        given = None if expires_at is None else token(expires_at=expires_at)
        verdict = decisions.judge(compiled, connection(), HEAD, given)
        assert isinstance(verdict, Permit)
        ends.append(verdict.expires_at)
    assert ends == [1_000.0, 2_000.0, float("inf"), 3_000.0, float("inf")]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(ALICE, {"alice": Permit, "bob": Denial, "": Denial}), (NOBODY_WITH_TOKEN, {"alice": Denial, "": Permit})],
)
def test_no_caller_gets_what_another_was_permitted(rules: object, expected: dict[str, type]) -> None:
    decisions, compiled = Decisions(), snapshot(rules)  # type: ignore[arg-type]
    for _ in range(2):
        for subject, verdict in (*expected.items(), *reversed(expected.items())):
            given = token(subject) if subject else None
            assert isinstance(decisions.judge(compiled, connection(), HEAD, given), verdict)


def test_without_a_token_the_memory_works_as_before() -> None:
    decisions, compiled = Decisions(), snapshot(ANYBODY)
    first = decisions.judge(compiled, connection(), HEAD)
    decisions.judge(compiled, connection(), HEAD, token())
    assert decisions.judge(compiled, connection(), HEAD) is first
