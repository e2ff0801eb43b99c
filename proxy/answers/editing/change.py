"""The changes of policy that could allow a denied call: the narrowest first, each with what it opens.

No new rule and no exemption is for callers without identity, and none lets a call past a rule that asks for a token:
what such a caller lacks is said in words, and only the caller can mend it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxy.answers.editing.layout import Append, Change, Path, Put, Remove, policy_path, value_at
from proxy.answers.editing.offered import rule_for, value_for
from proxy.answers.editing.writing import block_lines
from proxy.answers.question import Answer, Step, World
from proxy.documents import quoted
from proxy.errors import Reason
from proxy.policy.clauses import CompiledClause
from proxy.policy.explain import find_nearest
from proxy.policy.facts import Facts
from proxy.policy.model import IDENTITY, TOKEN, Action, Attribute, AuthorizationPolicy, Clause, PolicyDefault
from proxy.policy.read import read_files
from proxy.policy.rules import Alternative, PolicyRule
from proxy.types import Denial

_WHO: Final = IDENTITY | TOKEN | {Attribute.SOURCE_IP, Attribute.REMOTE_IP}
"""What says who calls; the rest says what is done."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,60}[a-z0-9])?\Z").match


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One change of one file: `change` of what stands there, or `content` of a new file.

    `summary` says what is changed and `opens` what that allows beside the call that was asked about.
    """

    file: str
    change: Change | None = None
    content: bytes = b""
    summary: str
    opens: str


def candidates(world: World, answer: Answer) -> Iterator[Candidate]:
    """Yield what may be tried, in the order of preference."""
    if answer.allowed or answer.step in (Step.MUTUAL_TLS, Step.GATE, Step.TOKEN):
        return
    facts = Facts(answer.connection, answer.request)
    if answer.step is Step.DENY:
        yield from _exemptions(world, answer, facts)
        return
    if answer.step is Step.ALLOW:
        yield from _one_value_more(world, facts)
        if lacks_token(world, facts):
            return
    elif world.snapshot.default is not PolicyDefault.DENY:
        return
    rule = rule_for(facts)
    if rule is None:
        return
    if answer.step is Step.ALLOW:
        yield from _one_rule_more(world, facts, rule)
    yield _new_policy(world, facts, rule)


def lacks_token(world: World, facts: Facts) -> bool:
    """Say whether the nearest ALLOW rule asks for something of a token, which the caller has to bring."""
    near = find_nearest(world.snapshot.nearest, facts)
    return near is not None and any(clause.clause.attribute in TOKEN for clause in near.failed)


def described(facts: Facts) -> str:
    """Name the call in a few words."""
    caller = facts.principal or "a caller without identity"
    if facts.is_http:
        return f"{facts.method} {quoted(facts.path)} from {caller}"
    return f"connections of {caller} to port {facts.port}, whatever they carry"


# --- ALLOW: one value more, one rule more, one policy more ---


def _one_value_more(world: World, facts: Facts) -> Iterator[Candidate]:
    """Yield the value that the nearest miss lacks, when it lacks one.

    A rule that says nothing of what may be done gets no further caller: that would open everything to it.
    """
    near = find_nearest(world.snapshot.nearest, facts)
    base = _rule_path(world, near.rule) if near is not None else None
    missing = _missing(near.rule, facts) if near is not None else None
    if near is None or base is None or missing is None or (near.rule.is_http and not facts.is_http):
        return
    at, clause = missing
    value = value_for(clause.clause, facts, world.settings.trusted_proxies)
    if value is None or (clause.clause.attribute in _WHO and not near.rule.operations):
        return
    yield Candidate(
        file=near.rule.policy.origin.file,
        change=Append(at=(*base, *at), value=value),
        summary=f"add {quoted(value)} to `{clause.clause.name}` of {named(near.rule)}",
        opens=_opens(clause.clause, value, world, near.rule.policy),
    )


def _missing(rule: PolicyRule, facts: Facts) -> tuple[Path, CompiledClause] | None:
    """Find the one positive clause that keeps the rule from matching, and its place in the rule."""
    found: list[tuple[Path, CompiledClause]] = []
    for key, kind, alternatives in (("from", "source", rule.sources), ("to", "operation", rule.operations)):
        if not alternatives:
            continue
        index, failing = _best(alternatives, facts)
        if len(failing) > 1:
            return None
        found += [((key, index, kind, clause.clause.name), clause) for clause in failing]
    found += [(at, clause) for at, clause in _placed_conditions(rule) if not clause.holds(facts)]
    if len(found) != 1 or found[0][1].clause.negated:
        return None
    return found[0]


def _best(alternatives: tuple[Alternative, ...], facts: Facts) -> tuple[int, list[CompiledClause]]:
    failures = [[clause for clause in alternative if not clause.holds(facts)] for alternative in alternatives]
    index = min(range(len(failures)), key=lambda i: (len(failures[i]), i))
    return index, failures[index]


def _placed_conditions(rule: PolicyRule) -> Iterator[tuple[Path, CompiledClause]]:
    """Yield the conditions with their places: an item of `when` gives one for `values` and one for `notValues`."""
    item, before = -1, None
    for clause in rule.conditions:
        key = clause.clause.name.removesuffix(" notValues") if clause.clause.negated else clause.clause.name
        if not (clause.clause.negated and before == key):
            item += 1
        before = key if not clause.clause.negated else None
        yield ("when", item, "notValues" if clause.clause.negated else "values"), clause


def _opens(clause: Clause, value: str, world: World, policy: AuthorizationPolicy) -> str:
    scope = _scope(policy, world)
    if clause.attribute in _WHO:
        return f"{clause.attribute.value} {quoted(value)} may then do all that the rule allows{scope}"
    return f"all whom the rule allows may then use {clause.attribute.value} {quoted(value)}{scope}"


def _scope(policy: AuthorizationPolicy, world: World) -> str:
    if policy.namespace == world.settings.root_namespace:
        return ", at the workloads of the whole mesh" if not policy.selector else ", in every namespace of the mesh"
    return "" if policy.selector else f", at every workload of {policy.namespace}"


def _one_rule_more(world: World, facts: Facts, rule: dict[str, Any]) -> Iterator[Candidate]:
    """Yield the policies that could have the rule: those that select the fewest workloads first, never the mesh."""
    policies = [
        policy
        for policy in world.snapshot.policies
        if policy.action is Action.ALLOW and not policy.dry_run and policy.namespace == world.workload.namespace
    ]
    near = find_nearest(world.snapshot.nearest, facts)
    nearest = near.rule.policy if near is not None else None
    for policy in sorted(policies, key=lambda policy: (not policy.selector, policy is not nearest)):
        base = _policy_path(world, policy)
        if base is None:
            continue
        spec = value_at((world.files or {})[policy.origin.file], (*base, "spec"))
        exists = isinstance(spec, dict) and isinstance(spec.get("rules"), list)
        at = (*base, "spec", "rules") if exists else (*base, "spec")
        yield Candidate(
            file=policy.origin.file,
            change=Append(at=at, value=rule) if exists else Put(at=at, key="rules", value=[rule]),
            summary=f"add a rule to {policy.namespace}/{policy.name} ({policy.origin.file}:{policy.origin.line})",
            opens=f"{described(facts)}, and nothing else{_scope(policy, world)}",
        )


def _new_policy(world: World, facts: Facts, rule: dict[str, Any]) -> Candidate:
    workload = world.workload
    account = facts.service_account.partition("/")[2]
    name = f"allow-{account}" if _NAME(account) else "allow-caller"
    files = world.files or {}
    policies, _, _ = read_files(files, workload, world.settings)
    taken = {policy.name for policy in policies.authorization}
    directory = next(iter(sorted(files)), "").rpartition("/")[0]
    prefix = f"{directory}/" if directory else ""
    number, free = 1, name
    while free in taken or f"{prefix}{free}.yaml" in files:
        number += 1
        free = f"{name}-{number}"
    labels = _selector(world)
    document: dict[str, Any] = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": free, "namespace": workload.namespace},
        "spec": ({"selector": {"matchLabels": labels}} if labels else {}) | {"rules": [rule]},
    }
    file = f"{prefix}{free}.yaml"
    scope = "" if labels else f", at every workload of {workload.namespace}: it has no label to select it by"
    return Candidate(
        file=file,
        content="".join(f"{line}\n" for line in block_lines(document)).encode(),
        summary=f"add a policy that allows it ({file})",
        opens=f"{described(facts)}, and nothing else{scope}",
    )


def _selector(world: World) -> dict[str, str]:
    """Choose the labels that say which application it is; all of them where none of the usual ones is there."""
    labels = world.workload.labels
    for usual in ("app", "app.kubernetes.io/name"):
        if labels.get(usual):
            return {usual: labels[usual]}
    return dict(labels)


# --- DENY: an exemption ---


def _exemptions(world: World, answer: Answer, facts: Facts) -> Iterator[Candidate]:
    rule = next((rule for rule in world.snapshot.rules if rule.id == answer.verdict.rule), None)
    base = _rule_path(world, rule) if rule is not None else None
    if rule is None or base is None or facts.peer is None or asks_for_token(rule, facts):
        return
    if isinstance(answer.verdict, Denial) and answer.verdict.reason is Reason.DENIED_PROTOCOL_OPAQUE:
        yield from _without_port(rule, base, facts)
        return
    yield from _without_caller(rule, base, facts)
    yield from _without_path(rule, base, facts)


def asks_for_token(rule: PolicyRule, facts: Facts) -> bool:
    """Say whether a DENY rule that matched is one by which calls without a token are refused."""
    clauses = [clause for _, source in _matching(rule.sources, facts) for clause in source]
    return facts.token is None and any(
        clause.clause.negated and clause.clause.attribute in TOKEN for clause in (*clauses, *rule.conditions)
    )


def standing_denials(world: World, facts: Facts) -> int:
    """Count in how many ways enforced DENY rules match, those counted that cannot be judged without HTTP."""

    def ways(alternatives: tuple[Alternative, ...]) -> int:
        holding = [all(map(may_hold, alternative)) for alternative in alternatives]
        return sum(holding) if alternatives else 1

    def may_hold(clause: CompiledClause) -> bool:
        return clause.holds(facts) or (clause.clause.is_http and not facts.is_http)

    return sum(
        ways(rule.sources) * ways(rule.operations) * all(map(may_hold, rule.conditions))
        for rule in world.snapshot.rules
        if rule.policy.action is Action.DENY and not rule.policy.dry_run
    )


def _matching(alternatives: tuple[Alternative, ...], facts: Facts) -> list[tuple[int, Alternative]]:
    return [
        (index, alternative)
        for index, alternative in enumerate(alternatives)
        if all(clause.holds(facts) for clause in alternative)
    ]


def _without_caller(rule: PolicyRule, base: Path, facts: Facts) -> Iterator[Candidate]:
    """Exempt the identity, from the first source that matches."""
    caller = facts.principal
    opens = f"the rule then no longer denies {caller} anything"
    if not rule.sources:
        change: Change | None = Put(at=base, key="from", value=[{"source": {"notPrincipals": [caller]}}])
        yield from _exempt(rule, change, caller, opens)
    for index, source in _matching(rule.sources, facts)[:1]:
        by_account = any(clause.clause.attribute is Attribute.SERVICE_ACCOUNT for clause in source)
        field, value = ("serviceAccounts", facts.service_account) if by_account else ("principals", caller)
        if value:
            change = _exclude((*base, "from", index, "source"), source, field, value)
            yield from _exempt(rule, change, value, opens)


def _without_path(rule: PolicyRule, base: Path, facts: Facts) -> Iterator[Candidate]:
    """Exempt the path, from the first operation that matches."""
    value = value_for(_PATHS, facts, 0)
    if value is None:
        return
    opens = f"the rule then denies {quoted(value)} to nobody"
    if not rule.operations:
        change: Change | None = Put(at=base, key="to", value=[{"operation": {"notPaths": [value]}}])
        yield from _exempt(rule, change, value, opens)
    for index, operation in _matching(rule.operations, facts)[:1]:
        change = _exclude((*base, "to", index, "operation"), operation, "paths", value)
        yield from _exempt(rule, change, value, opens)


def _without_port(rule: PolicyRule, base: Path, facts: Facts) -> Iterator[Candidate]:
    """Exempt the port from a rule that looks at HTTP where there is none."""
    opens = f"the rule then says nothing about port {facts.port}"
    if not rule.operations:
        change: Change | None = Put(at=base, key="to", value=[{"operation": {"notPorts": [facts.port]}}])
        yield from _exempt(rule, change, facts.port, opens)
    for index, operation in enumerate(rule.operations):
        ports = [clause for clause in operation if clause.clause.attribute is Attribute.PORT]
        if all(clause.holds(facts) for clause in ports):
            change = _exclude((*base, "to", index, "operation"), operation, "ports", facts.port)
            yield from _exempt(rule, change, facts.port, opens)
            return


def _exclude(at: Path, alternative: Alternative, field: str, value: str) -> Change | None:
    """Exclude one value from an alternative; None when it is all that the alternative speaks of."""
    negative = f"not{field[0].upper()}{field[1:]}"
    by_name = {clause.clause.name: clause.clause for clause in alternative}
    positive = by_name.get(field)
    if positive is not None and value in positive.values:
        if len(positive.values) < 2:
            return None
        return Remove(at=(*at, field), index=positive.values.index(value))
    if negative in by_name:
        return Append(at=(*at, negative), value=value)
    return Put(at=at, key=negative, value=[value])


def _exempt(rule: PolicyRule, change: Change | None, value: str, opens: str) -> Iterator[Candidate]:
    if change is not None:
        yield Candidate(
            file=rule.policy.origin.file,
            change=change,
            summary=f"exempt {quoted(value)} from {named(rule)}",
            opens=f"{opens}; what ALLOW policies say holds as before",
        )


_PATHS: Final = Clause(attribute=Attribute.PATH, name="paths", negated=False, values=(), line=0, column=0)


# --- places ---


def named(rule: PolicyRule) -> str:
    """Name a rule as people find it: policy, number, place."""
    return f"{rule.policy.namespace}/{rule.policy.name} rule {index_of(rule)} ({rule.place})"


def index_of(rule: PolicyRule) -> int:
    """Give the number of a rule in its policy, from 0."""
    return next(i for i, each in enumerate(rule.policy.rules) if each is rule.rule)


def _policy_path(world: World, policy: AuthorizationPolicy) -> Path | None:
    origin = policy.origin
    content = (world.files or {}).get(origin.file)
    return None if content is None else policy_path(content, origin.document, (origin.line, origin.column))


def _rule_path(world: World, rule: PolicyRule) -> Path | None:
    base = _policy_path(world, rule.policy)
    return None if base is None else (*base, "spec", "rules", index_of(rule))
