"""Table tests: requests with the answers that they must get, read from YAML and asked of the policies.

    policies: [policy/]
    workload: {namespace: demo, service_account: orders, labels: {app: orders}}
    request: {host: orders.demo, port: 8080}            # what every request has unless it says otherwise
    tests:
      - name: web reads orders
        request: {identity: cluster.local/ns/demo/sa/web, method: [GET, HEAD], path: /orders/7}
        expect: allow
        rule: ns[demo]-policy[orders]-rule[0]

A list where a request has one value makes one case for each. `null` takes a shared value away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from proxy.answers.question import Answer, Question, World, ask, read_question
from proxy.config import DEFAULT_TRUST_DOMAIN, MAX_TRUSTED_PROXIES
from proxy.config_values import PathNormalizationName, PolicyDefaultName
from proxy.documents import Checker, Node, Position, did_you_mean, parse, quoted
from proxy.errors import ConfigError, Reason
from proxy.policy import PolicyDefault, PolicySettings, Workload
from proxy.protocol.path import PathNormalization
from proxy.types import Denial

LISTS: Final = ("identity", "method", "path", "host", "port", "source", "destination", "sni")
"""The keys of a request that may have a list, one case for each value."""

MAX_CASES: Final = 20_000
"""Cases of one file; each is asked in about 0.1 ms, and more are not written by people."""

_TOP: Final = (
    "config",
    "policies",
    "workload",
    "trust_domain",
    "trust_domain_aliases",
    "policy",
    "tcp_ports",
    "jwks",
    "now",
    "request",
    "tests",
)
_WORKLOAD: Final = ("namespace", "service_account", "name", "labels")
_POLICY: Final = ("default", "path_normalization", "root_namespace", "trusted_proxies")
_ABOUT: Final = ("workload", "trust_domain", "trust_domain_aliases", "policy", "tcp_ports")
"""What `config` says already."""

_REASONS: Final = {reason.word: reason for reason in Reason}
_EXPECT_HINT: Final = "write allow, deny, a status such as 403, or {decision: deny, rule: ..., reason: ...}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What an answer must be; `decision`, `rule` and `reason` are "" and `status` 0 where anything will do."""

    decision: str = ""
    status: int = 0
    rule: str = ""
    reason: str = ""

    def __str__(self) -> str:
        said = (
            self.decision,
            str(self.status or ""),
            f"by {self.rule}" if self.rule else "",
            f"({self.reason})" if self.reason else "",
        )
        return " ".join(part for part in said if part)

    def is_met_by(self, answer: Answer) -> bool:
        """Say whether an answer is as expected."""
        verdict = answer.verdict
        reason = verdict.reason.word if isinstance(verdict, Denial) else Reason.OK.word
        return (
            self.decision in ("", "allow" if answer.allowed else "deny")
            and self.status in (0, answer.status)
            and self.rule in ("", verdict.rule)
            and self.reason in ("", reason)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question with its expectation; `line` is where its test begins."""

    name: str
    question: Question
    expect: Expectation
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file of tests. Paths in it are relative to it; `workload` is None when the file names none."""

    file: str
    config: str
    policies: tuple[str, ...]
    workload: Workload | None
    settings: PolicySettings
    normalization: PathNormalization
    tcp_ports: tuple[int, ...]
    jwks: Mapping[str, str]
    now: float | None
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case and the answer that it got."""

    case: Case
    answer: Answer

    @property
    def passed(self) -> bool:
        """The answer is as expected."""
        return self.case.expect.is_met_by(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexercised:
    """A rule that no case was decided by."""

    rule: str
    place: str


# --- asking ---


def run_table(world: World, cases: Iterable[Case], now: float) -> list[Outcome]:
    """Ask every case; `now` is in seconds since the epoch."""
    return [Outcome(case=case, answer=ask(world, case.question, now)) for case in cases]


def unexercised(world: World, answers: Iterable[Answer]) -> list[Unexercised]:
    """Name the rules that decided none of the answers. Rules of dry-run policies decide nothing and are left out."""
    seen: set[str] = set()
    for answer in answers:
        seen.update((answer.verdict.rule, *answer.verdict.audited))
    return [
        Unexercised(rule=rule.id, place=f"{rule.policy.origin.file}:{rule.rule.line}")
        for rule in world.snapshot.rules
        if rule.id not in seen and not rule.policy.dry_run
    ]


def count_rules(world: World) -> int:
    """Count the rules that can be exercised."""
    return sum(not rule.policy.dry_run for rule in world.snapshot.rules)


# --- reading ---


def read_table(data: bytes, file: str) -> Table:
    """Read a file of tests. Raises ConfigError with every fault."""
    documents, faults = parse(data, file)
    checker = Checker(file)
    if len(documents) != 1 and not faults:
        message = "the file is empty" if not documents else "a second document in one file of tests"
        at = documents[1] if len(documents) > 1 else (1, 1)
        checker.fault(at, message, "write one document with `tests`")
    table = _table(checker, documents[0]) if documents else None
    if faults or checker.faults or table is None:
        raise ConfigError(sorted({*faults, *checker.faults}))
    return table


def _table(checker: Checker, root: Node) -> Table:
    fields = checker.mapping(root, "the file", _TOP, required=("tests",))
    if "config" in fields:
        for key in _ABOUT:
            if key in fields:
                checker.fault(root.at(key), f"`config` says `{key}` already", "leave one of the two out")
    policy = checker.mapping(fields.get("policy"), "policy", _POLICY)
    defaults, normalizations = get_args(PolicyDefaultName), get_args(PathNormalizationName)
    ports = checker.sequence(fields.get("tcp_ports"), "tcp_ports")
    settings = PolicySettings(
        default=PolicyDefault(checker.choice(policy.get("default"), "policy.default", defaults, "deny")),
        root_namespace=checker.string(policy.get("root_namespace"), "policy.root_namespace", "istio-system"),
        trusted_proxies=checker.integer(
            policy.get("trusted_proxies"), "policy.trusted_proxies", minimum=0, maximum=MAX_TRUSTED_PROXIES
        ),
        jwks_allow_loopback=True,  # nothing is fetched here
    )
    return Table(
        file=checker.file,
        config=checker.string(fields.get("config"), "config"),
        policies=tuple(checker.string_list(fields.get("policies"), "policies")),
        workload=_workload(checker, fields),
        settings=settings,
        normalization=PathNormalization(
            checker.choice(policy.get("path_normalization"), "policy.path_normalization", normalizations, "base")
        ),
        tcp_ports=tuple(
            checker.integer(port, f"tcp_ports[{i}]", 1, minimum=1, maximum=65_535) for i, port in enumerate(ports)
        ),
        jwks=checker.string_mapping(fields.get("jwks"), "jwks"),
        now=checker.number(fields["now"], "now", minimum=0) if "now" in fields else None,
        cases=_cases(checker, fields),
    )


def _workload(checker: Checker, top: Mapping[str, Node]) -> Workload | None:
    trust_domain = _trust_domain(checker, top.get("trust_domain"), "trust_domain")
    aliases = checker.sequence(top.get("trust_domain_aliases"), "trust_domain_aliases")
    read = tuple(_trust_domain(checker, alias, f"trust_domain_aliases[{i}]") for i, alias in enumerate(aliases))
    node = top.get("workload")
    if node is None:
        for key in ("trust_domain", "trust_domain_aliases"):
            if key in top and "config" not in top:
                checker.fault(top[key], f"`{key}` is of no use without `workload`", "write `workload` too")
        return None
    fields = checker.mapping(node, "workload", _WORKLOAD, required=("namespace",))
    namespace = checker.string(fields.get("namespace"), "workload.namespace", "default")
    account = checker.string(fields.get("service_account"), "workload.service_account", "default")
    try:
        SpiffeId.for_service_account(trust_domain, namespace, account)
    except SpiffeIdError as failure:
        checker.fault(node, f"`workload` makes no SPIFFE ID: {failure}")
    return Workload(
        namespace=namespace,
        service_account=account,
        name=checker.string(fields.get("name"), "workload.name", account),
        labels=checker.string_mapping(fields.get("labels"), "workload.labels"),
        trust_domain=trust_domain,
        trust_domain_aliases=read,
    )


def _trust_domain(checker: Checker, node: Node | None, where: str) -> TrustDomain:
    text = checker.string(node, where, DEFAULT_TRUST_DOMAIN)
    try:
        return parse_trust_domain(text)
    except SpiffeIdError as failure:
        if node is not None:
            checker.fault(node, f"`{where}`: {failure}")
        return DEFAULT_TRUST_DOMAIN


def _cases(checker: Checker, top: Mapping[str, Node]) -> tuple[Case, ...]:
    shared = top.get("request")
    if shared is not None:
        checker.any_mapping(shared, "request")
    items = checker.sequence(top.get("tests"), "tests")
    if "tests" in top and not items and isinstance(top["tests"].value, list):
        checker.fault(top["tests"], "`tests` is empty", "write a test, or let --init write some")
    cases: list[Case] = []
    for i, item in enumerate(items):
        cases += _test(checker, item, f"tests[{i}]", shared, MAX_CASES - len(cases))
        if checker.is_full:
            break
    return tuple(cases)


def _test(checker: Checker, item: Node, where: str, shared: Node | None, room: int) -> list[Case]:
    fields = checker.mapping(item, where, ("name", "request", "expect", "rule"), required=("expect",))
    if "request" not in fields and shared is None and isinstance(item.value, dict):
        checker.fault(item, f"`{where}` lacks the key `request`")
    expect = _expectation(checker, fields, where)
    name = checker.string(fields.get("name"), f"{where}.name", where)
    request = _merged(shared, fields.get("request"), item)
    choices = [(key, _values(checker, request, key, f"{where}.request.{key}")) for key in LISTS]
    lists = [(key, values) for key, values in choices if values is not None]
    count = math.prod(len(values) for _, values in lists)
    if count > room:
        checker.fault(item, f"`{where}`: the lists make {count} cases, and a file has at most {MAX_CASES}", "split it")
        return []
    cases: list[Case] = []
    for chosen in itertools.product(*(values for _, values in lists)):
        picked = {key: value for (key, _), value in zip(lists, chosen, strict=True)}
        node = _with(request, picked)
        before = len(checker.faults)
        question = read_question(node, checker, f"{where}.request")
        many = [value.text for (_, values), value in zip(lists, chosen, strict=True) if len(values) > 1]
        case_name = f"{name} [{', '.join(many)}]" if many else name
        cases.append(Case(name=case_name, question=question, expect=expect, file=checker.file, line=item.line))
        if len(checker.faults) > before:
            break  # the other cases of the product would say the same again
    return cases


def _values(checker: Checker, request: Node, key: str, where: str) -> list[Node] | None:
    """Give the values of a key that has a list; None when it has none."""
    node = request.value.get(key) if isinstance(request.value, dict) else None
    if node is None or not isinstance(node.value, list):
        return None
    if not node.value:
        checker.fault(node, f"`{where}` is an empty list", "write a value, or leave it out")
    return node.value


def _merged(shared: Node | None, own: Node | None, item: Node) -> Node:
    """Lay a request over the shared one; a key without a value takes the shared value away."""
    base = own or shared or item
    if own is not None and not isinstance(own.value, dict):
        return own
    merged: dict[str, Node] = {}
    positions: dict[str, Position] = {}
    for node in (shared, own):
        if node is not None and isinstance(node.value, dict):
            merged.update(node.value)
            positions.update(node.key_positions)
    kept = {key: node for key, node in merged.items() if node.value is not None or node.is_faulty}
    return Node(kept, base.line, base.column, key_positions=positions)


def _with(request: Node, picked: Mapping[str, Node]) -> Node:
    if not isinstance(request.value, dict):
        return request
    return Node({**request.value, **picked}, request.line, request.column, key_positions=request.key_positions)


def _expectation(checker: Checker, fields: Mapping[str, Node], where: str) -> Expectation:
    node = fields.get("expect")
    rule = checker.string(fields.get("rule"), f"{where}.rule")
    if node is None:
        return Expectation()
    if not isinstance(node.value, dict):
        return _short(checker, node, f"{where}.expect", rule)
    said = checker.mapping(node, f"{where}.expect", ("decision", "status", "rule", "reason"))
    if not node.value:
        checker.fault(node, f"`{where}.expect` expects nothing", _EXPECT_HINT)
    if "rule" in said and "rule" in fields:
        checker.fault(said["rule"], f"`{where}` names a rule twice", "keep one of the two")
    reason = checker.string(said.get("reason"), f"{where}.expect.reason")
    if reason and reason not in _REASONS:
        checker.fault(said["reason"], f"there is no reason {quoted(reason)}", did_you_mean(reason, _REASONS))
    return Expectation(
        decision=checker.choice(said.get("decision"), f"{where}.expect.decision", ("allow", "deny")),
        status=checker.integer(said.get("status"), f"{where}.expect.status", minimum=400, maximum=599),
        rule=checker.string(said.get("rule"), f"{where}.expect.rule", rule),
        reason=reason,
    )


def _short(checker: Checker, node: Node, where: str, rule: str) -> Expectation:
    """Read an expectation of one word or one status."""
    if isinstance(node.value, str) and node.value in ("allow", "deny"):
        return Expectation(decision=node.value, rule=rule)
    if isinstance(node.value, int) and not isinstance(node.value, bool) and 400 <= node.value <= 599:
        return Expectation(decision="deny", status=node.value, rule=rule)
    checker.fault(node, f"`{where}` is {node.kind}", _EXPECT_HINT)
    return Expectation()


def unknown_rule(world: World, case: Case) -> str:
    """Say that the rule which a case expects does not exist, and which is near; "" when it exists or none is named."""
    wanted = case.expect.rule
    known = ["none", *(rule.id for rule in world.snapshot.rules), *(f"default[{kind.value}]" for kind in PolicyDefault)]
    if not wanted or wanted in known:
        return ""
    return f"no rule of this workload is named {quoted(wanted)}; {did_you_mean(wanted, known)}"
