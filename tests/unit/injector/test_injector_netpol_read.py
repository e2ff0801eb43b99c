"""NetworkPolicies that somebody wrote -> values, as the API server takes them, and every fault with its place."""

from __future__ import annotations

import textwrap

import pytest

from injector.netpol_read import Direction, NetworkPolicy, Selector, read_network_policies
from injector.ports import ALL, Ports
from proxy.errors import ConfigError

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n"


def read(spec: str, head: str = HEAD) -> NetworkPolicy:
    [policy] = read_network_policies({"np.yaml": (head + textwrap.dedent(spec)).encode()})
    return policy


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_network_policies({"np.yaml": text.encode()})
    return [str(each) for each in caught.value.faults]


def selector(expression: str) -> Selector:
    return read(f"spec: {{podSelector: {{matchExpressions: [{expression}]}}}}").pods


# --- what is taken ---


def test_a_policy_is_read_with_the_line_of_each_rule() -> None:
    policy = read(
        """\
        spec:
          podSelector: {matchLabels: {app: web}}
          policyTypes: [Ingress, Egress]
          ingress:
            - from:
                - podSelector: {matchLabels: {app: orders}}
              ports:
                - {port: 8080}
            - {}
          egress:
            - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
        """
    )
    assert (policy.subject, str(policy.origin)) == ("networkpolicy shop/p", "np.yaml:1")
    assert [(each.direction.key, each.origin.line) for each in policy.rules] == [
        ("ingress", 8),
        ("ingress", 12),
        ("egress", 14),
    ]
    first, everybody, out = policy.rules
    assert first.ports is not None
    assert [str(each) for each in (*first.peers, *first.ports)] == ["podSelector app=orders", "8080/TCP"]
    assert (everybody.peers, everybody.ports) == ((), None)
    assert str(out.peers[0]) == "ipBlock 10.0.0.0/8 except 10.1.0.0/16"


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("podSelector: {}", "Ingress"),
        ("podSelector: {}, ingress: [{}]", "Ingress"),
        ("podSelector: {}, egress: [{}]", "Ingress Egress"),
        ("podSelector: {}, egress: []", "Ingress"),
        ("podSelector: {}, policyTypes: []", "Ingress"),
        ("podSelector: {}, policyTypes: [Egress]", "Egress"),
        ("podSelector: {}, policyTypes: [Ingress], egress: [{}]", "Ingress"),
    ],
)
def test_policy_types_that_are_not_written_follow_from_the_rules(spec: str, directions: str) -> None:
    found = read(f"spec: {{{spec}}}").directions
    assert " ".join(each.value for each in Direction if each in found) == directions


def test_what_is_null_counts_as_not_written() -> None:
    policy = read("spec: {podSelector: null, policyTypes: null, ingress: [{from: null, ports: null}], egress: null}")
    assert policy.pods.is_empty
    assert policy.directions == {Direction.INGRESS}
    assert [(each.peers, each.ports) for each in policy.rules] == [((), None)]


def test_a_namespace_selector_that_is_null_means_the_own_namespace() -> None:
    policy = read("spec: {podSelector: {}, ingress: [{from: [{podSelector: {}, namespaceSelector: null}]}]}")
    assert policy.rules[0].peers[0].namespaces is None


@pytest.mark.parametrize(
    ("written", "protocol", "numbers", "name"),
    [
        ("{port: 80}", "TCP", Ports(((80, 80),)), ""),
        ("{port: 80, endPort: 90, protocol: UDP}", "UDP", Ports(((80, 90),)), ""),
        ("{port: 80, endPort: 80}", "TCP", Ports(((80, 80),)), ""),
        ("{protocol: SCTP}", "SCTP", ALL, ""),
        ("{port: http}", "TCP", Ports(), "http"),
        ("{port: a-2345678901234}", "TCP", Ports(), "a-2345678901234"),
    ],
)
def test_a_port_is_a_number_a_range_or_a_name(written: str, protocol: str, numbers: Ports, name: str) -> None:
    [rule] = read(f"spec: {{podSelector: {{}}, ingress: [{{ports: [{written}]}}]}}").rules
    assert rule.ports is not None
    [port] = rule.ports
    assert (port.protocol, port.numbers, port.name) == (protocol, numbers, name)


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("{key: app, operator: In, values: [web, db]}", "web"),
        ("{key: app, operator: NotIn, values: [web]}", "db none"),
        ("{key: app, operator: Exists}", "web db"),
        ("{key: app, operator: DoesNotExist}", "none"),
        ('{key: app, operator: NotIn, values: [""]}', "web db none"),
    ],
)
def test_an_expression_takes_labels_as_kubernetes_does(expression: str, taken: str) -> None:
    labels = {"web": {"app": "web"}, "db": {"app": "db"}, "none": {"tier": "x"}}
    wanted = set(taken.split())
    if "[web, db]" in expression:
        wanted = {"web", "db"}
    assert {name for name, each in labels.items() if selector(expression).takes(each)} == wanted


def test_labels_that_are_not_known_may_be_what_a_selector_asks_for() -> None:
    asks = selector("{key: tier, operator: In, values: [api]}")
    assert not asks.takes({"app": "web"})
    assert asks.takes({"app": "web"}, is_whole=False)
    assert not asks.takes({"tier": "db"}, is_whole=False)


