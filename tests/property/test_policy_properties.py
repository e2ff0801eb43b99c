"""What holds of every policy set and every call: the engine against the reference, and laws of the language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_reference import Call, Document, World, evaluate

from certs.spiffe import SpiffeId, TrustDomain
from proxy.errors import ConfigError, Fault
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import ConnectionAttributes, Denial, Generation, PeerIdentity, Permit, RequestAttributes, VerifiedToken

WORLD_LABELS = {"app": "orders"}
TRUST_DOMAINS = ("td.one", "td.two")
quickly = settings(derandomize=True, deadline=None, max_examples=60)


# --- policies and calls out of few words, so that they meet ----------------------------------------------------------

DEEP = "/d" * 20  # deeper than paths are filed
PRINCIPALS = ["td.one/ns/a/sa/x", "td.two/ns/a/sa/x", "td.one/ns/ab/sa/y", "far.td/ns/a/sa/x", "td.one/ci/x", None]
PATHS = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/c",
    "/a//c",
    "/ab",
    "/*",
    "/a/b/c/d",
    "*",
    "",
    "//a",
    f"{DEEP}/x",
    f"{DEEP}/y/z",
]
HOSTS = ["", "h", "H:80", "h.b"]
HEADERS = ["", "v", "vw", "w", "\xff"]
FORWARDED = ["10.0.0.1", "192.0.2.1", "192.0.2.1, 10.0.0.9", "x, 2001:db8::1", "nonsense", "", "10.0.0.1,192.0.2.7,x"]
CLAIM_VALUES = ["v", "v*", "*w", "*", "v w"]
NESTED = [{"b": "v"}, {"b": ["w", 2]}, {"c": "v"}, {"b": {"c": "v"}}, {"scope": "v w"}, {"scope": "w"}, "v", ["v"], 1]
CLAIMS = ["v", "w", "vw", "v w", "", ["v", 1], ["x", "w"], [], 1, True, None]


def some(values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3)


FIELDS: Mapping[str, Sequence[str]] = {
    "principals": [
        "*",
        "td.one/ns/a/sa/x",
        "cluster.local/ns/a/sa/x",
        "*one/ns/a/sa/x",
        "td*/ns/a/sa/x",
        "td.one/*",
        "*/sa/x",
        "far.td/ns/a/sa/x",
        "*/ns/a/sa/x",
    ],
    "namespaces": ["a", "a*", "*b", "*", "*a*b*", "z"],
    "serviceAccounts": ["x", "a/x", "ab/y"],
    "trustDomains": ["td.one", "td.two", "td.*", "*one", "*", "far.td", "cluster.local"],
    "remoteIpBlocks": ["10.0.0.1", "10.0.0.0/24", "192.0.2.0/24", "2001:db8::1"],
    "requestPrincipals": ["*", "i/s", "*/s", "*i/t", "*s", "i/*", "i/s*", "u/i/s", "u*", "i*", "*/s*"],
    "ipBlocks": ["10.0.0.1", "10.0.0.0/24", "::/0", "0.0.0.0/0", "2001:db8::/64"],
    "hosts": ["*", "h", "h*", "*B", "H:80"],
    "methods": ["GET", "P*", "*T", "*"],
    "paths": [
        *("/a", "/a*", "*/c", "*", "/a/{*}", "/a/{**}", "/{**}/c", "/{*}", "/a/*", "*b*", "/a/b/*", "/a/b/{*}"),
        *("/", "//a*", "/*", "x*", f"{DEEP}/x", f"{DEEP}/y/*", f"{DEEP}/{{*}}", "/d*"),
    ],
    "ports": ["80", "81"],
}
SOURCES = ("principals", "namespaces", "trustDomains", "ipBlocks", "remoteIpBlocks", "requestPrincipals")
OPERATIONS = ("hosts", "methods", "paths", "ports")


def negative(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


@st.composite
def fields(draw: st.DrawFn, names: Sequence[str]) -> dict[str, list[str]]:
    chosen = draw(st.lists(st.sampled_from([*names, *map(negative, names)]), min_size=1, max_size=3, unique=True))
    return {name: draw(some(FIELDS[name if name in FIELDS else name[3].lower() + name[4:]])) for name in chosen}


CONDITIONS: Mapping[str, Sequence[str]] = {
    "source.ip": FIELDS["ipBlocks"],
    "source.namespace": FIELDS["namespaces"],
    "source.principal": FIELDS["principals"],
    "source.serviceAccount": FIELDS["serviceAccounts"],
    "source.trustDomain": FIELDS["trustDomains"],
    "remote.ip": FIELDS["remoteIpBlocks"],
    "destination.ip": ["10.0.0.8", "10.0.0.0/8", "::/0"],
    "destination.port": FIELDS["ports"],
    "connection.sni": ["h", "h*", "*b", "*"],
    "request.headers[X-H]": ["v", "v*", "*w", "*"],
    "request.auth.principal": FIELDS["requestPrincipals"],
    "request.auth.audiences": CLAIM_VALUES,
    "request.auth.presenter": CLAIM_VALUES,
    "request.auth.claims[scope]": CLAIM_VALUES,
    "request.auth.claims[a]": CLAIM_VALUES,
    "request.auth.claims[a][b]": CLAIM_VALUES,
    "request.auth.claims[a][scope]": CLAIM_VALUES,
    "request.auth.claims[a[b]]": CLAIM_VALUES,
}


@st.composite
def condition(draw: st.DrawFn, keys: Sequence[str] = tuple(CONDITIONS)) -> dict[str, Any]:
    key = draw(st.sampled_from(keys))
    which = draw(st.sampled_from([("values",), ("notValues",), ("values", "notValues")]))
    return {"key": key} | {name: draw(some(CONDITIONS[key])) for name in which}


@st.composite
def rule(draw: st.DrawFn) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    accounts = st.fixed_dictionaries({"serviceAccounts": some(FIELDS["serviceAccounts"])})
    if draw(st.booleans()):
        sources = draw(st.lists(st.one_of(fields(SOURCES), accounts), min_size=1, max_size=2))
        whole["from"] = [{"source": each} for each in sources]
    if draw(st.booleans()):
        operations = draw(st.lists(fields(OPERATIONS), min_size=1, max_size=2))
        whole["to"] = [{"operation": each} for each in operations]
    if draw(st.booleans()):
        whole["when"] = draw(st.lists(condition(), min_size=1, max_size=2))
    return whole


@st.composite
def policy(draw: st.DrawFn, actions: Sequence[str] = ("ALLOW", "ALLOW", "DENY", "AUDIT")) -> Document:
    action = draw(st.sampled_from(actions))
    metadata: dict[str, Any] = {
        "name": draw(st.sampled_from("pqr")),
        "namespace": draw(st.sampled_from(["a", "a", "istio-system", "other"])),
    }
    if draw(st.integers(0, 9)) == 0:
        metadata["annotations"] = {"istio.io/dry-run": "true"}
    spec: dict[str, Any] = {"action": action, "rules": draw(st.lists(rule(), min_size=1, max_size=4))}
    if draw(st.integers(0, 3)) == 0:
        spec["selector"] = {"matchLabels": draw(st.sampled_from([{"app": "orders"}, {"app": "web"}]))}
    kind = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    return kind | {"metadata": metadata, "spec": spec}


@st.composite
def claims(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"iss": draw(st.sampled_from(["i", "u/i", "ui"]))}
    if draw(st.integers(0, 4)):
        found["sub"] = draw(st.sampled_from(["s", "st", "t", "s*", "i/s"]))
    for name in draw(st.lists(st.sampled_from(["aud", "azp", "scope", "a", "a[b]"]), unique=True)):
        found[name] = draw(st.sampled_from(NESTED if name == "a" else CLAIMS))
    return found


@st.composite
def call(draw: st.DrawFn) -> Call:
    header = st.tuples(st.sampled_from(["x-h", "x-other"]), st.sampled_from(HEADERS))
    forwarded = st.tuples(st.just("x-forwarded-for"), st.sampled_from(FORWARDED))
    headers = draw(st.lists(st.one_of(header, forwarded), max_size=4))
    is_http = draw(st.integers(0, 3)) > 0
    return Call(
        principal=draw(st.sampled_from(PRINCIPALS)),
        ip=draw(st.sampled_from(["10.0.0.1", "10.0.0.9", "10.1.0.1", "2001:db8::1"])),
        port=draw(st.sampled_from([80, 81, 82])),
        method=draw(st.sampled_from(["GET", "PUT", "POST"])) if is_http else None,
        path=draw(st.sampled_from(PATHS)) if is_http else "/",
        host=draw(st.sampled_from(HOSTS)) if is_http else "",
        headers=tuple(headers) if is_http else (),
        destination_ip=draw(st.sampled_from(["10.0.0.8", "10.1.0.8", "2001:db8::8"])),
        sni=draw(st.sampled_from(["", "h", "h.b", "b"])),
        claims=draw(st.one_of(st.none(), claims())) if is_http else None,
    )


DEFAULTS = st.sampled_from([default.value for default in PolicyDefault])
POLICIES = st.lists(policy(), max_size=5)
CALLS = st.lists(call(), min_size=1, max_size=8)


# --- the engine under test -------------------------------------------------------------------------------------------


def compiled(policies: Sequence[Document], default: str, trusted_proxies: int = 0) -> PolicySnapshot:
    workload = Workload(
        namespace="a",
        service_account="orders",
        name="orders-1",
        labels=WORLD_LABELS,
        trust_domain=TrustDomain(TRUST_DOMAINS[0]),
        trust_domain_aliases=(TrustDomain(TRUST_DOMAINS[1]),),
    )
    return load(
        {f"{index:03}.json": json.dumps(each).encode() for index, each in enumerate(policies)},
        workload=workload,
        settings=PolicySettings(default=PolicyDefault(default), trusted_proxies=trusted_proxies),
        generation=Generation(1),
    )


def allows(snapshot: PolicySnapshot, asked: Call) -> bool:
    return isinstance(decided(snapshot, asked), Permit)


def decided(snapshot: PolicySnapshot, asked: Call) -> Permit | Denial:
    peer = None
    if asked.principal is not None:
        spiffe_id = SpiffeId.parse(f"spiffe://{asked.principal}")
        peer = PeerIdentity(spiffe_id=spiffe_id, not_after=0.0, serial="", fingerprint="")
    connection = ConnectionAttributes(
        peer=peer,
        source_ip=asked.ip,
        destination_ip=asked.destination_ip,
        destination_port=asked.port,
        sni=asked.sni,
    )
    if asked.method is None:
        return snapshot.connection(connection)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in asked.headers]
    token = None
    if asked.claims is not None:
        token = VerifiedToken(issuer=asked.claims["iss"], subject=asked.claims.get("sub", ""), claims=asked.claims)
    request = RequestAttributes(method=asked.method, path=asked.path, host=asked.host, headers=headers, token=token)
    return snapshot.request(connection, request)


def reference(policies: Sequence[Document], default: str, asked: Call, trusted_proxies: int = 0) -> bool:
    return evaluate(policies, World("a", WORLD_LABELS, TRUST_DOMAINS, default, trusted_proxies), asked)


# --- laws ------------------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=100)
@given(POLICIES, DEFAULTS, CALLS, st.integers(0, 3))
def test_the_engine_decides_as_the_reference(
    policies: list[Document], default: str, calls: list[Call], trusted_proxies: int
) -> None:
    snapshot = compiled(policies, default, trusted_proxies)
    for asked in calls:
        assert allows(snapshot, asked) is reference(policies, default, asked, trusted_proxies), asked


@pytest.mark.parametrize("name", [*CONDITIONS, *SOURCES, *OPERATIONS])
@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.data(), st.sampled_from(["ALLOW", "DENY"]), st.lists(call(), min_size=10, max_size=15), st.integers(0, 3))
def test_each_field_alone_matches_as_in_the_reference(
    name: str, data: st.DataObject, action: str, calls: list[Call], trusted_proxies: int
) -> None:
    if name in CONDITIONS:
        one = {"when": [data.draw(condition([name]))]}
    elif name in SOURCES:
        one = {"from": [{"source": data.draw(fields([name]))}]}
    else:
        one = {"to": [{"operation": data.draw(fields([name]))}]}
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "one", "namespace": "a"},
        "spec": {"action": action, "rules": [one]},
    }
    snapshot = compiled([document], "allow-all", trusted_proxies)
    for asked in calls:
        assert allows(snapshot, asked) is reference([document], "allow-all", asked, trusted_proxies), asked


@quickly
@given(
    st.lists(policy(), max_size=4),
    st.lists(rule(), min_size=10, max_size=40),
    st.sampled_from(["ALLOW", "DENY"]),
    CALLS,
    st.integers(0, 2),
)
def test_the_index_of_many_rules_finds_what_trying_each_finds(
    policies: list[Document], rules: list[dict[str, Any]], action: str, calls: list[Call], trusted_proxies: int
) -> None:
    many = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "many", "namespace": "a"},
        "spec": {"action": action, "rules": rules},
    }
    documents = [*policies, many]
    default = "deny" if action == "ALLOW" else "allow-all"
    snapshot = compiled(documents, default, trusted_proxies)
    for asked in calls:
        assert allows(snapshot, asked) is reference(documents, default, asked, trusted_proxies), asked


@quickly
@given(st.lists(rule(), min_size=10, max_size=40), CALLS)
def test_the_index_names_every_rule_that_matches_and_the_first_of_them(
    rules: list[dict[str, Any]], calls: list[Call]
) -> None:
    """AUDIT rules are all named; the one that a DENY names is the first of what the same rules, as AUDIT, name."""
    body = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    metadata = {"name": "many", "namespace": "a"}
    audit = compiled([body | {"metadata": metadata, "spec": {"action": "AUDIT", "rules": rules}}], "allow-all")
    deny = compiled([body | {"metadata": metadata, "spec": {"action": "DENY", "rules": rules}}], "allow-all")
    for asked in calls:
        noted = decided(audit, asked).audited
        alone = [
            index
            for index, each in enumerate(rules)
            if not reference(
                [body | {"metadata": metadata, "spec": {"action": "DENY", "rules": [each]}}], "allow-all", asked
            )
        ]
        assert noted == tuple(f"ns[a]-policy[many]-rule[{index}]" for index in alone)
        decision = decided(deny, asked)
        assert decision.rule == (noted[0] if noted else "default[allow-all]")


@quickly
@given(POLICIES, policy(["DENY"]), DEFAULTS, CALLS)
def test_adding_a_deny_policy_never_allows_more(
    policies: list[Document], added: Document, default: str, calls: list[Call]
) -> None:
    before, after = compiled(policies, default), compiled([*policies, added], default)
    for asked in calls:
        assert allows(after, asked) <= allows(before, asked)


@quickly
@given(POLICIES, policy(["ALLOW"]), policy(["ALLOW"]), DEFAULTS, CALLS)
def test_adding_an_allow_policy_to_allow_policies_never_denies_more(
    policies: list[Document], first: Document, added: Document, default: str, calls: list[Call]
) -> None:
    """Adding an ALLOW policy never denies more, given that an enforced ALLOW policy selects the workload already.

    The first one takes the place of the default and so may deny more; every further one only allows more.
    """
    everywhere = {"metadata": {"name": "first", "namespace": "a"}, "spec": {"rules": first["spec"]["rules"]}}
    before = compiled([*policies, first | everywhere], default)
    after = compiled([*policies, first | everywhere, added], default)
    for asked in calls:
        assert allows(before, asked) <= allows(after, asked)


@quickly
@given(POLICIES, policy(["ALLOW"]), CALLS)
def test_under_the_default_deny_an_allow_policy_never_denies_more(
    policies: list[Document], added: Document, calls: list[Call]
) -> None:
    before, after = compiled(policies, "deny"), compiled([*policies, added], "deny")
    for asked in calls:
        assert allows(before, asked) <= allows(after, asked)


@quickly
@given(POLICIES, policy(["AUDIT"]), DEFAULTS, CALLS)
def test_an_audit_policy_changes_nothing(
    policies: list[Document], added: Document, default: str, calls: list[Call]
) -> None:
    before, after = compiled(policies, default), compiled([*policies, added], default)
    for asked in calls:
        assert allows(before, asked) is allows(after, asked)


@quickly
@given(POLICIES, DEFAULTS, CALLS, st.randoms(use_true_random=False))
def test_the_order_of_policies_and_rules_never_matters(
    policies: list[Document], default: str, calls: list[Call], random: Any
) -> None:
    shuffled = []
    for each in policies:
        rules = list(each["spec"]["rules"])
        random.shuffle(rules)
        shuffled.append(dict(each) | {"spec": dict(each["spec"]) | {"rules": rules}})
    random.shuffle(shuffled)
    before, after = compiled(policies, default), compiled(shuffled, default)
    for asked in calls:
        assert allows(before, asked) is allows(after, asked)


@quickly
@given(POLICIES, DEFAULTS, CALLS, st.randoms(use_true_random=False))
def test_the_order_of_alternatives_and_conditions_never_matters(
    policies: list[Document], default: str, calls: list[Call], random: Any
) -> None:
    """Permuting `from`, `to`, `when` and the values of each field leaves every decision and the rule that it names."""

    def shuffled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: shuffled(value) for key, value in node.items()}
        if isinstance(node, list):
            return random.sample([shuffled(item) for item in node], len(node))
        return node

    permuted = []
    for each in policies:
        rules = [shuffled(one) for one in each["spec"]["rules"]]
        permuted.append(dict(each) | {"spec": dict(each["spec"]) | {"rules": rules}})
    before, after = compiled(policies, default), compiled(permuted, default)
    for asked in calls:
        one, other = decided(before, asked), decided(after, asked)
        assert (type(one), one.rule, one.audited) == (type(other), other.rule, other.audited)


@quickly
@given(POLICIES, CALLS)
def test_every_denial_explains_itself_in_printable_text(policies: list[Document], calls: list[Call]) -> None:
    snapshot = compiled(policies, "deny")
    for asked in calls:
        decision = decided(snapshot, asked)
        if isinstance(decision, Denial):
            assert decision.explanation
            assert decision.explanation.isprintable()
            assert decision.nearest_miss.isprintable()


@quickly
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"kind: AuthorizationPolicy\napiVersion: security.istio.io/v1\nmetadata: {name: a}\nspec: {rules: 1}")
def test_any_bytes_load_or_are_refused_with_places(content: bytes) -> None:
    workload = Workload(
        namespace="a", service_account="b", name="c", labels={}, trust_domain=TrustDomain("cluster.local")
    )
    faults: list[Fault] = []
    try:
        load(
            {"a.yaml": content},
            workload=workload,
            settings=PolicySettings(default=PolicyDefault.DENY),
            generation=Generation(1),
        )
    except ConfigError as error:
        faults = error.faults or [Fault(file="a.yaml", message="refused without a fault")]
    assert all(fault.line > 0 and fault.column > 0 for fault in faults)
    assert all(str(fault).isprintable() for fault in faults)
