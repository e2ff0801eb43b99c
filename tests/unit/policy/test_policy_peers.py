"""PeerAuthentication: which scope wins, that nothing said means STRICT, and what a peer without identity may do."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import connection, document, faults, judge, policy, snapshot

from proxy.errors import Reason
from proxy.policy.model import MtlsMode
from proxy.types import Denial, Permit


def peers(
    mode: str | None,
    namespace: str = "demo",
    name: str = "p",
    app: str | None = None,
    ports: Any = None,
    labels: Any = None,
) -> bytes:
    spec: dict[str, Any] = {}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if app is not None:
        spec["selector"] = {"matchLabels": {"app": app}}
    if labels is not None:
        spec["selector"] = {"matchLabels": labels}
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
    (warning,) = snapshot(peers("STRICT", name="a"), peers("STRICT", name="b")).warnings
    assert warning.code == "RM0601"
    assert str(warning).startswith(
        '001.json:1:1: the PeerAuthentication "b" shares the same scope with "a" (000.json:1)'
    )


@pytest.mark.parametrize("mode", ["PERMISSIVE", "DISABLE"])
def test_the_other_modes_take_a_peer_without_identity(mode: str) -> None:
    compiled = snapshot(peers(mode), policy([{}]))
    assert compiled.mode(8080) is MtlsMode(mode)
    assert compiled.admits_connection(connection(None)) is None
    assert isinstance(compiled.connection(connection(None)), Permit)
    assert isinstance(judge(compiled, principal=None), Permit)


def test_the_denial_names_the_policy_that_set_the_port() -> None:
    documents = [peers("PERMISSIVE", ROOT, "mesh"), peers(None, name="own", app="orders", ports={8080: "STRICT"})]
    denial = snapshot(*documents).admits_connection(connection(None))
    assert denial is not None
    assert "(PeerAuthentication demo/own)" in denial.explanation


# --- which mode holds (policy under the default `allow-all`, whose own answer is PERMISSIVE) --------------------------

COMPOSED = [
    pytest.param([], "PERMISSIVE", id="nothing"),
    pytest.param([peers("STRICT", ROOT)], "STRICT", id="mesh"),
    pytest.param([peers("DISABLE", ROOT)], "DISABLE", id="mesh_disables"),
    pytest.param([peers("STRICT", ROOT), peers("DISABLE")], "DISABLE", id="namespace_over_mesh"),
    pytest.param([peers("DISABLE"), peers("STRICT", ROOT)], "DISABLE", id="whatever_the_order_of_files"),
    pytest.param(
        [peers("STRICT", ROOT), peers("DISABLE"), peers("PERMISSIVE", name="w", app="orders")],
        "PERMISSIVE",
        id="workload_over_namespace",
    ),
    pytest.param([peers("STRICT", ROOT), peers("UNSET")], "STRICT", id="namespace_unset_inherits_the_mesh"),
    pytest.param(
        [peers("STRICT", ROOT), peers(None), peers(None, name="w", app="orders")], "STRICT", id="both_unset_inherit"
    ),
    pytest.param([peers("DISABLE"), peers("UNSET", name="w", app="orders")], "DISABLE", id="workload_unset_inherits"),
    pytest.param([peers("UNSET", ROOT), peers("UNSET")], "PERMISSIVE", id="everything_unset_is_the_default"),
    pytest.param([peers("STRICT", ROOT, app="orders")], "PERMISSIVE", id="selector_in_the_root_namespace"),
    pytest.param([peers("STRICT", "other")], "PERMISSIVE", id="another_namespace"),
    pytest.param([peers("STRICT", app="web")], "PERMISSIVE", id="another_workload"),
    pytest.param([peers("STRICT", name="z"), peers("DISABLE", name="a")], "STRICT", id="first_file_wins"),
    pytest.param(
        [peers("DISABLE", ROOT), peers("UNSET", name="z"), peers("STRICT", name="a")],
        "DISABLE",
        id="first_file_wins_though_unset",
    ),
    pytest.param(
        [peers("STRICT", name="z", app="orders"), peers("DISABLE", name="a", app="orders")],
        "STRICT",
        id="first_of_a_workload",
    ),
    pytest.param(
        [peers("STRICT", name="z", app="web"), peers("DISABLE", name="a", app="orders")],
        "DISABLE",
        id="another_workloads_policy_is_no_first",
    ),
    pytest.param([peers("STRICT", labels={}), peers("DISABLE", app="orders")], "DISABLE", id="empty_selector_is_none"),
    pytest.param([peers("STRICT", ROOT, labels={})], "STRICT", id="empty_selector_in_the_root_namespace"),
]


@pytest.mark.parametrize(("documents", "mode"), COMPOSED)
def test_which_scope_decides(documents: list[bytes], mode: str) -> None:
    assert snapshot(*documents, default="allow-all").mode(8080) is MtlsMode(mode)


OWN = {8080: "DISABLE", 8081: "UNSET", 8082: "STRICT"}
PORTS = [
    pytest.param([peers("STRICT", app="orders", ports=OWN)], "DISABLE STRICT STRICT STRICT", id="ports_over_workload"),
    pytest.param(
        [peers("STRICT", ROOT), peers(None, app="orders", ports=OWN)],
        "DISABLE STRICT STRICT STRICT",
        id="an_unset_workload_inherits_and_so_do_its_ports",
    ),
    pytest.param(
        [peers("DISABLE", ROOT), peers("UNSET"), peers("UNSET", name="w", app="orders", ports=OWN)],
        "DISABLE DISABLE STRICT DISABLE",
        id="through_two_unset_scopes",
    ),
    pytest.param([peers(None, app="orders", ports=OWN)], "DISABLE PERMISSIVE STRICT PERMISSIVE", id="over_the_default"),
    pytest.param(
        [peers("STRICT", app="web", ports=OWN)],
        "PERMISSIVE PERMISSIVE PERMISSIVE PERMISSIVE",
        id="another_workloads_ports",
    ),
    pytest.param(
        [peers("STRICT", ROOT, app="orders", ports=OWN)],
        "PERMISSIVE PERMISSIVE PERMISSIVE PERMISSIVE",
        id="ports_in_the_root_namespace",
    ),
    pytest.param(
        [peers("STRICT", name="z", app="orders"), peers("STRICT", name="a", app="orders", ports=OWN)],
        "STRICT STRICT STRICT STRICT",
        id="ports_of_the_second_policy_do_not_count",
    ),
    pytest.param(
        [peers("PERMISSIVE", app="orders", ports={8080: "STRICT"}), peers("DISABLE", name="n")],
        "STRICT PERMISSIVE PERMISSIVE PERMISSIVE",
        id="a_namespace_does_not_reach_them",
    ),
]


@pytest.mark.parametrize(("documents", "modes"), PORTS)
def test_which_mode_a_port_has(documents: list[bytes], modes: str) -> None:
    compiled = snapshot(*documents, default="allow-all")
    assert [compiled.mode(port).value for port in (8080, 8081, 8082, 8083)] == modes.split()
    strict = [mode == "STRICT" for mode in modes.split()]
    assert [compiled.requires_mtls(port) for port in (8080, 8081, 8082, 8083)] == strict


@pytest.mark.parametrize(
    "document", [peers("STRICT", ports={8080: "DISABLE"}), peers("STRICT", labels={}, ports={8080: "DISABLE"})]
)
def test_ports_need_a_selector(document: bytes) -> None:
    (fault,) = faults(document)
    assert fault.endswith("`spec.portLevelMtls` needs a selector with labels; write `selector`")


# --- a peer without identity (ISTIO-SECURITY-2021-004) ----------------------------------------------------------------

NEGATIVE = [
    pytest.param("ALLOW", {"principals": ["*"]}, False, id="allow_any_identity"),
    pytest.param("ALLOW", {"namespaces": ["*"]}, False, id="allow_any_namespace"),
    pytest.param("ALLOW", {"notNamespaces": ["evil"]}, True, id="allow_not_a_namespace_lets_it_in"),
    pytest.param("ALLOW", {"notPrincipals": ["cluster.local/ns/evil/sa/x"]}, True, id="allow_not_a_principal_too"),
    pytest.param("DENY", {"principals": ["*"]}, True, id="deny_any_identity_lets_it_pass"),
    pytest.param("DENY", {"namespaces": ["evil"]}, True, id="deny_a_namespace_lets_it_pass"),
    pytest.param("DENY", {"notPrincipals": ["*"]}, False, id="the_idiom_that_asks_for_mutual_tls"),
    pytest.param("DENY", {"notNamespaces": ["demo"]}, False, id="deny_all_but_a_namespace"),
]


@pytest.mark.parametrize(("action", "source", "allowed"), NEGATIVE)
def test_what_identity_rules_mean_for_a_peer_without_one(action: str, source: dict[str, Any], allowed: bool) -> None:
    compiled = snapshot(policy([{"from": [{"source": source}]}], action), default="allow-all")
    assert compiled.mode(8080) is MtlsMode.PERMISSIVE
    for decision in (compiled.connection(connection(None)), judge(compiled, principal=None)):
        assert isinstance(decision, Permit if allowed else Denial)
