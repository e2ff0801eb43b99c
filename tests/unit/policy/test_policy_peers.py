"""PeerAuthentication: which scope wins, and that nothing said means STRICT."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import connection, document, faults, judge, policy, snapshot

from proxy.errors import Reason
from proxy.types import Denial, Permit


def peers(
    mode: str | None, namespace: str = "demo", name: str = "p", app: str | None = None, ports: Any = None
) -> bytes:
    spec: dict[str, Any] = {}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if app is not None:
        spec["selector"] = {"matchLabels": {"app": app}}
    if ports is not None:
        spec["portLevelMtls"] = {str(port): {"mode": of_port} for port, of_port in ports.items()}
    return document("PeerAuthentication", spec, name, namespace)


ROOT = "istio-system"


@pytest.mark.parametrize(
    ("default", "documents", "strict"),
    [
        ("deny", [], True),
        ("allow-authenticated", [], True),
        ("audit", [], True),
        ("allow-all", [], False),
        ("allow-all", [peers("STRICT")], True),
        ("allow-all", [peers("STRICT", ROOT)], True),
        ("allow-all", [peers("STRICT", app="orders")], True),
        ("allow-all", [peers("STRICT", app="web")], False),
        ("allow-all", [peers("STRICT", "other")], False),
        ("allow-all", [peers("STRICT", ROOT, app="orders")], False),  # a selector in the root namespace has no effect
        ("allow-all", [peers("UNSET")], False),
        ("allow-all", [peers(None)], False),
        ("allow-all", [peers("STRICT", ROOT), peers("UNSET")], True),
        ("allow-all", [peers("STRICT", ROOT), peers("UNSET"), peers("UNSET", app="orders", name="w")], True),
        ("allow-all", [peers("UNSET", name="first"), peers("STRICT", name="second")], False),
        ("deny", [peers("UNSET")], True),
    ],
)
def test_the_narrowest_scope_that_speaks_wins(default: str, documents: list[bytes], strict: bool) -> None:
    compiled = snapshot(*documents, default=default)
    assert compiled.requires_mtls(8080) is strict
    assert (compiled.admits_connection(connection(None)) is not None) is strict


def test_ports_have_modes_of_their_own_and_unset_ones_inherit() -> None:
    compiled = snapshot(peers(None, app="orders", ports={8080: "STRICT", 8081: "UNSET"}), default="allow-all")
    assert [compiled.requires_mtls(port) for port in (8080, 8081, 8082)] == [True, False, False]


def test_strict_refuses_a_peer_without_identity_everywhere() -> None:
    compiled = snapshot(policy([{}]))
    for decision in (
        compiled.admits_connection(connection(None)),
        compiled.connection(connection(None)),
        judge(compiled, principal=None),
    ):
        assert isinstance(decision, Denial)
        assert (decision.reason, decision.rule) == (Reason.CERTIFICATE_REQUIRED, "none")
        assert "takes mutual TLS only (no PeerAuthentication says otherwise)" in decision.explanation


def test_strict_admits_a_peer_with_identity() -> None:
    compiled = snapshot(policy([{}]))
    assert compiled.admits_connection(connection()) is None
    assert isinstance(compiled.connection(connection()), Permit)


def test_the_denial_names_the_policy_that_asks() -> None:
    denial = snapshot(peers("STRICT", name="mesh")).admits_connection(connection(None))
    assert denial is not None
    assert "(PeerAuthentication demo/mesh)" in denial.explanation


def test_the_denial_names_the_narrowest_policy_that_asks() -> None:
    documents = [peers("STRICT", ROOT, "mesh"), peers("STRICT", name="wide"), peers("STRICT", name="own", app="orders")]
    denial = snapshot(*documents).admits_connection(connection(None))
    assert denial is not None
    assert "(PeerAuthentication demo/own)" in denial.explanation


def test_a_second_policy_of_one_scope_is_pointed_out() -> None:
    compiled = snapshot(peers("STRICT", name="a"), peers("STRICT", name="b"))
    assert [str(warning) for warning in compiled.warnings] == [
        '001.json:1:1: PeerAuthentication "b" has the same scope as "a" (000.json:1), which wins; keep one of the two'
    ]


@pytest.mark.parametrize("mode", ["PERMISSIVE", "DISABLE"])
def test_other_modes_are_refused_by_name(mode: str) -> None:
    (fault,) = faults(peers(mode))
    assert fault.endswith(f"the mode {mode} is not supported yet; write STRICT")
    assert faults(peers(None, app="orders", ports={80: mode}))
