"""Policy sets and calls out of few words, so that they meet.

`collect` lets hypothesis draw many cases, always the same, so that one Envoy can be configured with all their sets.
Left out of the vocabulary is what Remora decides otherwise than Istio; `test_envoy_policy_differences.py` has that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from callers import calls_as
from envoy_claims import CLAIMS, ISSUER, NAMESPACE
from envoy_judge import PolicyFilters
from envoy_ours import LABELS, Call, filters
from envoy_rbac import Json
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@dataclass(frozen=True)
class Case:
    """A policy set and what is asked of it."""

    policies: list[Json]
    calls: list[Call]

    @property
    def requests(self) -> list[Call]:
        """The calls that are HTTP."""
        return [call for call in self.calls if call.method]

    @property
    def filters(self) -> PolicyFilters:
        """The set as istiod translates it."""
        return filters(self.policies)


# --- words -----------------------------------------------------------------------------------------------------------

PRINCIPALS: Final = (
    "",
    "cluster.local/ns/a/sa/x",
    "old.example/ns/a/sa/x",
    "cluster.local/ns/ab/sa/y",
    "far.example/ns/a/sa/x",
    "cluster.local/ns/a/sa/x.y",
)
IPS: Final = ("127.0.0.1", "127.0.0.9", "127.1.0.1")
FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "principals": [
        "*",
        "cluster.local/ns/a/sa/x",
        "old.example/ns/a/sa/x",
        "*example/ns/a/sa/x",
        "cluster*/ns/a/sa/x",
        "cluster.local/*",
        "*/sa/x",
        "far.example/ns/a/sa/x",
        "*/ns/a/sa/x",
        "*y",
    ],
    "namespaces": ["a", "a*", "*b", "*", "*a*b*", "z", "."],
    "serviceAccounts": ["x", "a/x", "ab/y", "a/x.y", "a/x-y"],
    "trustDomains": ["*", "cluster.local", "old.example", "*.example", "far*", "clusterxlocal"],
    "ipBlocks": ["127.0.0.1", "127.0.0.0/24", "127.1.2.3/16", "::/0", "0.0.0.0/0", "2001:db8::/64"],
    "remoteIpBlocks": ["127.0.0.1", "127.0.0.8/29", "0.0.0.0/0", "::1"],
    "requestPrincipals": [
        "*",
        "*/alice",
        f"{ISSUER}/alice",
        f"{ISSUER}/*",
        f"{ISSUER}/b*",
        "*/realm/bob",
        "*ce",
        "https*",
        "robots/d2",
        "robots*",
    ],
    "hosts": ["*", "h", "h*", "*B", "H:80", "h."],
    "methods": ["GET", "P*", "*T", "*"],
    "paths": [
        *("/a", "/a*", "*/c", "*", "/a/*", "*b*", "/a/b/", "/"),
        *("/a/{*}", "/a/{**}", "/{**}/c", "/{*}", "/{*}/b", "/a/{*}/{**}", "/a/{**}/b/c"),
    ],
    "ports": ["80", "81", "0"],
}
CONDITIONS: Final[Mapping[str, Sequence[str]]] = {
    "source.ip": FIELDS["ipBlocks"],
    "remote.ip": FIELDS["remoteIpBlocks"],
    "source.namespace": FIELDS["namespaces"],
    "source.principal": FIELDS["principals"],
    "source.serviceAccount": FIELDS["serviceAccounts"],
    "source.trustDomain": FIELDS["trustDomains"],
    "destination.port": FIELDS["ports"],
    "destination.ip": ["127.0.0.1", "127.0.0.0/8", "10.0.0.0/8"],
    "connection.sni": ["*", "orders.demo", "*.demo", "orders*", "ORDERS.demo"],
    "request.headers[X-H]": ["v", "v*", "*w", "*", "v,w", "V"],
    "request.headers[x-other]": ["*", "v"],
    "request.headers[:authority]": ["h", "H", "h*"],
    "request.headers[:method]": ["GET", "*T"],
    "request.auth.principal": FIELDS["requestPrincipals"],
    "request.auth.audiences": ["orders", "sh*", "*", "nothing"],
    "request.auth.presenter": ["web", "*shop", "*"],
    "request.auth.claims[groups]": ["dev", "*s", "*", "d*"],
    "request.auth.claims[scope]": ["read", "read write", "w*"],
    "request.auth.claims[permission]": ["a", "b", "a b"],
    "request.auth.claims[level]": ["7", "*"],
    "request.auth.claims[admin]": ["true", "*"],
    "request.auth.claims[realm][roles]": ["buyer", "sell*"],
    "request.auth.claims[realm][name]": ["north", "*"],
    "request.auth.claims[realm][deep][er]": ["x"],
    "request.auth.claims[realm]": ["*", "north"],
    "request.auth.claims[iss]": [ISSUER, "rob*"],
}
SOURCES: Final = ("principals", "namespaces", "trustDomains", "ipBlocks", "remoteIpBlocks", "requestPrincipals")
OPERATIONS: Final = ("hosts", "methods", "paths", "ports")
TARGETS: Final = (
    *("/", "/a", "/a?x=/b", "/a?", "/a/", "/a/b", "/a/b/", "/a/b/c", "/A", "/ab", "/x/b", "/a/x/y/b/c"),
    *(
        "/a/./b",
        "/x/../a",
        "/a/b/..",
        "/a//c",
        "/%61/b",
        "/a%2Fb",
        "/a%2fb",
        "/a/*",
        "/*",
        "/a/b;x=1",
        "/a\\b",
        "/a/%2e",
    ),
    *("/a/~!$&'()+,:@=-._%41%C3%A9/b/c", "/..", "/a/...", "/%7Ea", "/a/b%00"),
)
HEADER_VALUES: Final = ("", "v", "vw", "w", "v,w", "v, w", "V", "\xff")


def some(values: Sequence[str], most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


@st.composite
def fields(draw: st.DrawFn, names: Sequence[str]) -> Json:
    found = {}
    for name in draw(some(names, 2)):
        negative = draw(st.integers(0, 3)) == 0
        key = f"not{name[0].upper()}{name[1:]}" if negative else name
        found[key] = draw(some(FIELDS[name]))
    return found


@st.composite
def condition(draw: st.DrawFn) -> Json:
    key = draw(st.sampled_from(list(CONDITIONS)))
    which = draw(st.sampled_from([("values",), ("values",), ("notValues",), ("values", "notValues")]))
    return {"key": key} | {name: draw(some(CONDITIONS[key])) for name in which}


@st.composite
def rule(draw: st.DrawFn) -> Json:
    whole: Json = {}
    accounts = st.fixed_dictionaries({"serviceAccounts": some(FIELDS["serviceAccounts"])})
    if draw(st.booleans()):
        sources = draw(st.lists(st.one_of(fields(SOURCES), fields(SOURCES), accounts), min_size=1, max_size=2))
        whole["from"] = [{"source": each} for each in sources]
    if draw(st.booleans()):
        operations = draw(st.lists(fields(OPERATIONS), min_size=1, max_size=2))
        whole["to"] = [{"operation": each} for each in operations]
    if draw(st.integers(0, 2)) == 0:
        whole["when"] = draw(st.lists(condition(), min_size=1, max_size=2))
    return whole


@st.composite
def policy_set(draw: st.DrawFn) -> list[Json]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        action = draw(st.sampled_from(["ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]))
        namespace = draw(st.sampled_from([NAMESPACE, NAMESPACE, NAMESPACE, "istio-system", "other"]))
        metadata: Json = {"name": f"{'pqr'[number % 3]}{number}", "namespace": namespace}
        if draw(st.integers(0, 7)) == 0:
            metadata["annotations"] = {"istio.io/dry-run": "true"}
        spec: Json = {"action": action, "rules": draw(st.lists(rule(), min_size=1, max_size=4))}
        if action == "ALLOW" and draw(st.integers(0, 9)) == 0:
            del spec["rules"]
        if draw(st.integers(0, 4)) == 0:
            spec["selector"] = {"matchLabels": draw(st.sampled_from([LABELS, LABELS, {"app": "web"}]))}
        found.append(
            {
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": metadata,
                "spec": spec,
            }
        )
    return found


@st.composite
def a_call(draw: st.DrawFn) -> Call:
    principal = draw(st.sampled_from(PRINCIPALS))
    caller = calls_as(
        principal,
        ip=draw(st.sampled_from(IPS)),
        port=draw(st.sampled_from([80, 81, 82])),
        sni=draw(st.sampled_from(["", "orders.demo"])) if principal else "",
    )
    if draw(st.integers(0, 5)) == 0:
        return Call(caller=caller)
    lines = draw(st.lists(st.tuples(st.sampled_from(["x-h", "X-H", "x-other"]), st.sampled_from(HEADER_VALUES))))
    return Call(
        caller=caller,
        method=draw(st.sampled_from(["GET", "PUT", "POST"])),
        target=draw(st.sampled_from(TARGETS)),
        host=draw(st.sampled_from(["h", "H:80", "h.b", "h."])),
        headers=tuple(lines[:3]),
        token=draw(st.sampled_from(["", "", *CLAIMS])),
    )


def collect(count: int, calls: int) -> list[Case]:
    """Draw `count` sets with up to `calls` calls each: the same ones whenever this is asked."""
    found: list[Case] = []

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(policy_set(), st.lists(a_call(), min_size=calls // 2, max_size=calls))
    def draw(policies: list[Json], asked: list[Call]) -> None:
        found.append(Case(policies, asked))

    draw()
    return found
