"""Generated meshes and policies: what the policy engine may allow is open in both directions, and nothing else is.

The engine judges every pod against every port with every request of a small world; an evaluator that knows nothing but
the text of NetworkPolicies judges the same connection.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st

from certs.spiffe import SpiffeId, TrustDomain
from injector.mesh import Door, Mesh, Origin, Workload
from injector.mesh_policies import read_policies
from injector.mesh_read import Sourced, read_mesh
from injector.netpol import NetpolResult, Options, generate
from injector.netpol_read import read_network_policies
from injector.netpol_verify import Finding, Kind, verify
from injector.yaml_text import dump
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, load
from proxy.policy import Workload as PolicyWorkload
from proxy.policy.model import Attribute, MtlsMode
from proxy.types import ConnectionAttributes, Generation, PeerIdentity, Permit, RequestAttributes
from tests.netpol_judge import Judge, Outsider, Pod

MANAGED = ("a", "b")
PLACES = (*MANAGED, "bare")
LABELS = ({"app": "x"}, {"app": "y"}, {"app": "x", "v": "1"}, {"v": "1"}, {"app": "y", "v": "2", "w": "3"}, {})
DECLARED = (
    {"containerPort": 80, "name": "http"},
    {"containerPort": 81, "name": "tcp"},
    {"containerPort": 8080, "name": "web"},
    {"containerPort": 53, "protocol": "UDP"},
)
PORTS = (22, 53, 80, 81, 8080, 9000, 8443, 15006, 15020, 15443, 15444, 15445)
APPLICATION_PORTS = tuple(port for port in PORTS if port not in (15006, 15020))
OUTSIDE = ("203.0.113.1", "203.0.113.200", "198.51.100.1", "2001:db8::1")
BLOCKS = st.lists(
    st.sampled_from(("203.0.113.0/24", "203.0.113.0/25", "203.0.113.1", "2001:db8::/32")), min_size=1, max_size=2
)
REQUESTS = tuple(
    RequestAttributes(method=method, path=path, host="x", headers=headers)
    for method, path, headers in itertools.product(
        ("GET", "PUT", "DELETE"), ("/a", "/b"), ((), ((b"x-role", b"admin"),))
    )
)


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


PRINCIPALS = some("cluster.local/ns/a/sa/one", "cluster.local/ns/b/sa/*", "*", "*/sa/two", "far.example/ns/a/sa/one")
NAMESPACES = some("a", "b", "*", "a*", "nowhere-*")
identities = st.one_of(
    st.fixed_dictionaries({"principals": PRINCIPALS}),
    st.fixed_dictionaries({"namespaces": NAMESPACES}, optional={"notPrincipals": PRINCIPALS, "notIpBlocks": BLOCKS}),
    st.fixed_dictionaries({"notNamespaces": NAMESPACES}),
    st.fixed_dictionaries({"notPrincipals": PRINCIPALS}),
    st.fixed_dictionaries({"serviceAccounts": some("one", "b/two")}),
)
addresses = st.one_of(
    st.fixed_dictionaries({"ipBlocks": BLOCKS}, optional={"notIpBlocks": BLOCKS, "notNamespaces": NAMESPACES}),
    st.fixed_dictionaries({"notIpBlocks": BLOCKS}),
    st.fixed_dictionaries({"remoteIpBlocks": BLOCKS}),
)
sources = st.lists(
    st.one_of(identities, identities, addresses).map(lambda source: {"source": source}), min_size=1, max_size=2
)
NUMBERS = some("80", "81", "8080", "9000")


def operations(http: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    ports = st.fixed_dictionaries({}, optional={"ports": NUMBERS, "notPorts": NUMBERS, **http})
    return st.lists(ports.filter(bool).map(lambda operation: {"operation": operation}), min_size=1, max_size=2)


def names_a_pod_by_address(rule: dict[str, Any]) -> bool:
    """Say whether a rule asks for an identity at an address: where pods are is not known, so the flow stays open."""
    asks = any({"ipBlocks", "remoteIpBlocks"} & set(each["source"]) for each in rule.get("from", ()))
    return asks and any(each["key"] == "source.namespace" for each in rule.get("when", ()))


def denies_all_but_some_addresses(rule: dict[str, Any]) -> bool:
    """Say whether a DENY rule spares addresses: where pods are is not known, so their flows stay open."""
    return any("notIpBlocks" in each["source"] for each in rule.get("from", ()))


# What ALLOW rules ask for and what DENY rules refuse do not meet: some request passes wherever one may.
allow_rules = st.fixed_dictionaries(
    {},
    optional={
        "from": sources,
        "to": operations({"methods": st.just(["GET"]), "paths": st.just(["/a"])}),
        "when": st.sampled_from(
            (
                [{"key": "request.headers[x-role]", "values": ["admin"]}],
                [{"key": "source.namespace", "values": ["a"]}],
                [{"key": "destination.port", "notValues": ["81"]}],
            )
        ),
    },
).filter(lambda rule: not names_a_pod_by_address(rule))
deny_rules = st.fixed_dictionaries(
    {},
    optional={"from": sources, "to": operations({"methods": st.just(["DELETE"]), "paths": st.just(["/b"])})},
).filter(lambda rule: not denies_all_but_some_addresses(rule))


@st.composite
def policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for i in range(draw(st.integers(0, 4))):
        action = draw(st.sampled_from(("ALLOW", "ALLOW", "ALLOW", "DENY")))
        rules = draw(st.lists(allow_rules if action == "ALLOW" else deny_rules, min_size=action == "DENY", max_size=2))
        spec: dict[str, Any] = {"action": action, "rules": rules} if rules else {}
        if draw(st.booleans()):
            spec["selector"] = {"matchLabels": draw(st.sampled_from(({"app": "x"}, {"v": "1"})))}
        own = {"name": f"p{i}", "namespace": draw(st.sampled_from((*MANAGED, "istio-system")))}
        if draw(st.integers(0, 7)) == 0:
            own["annotations"] = {"istio.io/dry-run": "true"}
        found.append(
            {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": own, "spec": spec}
        )
    for place in MANAGED:
        mode = draw(st.sampled_from((None, None, "STRICT", "PERMISSIVE", "DISABLE")))
        if mode:
            peer: dict[str, Any] = {"mtls": {"mode": mode}}
            if draw(st.booleans()):
                other = draw(st.sampled_from(("STRICT", "PERMISSIVE")))
                peer |= {"selector": {"matchLabels": {"app": "x"}}, "portLevelMtls": {"80": {"mode": other}}}
            found.append(
                {
                    "apiVersion": "security.istio.io/v1",
                    "kind": "PeerAuthentication",
                    "metadata": {"name": "modes", "namespace": place},
                    "spec": peer,
                }
            )
    return found


@st.composite
def manifests(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place in PLACES:
        asks = {"remora.io/inject": "disabled" if place == "bare" else "enabled"}
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place, "labels": asks}})
        for i, labels in enumerate(draw(st.lists(st.sampled_from(LABELS), max_size=3, unique_by=str))):
            annotations = draw(
                st.fixed_dictionaries(
                    {"remora.io/capture": st.sampled_from(("ports", "redirect", "redirect"))},
                    optional={
                        "remora.io/inject": st.sampled_from(("true", "true", "false")),
                        "remora.io/policy-default": st.sampled_from(("deny", "allow-authenticated", "allow-all")),
                        "remora.io/exclude-inbound-ports": st.just("81"),
                    },
                )
            )
            own = {"name": f"w{i}", "namespace": place, "labels": labels, "annotations": annotations}
            ports = draw(st.lists(st.sampled_from(DECLARED), max_size=3, unique_by=str))
            spec = {
                "serviceAccountName": draw(st.sampled_from(("one", "two"))),
                "containers": [{"name": "app", "ports": ports}],
            }
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": spec})
    return found


@dataclass(frozen=True, slots=True)
class World:
    """A mesh with its policies, what was generated of both, and the evaluator of it."""

    mesh: Mesh
    files: dict[str, bytes]
    result: NetpolResult
    judge: Judge

    def pod(self, workload: Workload) -> Pod:
        number = self.mesh.workloads.index(workload) + 1
        return Pod(namespace=workload.namespace, labels=workload.labels, ip=f"10.244.0.{number}")

    def snapshot(self, target: Workload) -> PolicySnapshot:
        return load(
            self.files,
            workload=PolicyWorkload(
                namespace=target.namespace,
                service_account=target.service_account,
                name=target.name,
                labels=target.labels,
                trust_domain=TrustDomain(target.settings.trust_domain),
            ),
            settings=PolicySettings(default=PolicyDefault(target.settings.policy_default)),
            generation=Generation(1),
        )


def world(documents: list[dict[str, Any]], of_policies: list[dict[str, Any]]) -> World:
    mesh = read_mesh([Sourced(document, Origin("mesh.yaml", i)) for i, document in enumerate(documents, 1)])
    files = {"policies.yaml": "---\n".join(map(dump, of_policies)).encode()}
    found, _ = read_policies(files, {})
    result = generate(mesh, found, Options(metrics_from=("monitoring",)))
    labels = {name: {"kubernetes.io/metadata.name": name} for name in (*PLACES, "kube-system", "remora-system")}
    labels["monitoring"] = {"kubernetes.io/metadata.name": "monitoring"}
    return World(mesh, files, result, Judge(result.documents, labels))


worlds = st.builds(world, manifests(), policies())


def peer(identity: SpiffeId) -> PeerIdentity:
    return PeerIdentity(spiffe_id=identity, not_after=math.inf, serial="01", fingerprint="00")


def judged_ports(target: Workload, named: set[int]) -> dict[int, tuple[int, str]]:
    """Give for each port of the pod's address the application's port behind it, and what is read there."""
    redirected = target.settings.capture.value == "redirect"
    known = dict(target.protocols)
    if redirected:
        known |= {number: "auto" for number in named if number not in known}
        if not target.protocols:
            known |= {number: "auto" for number in PORTS if number not in known}
    return {
        target.arrival(number): (number, protocol)
        for number, protocol in known.items()
        if target.door(number) is Door.SIDECAR
    }


def allows(snapshot: PolicySnapshot, who: PeerIdentity | None, ip: str, number: int, protocol: str) -> bool:
    seen = ConnectionAttributes(peer=who, source_ip=ip, destination_ip="10.244.9.9", destination_port=number)
    answers: list[object] = []
    if protocol != "http":
        answers.append(snapshot.connection(seen))
    if protocol != "tcp":
        answers += [snapshot.request(seen, request) for request in REQUESTS]
    return any(isinstance(answer, Permit) for answer in answers)


def callers(snapshot: PolicySnapshot, who: PeerIdentity | None, number: int) -> Iterator[PeerIdentity | None]:
    """Give as whom somebody may come: in plaintext, and with a certificate where the port looks at it."""
    yield None
    if who is not None and snapshot.mode(number) is not MtlsMode.DISABLE:
        yield who


def named_ports(snapshot: PolicySnapshot) -> set[int]:
    """Give the ports that enforced rules and modes name."""
    rules = [each for each in snapshot.rules if not each.policy.dry_run]
    clauses = [clause for each in rules for clause in each.rule.clauses() if clause.attribute is Attribute.PORT]
    return {int(value) for clause in clauses for value in clause.values} | set(snapshot.modes.ports)


@given(worlds)
def test_between_pods_exactly_what_the_engine_may_allow_is_open(found: World) -> None:
    managed = set(found.mesh.sidecar_namespaces)
    for target in found.mesh.workloads:
        if target.namespace not in managed:
            continue
        snapshot = found.snapshot(target)
        judged = judged_ports(target, named_ports(snapshot)) if target.has_sidecar else {}
        for source in found.mesh.workloads:
            who = peer(source.identity) if source.has_sidecar else None
            pods = found.pod(source), found.pod(target)
            for port in PORTS:
                number, protocol = judged.get(port, (0, ""))
                expected = port in judged and any(
                    allows(snapshot, each, pods[0].ip, number, protocol) for each in callers(snapshot, who, number)
                )
                enters = found.judge.enters(*pods, port)
                if source.namespace in managed:
                    assert (found.judge.leaves(*pods, port), enters) == (expected, expected), (
                        source.subject,
                        target.subject,
                        port,
                    )
                else:
                    assert enters is expected, (source.subject, target.subject, port)
            assert not found.judge.enters(*pods, 80, "UDP")


@given(worlds)
def test_from_outside_comes_in_only_what_the_engine_may_allow_and_all_of_what_it_allows_in_plaintext(
    found: World,
) -> None:
    stranger = peer(SpiffeId.parse("spiffe://cluster.local/ns/away/sa/away"))
    for target in (each for each in found.mesh.workloads if each.has_sidecar):
        snapshot = found.snapshot(target)
        judged = judged_ports(target, named_ports(snapshot))
        for ip, port in itertools.product(OUTSIDE, PORTS):
            is_open = found.judge.enters(Outsider(ip=ip), found.pod(target), port)
            if port not in judged:
                continue
            number, protocol = judged[port]
            if allows(snapshot, None, ip, number, protocol):
                assert is_open, (ip, target.subject, port)
            elif is_open:
                who = list(callers(snapshot, stranger, number))
                assert any(allows(snapshot, each, ip, number, protocol) for each in who), (ip, target.subject, port)


@given(worlds)
def test_out_of_the_mesh_lead_dns_for_all_the_authority_for_sidecars_and_nothing_else(found: World) -> None:
    dns = Pod(namespace="kube-system", labels={"k8s-app": "kube-dns"})
    authority = Pod(namespace="remora-system", labels={"app.kubernetes.io/name": "remora-authority"})
    other = Pod(namespace="kube-system", labels={"app": "x"})
    managed = found.mesh.sidecar_namespaces
    for source in (each for each in found.mesh.workloads if each.namespace in managed):
        pod = found.pod(source)
        assert found.judge.leaves(pod, dns, 53, "UDP")
        assert found.judge.leaves(pod, dns, 53)
        for port in PORTS:
            assert found.judge.leaves(pod, authority, port) is (port == 8443 and source.has_sidecar)
            assert found.judge.leaves(pod, dns, port) is (port == 53)
            assert not found.judge.leaves(pod, other, port)
            assert not found.judge.leaves(pod, Outsider(ip="198.51.100.1"), port)


@given(worlds)
def test_metrics_of_sidecars_are_open_to_the_namespace_that_scrapes_and_to_nobody_else(found: World) -> None:
    scraper = Pod(namespace="monitoring", labels={"app": "prometheus"})
    managed = found.mesh.sidecar_namespaces
    for target in (each for each in found.mesh.workloads if each.namespace in managed):
        assert found.judge.enters(scraper, found.pod(target), 15020) is target.has_sidecar
        elsewhere = Pod(namespace="bare", labels={"app": "prometheus"})
        assert not found.judge.enters(elsewhere, found.pod(target), 15020)


CLUSTER = ("kube-system", "remora-system")
ALL_PORTS = (*PORTS, 1, 65535)
OPTIONS = Options(metrics_from=("monitoring",))


def verified(found: World, documents: list[dict[str, Any]]) -> tuple[Finding, ...]:
    read, _ = read_policies(found.files, {})
    data = "---\n".join(map(dump, documents)).encode()
    return verify(found.mesh, read, read_network_policies({"existing.yaml": data}), OPTIONS).findings


@settings(deadline=None)
@given(worlds)
def test_what_was_generated_is_verified(found: World) -> None:
    assert verified(found, list(found.result.documents)) == ()


@settings(deadline=None)
@given(worlds, st.data())
def test_without_one_of_its_rules_a_way_is_missing(found: World, data: st.DataObject) -> None:
    places = [
        (i, key, j)
        for i, document in enumerate(found.result.documents)
        for key in ("ingress", "egress")
        for j, rule in enumerate(document["spec"].get(key, ()))  # type: ignore[union-attr, call-overload]
        if not any(port["port"] == 15020 for port in rule.get("ports", ()))
    ]
    assume(places)
    i, key, j = data.draw(st.sampled_from(places))
    documents = copy.deepcopy(list(found.result.documents))
    del documents[i]["spec"][key][j]
    kinds = {each.kind for each in verified(found, documents)}
    event(f"{key} {sorted(kind.value for kind in kinds)}")
    note("\n".join(map(str, verified(found, documents))))
    assert kinds == ({Kind.MISSING} if ways(found, documents) < ways(found, found.result.documents) else set())


def ways(found: World, documents: Sequence[Mapping[str, Any]]) -> int:
    """Count what pods with sidecars let in and out: each other, DNS, the authority, addresses outside.

    A pod that is not among the manifests counts where its namespace has none there: it may come as one of them.
    """
    judge = Judge(documents, {name: {"kubernetes.io/metadata.name": name} for name in (*PLACES, *CLUSTER)})
    dns = Pod(namespace="kube-system", labels={"k8s-app": "kube-dns"})
    authority = Pod(namespace="remora-system", labels={"app.kubernetes.io/name": "remora-authority"})
    inhabited = {each.namespace for each in found.mesh.workloads}
    strangers = [Pod(namespace=name, labels={"app": "z"}) for name in PLACES if name not in inhabited]
    count = 0
    for one in (each for each in found.mesh.workloads if each.has_sidecar):
        pod = found.pod(one)
        count += judge.leaves(pod, dns, 53, "UDP") + judge.leaves(pod, authority, 8443)
        for port in ALL_PORTS:
            others = [found.pod(each) for each in found.mesh.workloads]
            count += sum(judge.leaves(pod, other, port) + judge.enters(other, pod, port) for other in others)
            count += sum(judge.enters(stranger, pod, port) for stranger in strangers)
            count += sum(judge.enters(Outsider(ip=ip), pod, port) for ip in OUTSIDE)
    return count


@settings(deadline=None)
@given(worlds, st.sampled_from(("Ingress", "Egress")))
def test_a_rule_for_everybody_is_a_hole_unless_everybody_may(found: World, direction: str) -> None:
    documents = list(found.result.documents)
    wide = {"podSelector": {}, "policyTypes": [direction], direction.lower(): [{}]}
    documents.append(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "wide", "namespace": "a"},
            "spec": wide,
        }
    )
    kinds = [each.kind for each in verified(found, documents)]
    judged = [each for each in found.mesh.workloads if each.has_sidecar and each.namespace == "a"]
    everybody_may = direction == "Ingress" and all(
        found.judge.enters(Outsider(ip=ip), found.pod(each), each.arrival(port))
        for each in judged
        for port in each.protocols or APPLICATION_PORTS
        if each.door(port) is Door.SIDECAR
        for ip in OUTSIDE
    )
    if judged:
        assert Kind.HOLE in kinds or everybody_may
    else:
        assert kinds == []