def test_bits_behind_the_prefix_mean_nothing() -> None:
    policy = read("spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}")
    assert str(policy.rules[0].peers[0].blocks) == "10.0.0.0/8"


def test_policies_in_lists_are_read_and_other_kinds_passed_over() -> None:
    text = """\
        kind: Pod
        anchors: &here {a: 1}
        more: *here
        ---
        apiVersion: v1
        kind: List
        items:
          - {apiVersion: v1, kind: Service, metadata: {name: s}}
          - apiVersion: networking.k8s.io/v1
            kind: NetworkPolicyList
            items:
              - apiVersion: networking.k8s.io/v1
                kind: NetworkPolicy
                metadata: {name: p}
                spec: {podSelector: {}}
                status: {}
          - {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i}, spec: {rules: []}}
        ---
        apiVersion: projectcalico.org/v3
        kind: NetworkPolicy
        metadata: {name: other}
        spec: {selector: all()}
        """
    [policy] = read_network_policies({"m.yaml": textwrap.dedent(text).encode()}, "lab")
    assert (policy.subject, str(policy.origin)) == ("networkpolicy lab/p", "m.yaml:12")


# --- what is refused ---


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("podSelector: {}, ingres: []", 'unknown key "ingres" in `spec`; did you mean `ingress`?'),
        ("podSelector: {}, policyTypes: [ingress]", "must be one of Ingress, Egress"),
        ("podSelector: {}, ingress: [{to: []}]", 'unknown key "to" in `spec.ingress[0]`'),
        ("podSelector: {}, ingress: [{from: [{}]}]", "`spec.ingress[0].from[0]` names nobody"),
        (
            "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "has `ipBlock` beside a selector; make two entries of them",
        ),
        ("podSelector: {}, ingress: [{from: [{ipBlock: {}}]}]", "lacks the key `cidr`"),
        ("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]", "write a network such as 10.0.0.0/8"),
        ("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]", "write a network such as 10.0.0.0/8"),
        (
            "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]",
            "`spec.ingress[0].from[0].ipBlock.except[0]` is 11.0.0.0/16, no part of 10.0.0.0/8",
        ),
        (
            "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]",
            "except smaller networks inside it",
        ),
        ("podSelector: {}, ingress: [{ports: [{port: 0}]}]", "must be between 1 and 65535"),
        ("podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]", "must be between 90 and 65535"),
        ("podSelector: {}, ingress: [{ports: [{endPort: 80}]}]", "stands without `port`"),
        ("podSelector: {}, ingress: [{ports: [{port: http, endPort: 80}]}]", "stands beside the name of a port"),
        ('podSelector: {}, ingress: [{ports: [{port: "8080"}]}]', "write a number without quotes, or a name"),
        ("podSelector: {}, ingress: [{ports: [{port: a--b}]}]", "write a number without quotes, or a name"),
        ("podSelector: {}, ingress: [{ports: [{port: a234567890123456}]}]", "at most 15 of a-z, 0-9 and -"),
        ("podSelector: {}, ingress: [{ports: [{port: 1, protocol: tcp}]}]", "did you mean `TCP`?"),
        ("podSelector: {matchExpressions: [{key: a, operator: In}]}", "In needs `values`"),
        ("podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}", "Exists takes no `values`"),
        ("podSelector: {matchExpressions: [{key: a, operator: Gt, values: [1]}]}", "must be one of In, NotIn"),
    ],
    ids=range(21),
)
def test_what_an_api_server_refuses_is_a_fault_with_its_place(spec: str, fault: str) -> None:
    found = faults(f"{HEAD}spec: {{{spec}}}\n")
    assert any(fault in each for each in found), found
    assert all(each.startswith("np.yaml:4:") for each in found)


def test_faults_of_all_policies_of_all_files_are_told_at_once() -> None:
    bad = f"{HEAD}spec: {{podSelector: {{}}, egres: []}}\n"
    with pytest.raises(ConfigError) as caught:
        read_network_policies({"b.yaml": f"{bad}---\n{bad}".encode(), "a.yaml": bad.encode(), "c.yaml": b"a: ["})
    assert [(each.file, each.line) for each in caught.value.faults if "egres" in each.message] == [
        ("a.yaml", 4),
        ("b.yaml", 4),
        ("b.yaml", 9),
    ]
    assert any(each.file == "c.yaml" for each in caught.value.faults)


def test_a_policy_that_stands_twice_is_refused() -> None:
    assert faults(f"{HEAD}spec: {{}}\n---\n{HEAD}spec: {{}}\n") == [
        "np.yaml:6:1: networkpolicy shop/p stands twice (first at np.yaml:1); keep one of the two"
    ]


def test_a_version_that_no_api_server_has_is_refused() -> None:
    old = HEAD.replace("/v1", "/v1beta1")
    assert faults(f"{old}spec: {{}}\n") == [
        'np.yaml:1:13: `apiVersion` is "networking.k8s.io/v1beta1", which no API server has for a NetworkPolicy; '
        "write networking.k8s.io/v1"
    ]


def test_a_policy_without_name_or_spec_is_refused() -> None:
    found = faults("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n")
    assert [each.split(": ", 1)[1].split(";")[0] for each in found] == [
        "a NetworkPolicy has no `metadata.name`",
        "a NetworkPolicy has no `spec`",
    ]
