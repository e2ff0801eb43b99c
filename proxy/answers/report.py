"""The whole explanation of one decision as a value: who decided, why nothing else did, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.answers.editing.change import asks_for_token, index_of, lacks_token
from proxy.answers.editing.edit import Again, Edit, smallest_edit
from proxy.answers.editing.offered import rule_for
from proxy.answers.question import Answer, Question, Step, World, ask
from proxy.answers.steps import PathStep, path_of, path_steps
from proxy.documents import quoted, shown
from proxy.errors import ProtocolError, Reason
from proxy.policy.clauses import CompiledClause
from proxy.policy.explain import find_nearest, without_failure
from proxy.policy.facts import Facts
from proxy.policy.model import (
    IDENTITY,
    Action,
    AuthorizationPolicy,
    PolicyDefault,
    RequestAuthentication,
    selects,
)
from proxy.policy.read import read_files
from proxy.policy.rules import Alternative, PolicyRule
from proxy.policy.snapshot import NO_RULE
from proxy.types import Denial, Permit

MAX_RULES: Final = 2_000
"""Rules that are told of, each with its clauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClauseView:
    """One clause as it was judged: `item` is its place (`from[0]`, `when`), `seen` and `wanted` are in words.

    `told` says both in one piece, for a clause that holds with the value that matches.
    """

    item: str
    name: str
    line: int
    holds: bool
    seen: str
    wanted: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleView:
    """One rule of a policy that selects the workload: whether it matches, and every clause that it has.

    `note` says in words what no clause says. `best` are the places of the items that come nearest: one of `from`, one
    of `to`, and `when`.
    """

    id: str
    policy: str
    number: int
    action: str
    dry_run: bool
    file: str
    line: int
    matches: bool
    clauses: tuple[ClauseView, ...]
    best: frozenset[str]
    note: str = ""

    @property
    def failed(self) -> tuple[ClauseView, ...]:
        """The clauses that keep it from matching: those that fail in items of which none holds whole."""
        whole = {_group(item) for item in self.best if self._holds(item)}
        return tuple(c for c in self.clauses if not c.holds and _group(c.item) not in whole)

    def _holds(self, item: str) -> bool:
        return all(clause.holds for clause in self.clauses if clause.item == item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """The ALLOW rule that came nearest and the first clause that failed in it, `more` beside it."""

    rule: str
    file: str
    line: int
    clause: str
    seen: str
    wanted: str
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathView:
    """What became of the path: as sent with its query, as judged ("" when nothing was), the steps between."""

    sent: str
    judged: str
    steps: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unselecting:
    """A policy that does not speak to the workload, and why."""

    policy: str
    kind: str
    file: str
    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One decision, explained. `policy` is `namespace/name` or "", `rule` as records name it; `place` is of the rule.

    `sentence` says the decision, `because` why; `mend` is what helps when `edit` is None, or beside it.
    """

    allowed: bool
    sentence: str
    because: str
    step: Step
    reason: str
    status: int
    policy: str
    rule: str
    file: str
    line: int
    path: PathView | None
    nearest_miss: Miss | None
    rules: tuple[RuleView, ...]
    unselecting: tuple[Unselecting, ...]
    audited: tuple[str, ...]
    notes: tuple[str, ...]
    mend: str
    edit: Edit | None
    generation: int


def explain(world: World, question: Question, now: float) -> Report:
    """Ask, and explain the answer. Raises SpiffeIdError when the principal is no SPIFFE ID."""
    return report(world, ask(world, question, now), lambda changed: ask(changed, question, now))


def report(world: World, answer: Answer, again: Again, *, notes: tuple[str, ...] = ()) -> Report:
    """Explain an answer; `again` asks the same question in a changed world, for the edit."""
    verdict, facts = answer.verdict, Facts(answer.connection, answer.request)
    judged = answer.step not in (Step.MUTUAL_TLS, Step.GATE, Step.TOKEN)
    views = tuple(rule_view(rule, facts) for rule in world.snapshot.rules[:MAX_RULES]) if judged else ()
    decided = next((rule for rule in world.snapshot.rules if rule.id == verdict.rule), None)
    denial = verdict if isinstance(verdict, Denial) else None
    return Report(
        allowed=answer.allowed,
        sentence=_sentence(answer, facts, decided),
        because=denial.explanation if denial is not None else "",
        step=answer.step,
        reason=denial.reason.word if denial is not None else Reason.OK.word,
        status=answer.status,
        policy=f"{decided.policy.namespace}/{decided.policy.name}" if decided is not None else "",
        rule=verdict.rule,
        file=decided.policy.origin.file if decided is not None else "",
        line=decided.rule.line if decided is not None else 0,
        path=_path(world, answer),
        nearest_miss=_nearest(world, facts) if denial is not None and judged and denial.rule == NO_RULE else None,
        rules=views,
        unselecting=tuple(_unselecting(world, world.files)) if world.files is not None else (),
        audited=verdict.audited,
        notes=(*notes, *answer.notes),
        mend=_mend(world, answer, facts, decided),
        edit=smallest_edit(world, answer, again) if denial is not None else None,
        generation=verdict.generation,
    )


# --- the decision in words ---


def _sentence(answer: Answer, facts: Facts, rule: PolicyRule | None) -> str:
    caller = shown(facts.principal, 200) if facts.peer is not None else "a peer without identity"
    what = f"{shown(answer.method, 20)} {quoted(answer.target, 200)}" if answer.method else "a connection"
    call = f"{what} from {caller} to port {facts.port}"
    if rule is not None:
        place = f"{rule.policy.namespace}/{rule.policy.name} rule {index_of(rule)} ({rule.place})"
        return f"{'allowed' if answer.allowed else 'denied'}: {call}, by {place}"
    verdict = answer.verdict
    if isinstance(verdict, Permit):
        return f"allowed: {call}, by {verdict.rule}"
    match answer.step:
        case Step.MUTUAL_TLS:
            how = "the connection is refused before any request is read"
        case Step.GATE:
            how = f"answered {answer.status} ({verdict.reason.word}) before policy"
        case Step.TOKEN:
            how = f"its token is refused with {answer.status} ({verdict.reason.word}) before policy"
        case Step.DEFAULT:
            how = "no ALLOW policy selects the workload"
        case _:
            how = "no ALLOW rule matches"
    return f"denied: {call}, {how}"


def _mend(world: World, answer: Answer, facts: Facts, rule: PolicyRule | None) -> str:
    """Say what the caller, or whoever writes policy, can do beside an edit; "" where the edit says it all."""
    verdict = answer.verdict
    if isinstance(verdict, Permit):
        return ""
    if answer.step is Step.MUTUAL_TLS:
        return "let the caller speak mutual TLS: give it a sidecar, or a certificate of the mesh"
    if answer.step is Step.GATE:
        return "send another request; no policy can let this one through"
    if answer.step is Step.TOKEN:
        return "send a token that a RequestAuthentication takes, or none; no AuthorizationPolicy is asked before that"
    if answer.step is Step.DENY and rule is not None:
        if asks_for_token(rule, facts):
            return "the rule asks for a token: send one"
        if facts.peer is None:
            return "the caller has no identity: let it speak mutual TLS, and exempt that identity where it must be"
        return "a DENY rule is meant to deny: ask who wrote it before exempting anybody"
    if lacks_token(world, facts):
        return "the nearest rule asks for a token: send one that it takes" if facts.token is None else ""
    if facts.peer is None and _asks_for_identity(world, facts):
        return "the caller has no identity, and without one nobody can be allowed by name: let it speak mutual TLS"
    if world.snapshot.default is PolicyDefault.ALLOW_AUTHENTICATED and answer.step is Step.DEFAULT:
        return "the default admits verified identities only: let the caller speak mutual TLS"
    if facts.peer is not None and rule_for(facts) is None:
        return "no value of a policy can name this call alone: a star at the end of a path means all that begins so"
    return ""


def _asks_for_identity(world: World, facts: Facts) -> bool:
    near = find_nearest(world.snapshot.nearest, facts)
    return near is None or any(clause.clause.attribute in IDENTITY for clause in near.failed)


# --- rules ---


def rule_view(rule: PolicyRule, facts: Facts) -> RuleView:
    """Judge every clause of a rule."""
    clauses: list[ClauseView] = []
    best: set[str] = set()
    matches = True
    for group, alternatives in (("from", rule.sources), ("to", rule.operations)):
        failures = [sum(not clause.holds(facts) for clause in alternative) for alternative in alternatives]
        for index, alternative in enumerate(alternatives):
            clauses += [_clause_view(f"{group}[{index}]", clause, facts) for clause in alternative]
        if failures:
            nearest = failures.index(min(failures))
            best.add(f"{group}[{nearest}]")
            matches = matches and failures[nearest] == 0
    clauses += [_clause_view("when", clause, facts) for clause in rule.conditions]
    if rule.conditions:
        best.add("when")
        matches = matches and all(clause.holds(facts) for clause in rule.conditions)
    note = ""
    if rule.is_http and not facts.is_http:
        note, matches = _opaque_note(rule, facts)
    elif not clauses:
        note = "the rule has no condition: it matches everything"
    return RuleView(
        id=rule.id,
        policy=f"{rule.policy.namespace}/{rule.policy.name}",
        number=index_of(rule),
        action=rule.policy.action.value,
        dry_run=rule.policy.dry_run,
        file=rule.policy.origin.file,
        line=rule.rule.line,
        matches=matches,
        clauses=tuple(clauses),
        best=frozenset(best),
        note=note,
    )


def _opaque_note(rule: PolicyRule, facts: Facts) -> tuple[str, bool]:
    """Say what becomes of a rule that looks at HTTP where there is none, and whether it counts as matching."""
    if rule.policy.action is Action.ALLOW:
        return without_failure(rule), False

    def may_match(alternatives: tuple[Alternative, ...]) -> bool:
        return not alternatives or any(
            all(clause.clause.is_http or clause.holds(facts) for clause in alternative) for alternative in alternatives
        )

    if all(map(may_match, (rule.sources, rule.operations, (rule.conditions,)))):
        return "nobody can tell whether it matches, because the connection is not HTTP; a DENY then denies", True
    return "", False


def _clause_view(item: str, clause: CompiledClause, facts: Facts) -> ClauseView:
    seen, told = clause.seen(facts), clause.describe(facts).removeprefix(f"`{clause.clause.name}`: ")
    return ClauseView(
        item=item,
        name=clause.clause.name,
        line=clause.clause.line,
        holds=clause.holds(facts),
        seen=seen,
        wanted=clause.wanted(),
        told=seen if told == f"{seen} matches {seen}" else told,
    )


def _group(item: str) -> str:
    return item.partition("[")[0]


def _nearest(world: World, facts: Facts) -> Miss | None:
    near = find_nearest(world.snapshot.nearest, facts)
    if near is None:
        return None
    rule, place = near.rule, near.rule.policy.origin.file
    if not near.failed:
        seen = "no HTTP on this connection"
        return Miss(rule=rule.id, file=place, line=rule.rule.line, clause="", seen=seen, wanted="HTTP", more=0)
    first = near.failed[0]
    return Miss(
        rule=rule.id,
        file=place,
        line=first.clause.line,
        clause=first.clause.name,
        seen=first.seen(facts),
        wanted=first.wanted(),
        more=len(near.failed) - 1,
    )


# --- what stands around the decision ---


def _path(world: World, answer: Answer) -> PathView | None:
    if not answer.method or answer.step is Step.MUTUAL_TLS:
        return None
    sent = path_of(answer.target.encode("utf-8", "surrogatepass"))
    try:
        steps = tuple(path_steps(sent, world.normalization))
    except ProtocolError:
        steps = ()
    judged = answer.request.path if answer.request is not None else ""
    return PathView(sent=answer.target, judged=judged, steps=steps if judged else ())


def _unselecting(world: World, files: Mapping[str, bytes]) -> Iterator[Unselecting]:
    """List the policies in the files that do not speak to the workload."""
    policies, _, _ = read_files(files, world.workload, world.settings)
    documents: list[AuthorizationPolicy | RequestAuthentication] = [*policies.authorization]
    documents += policies.request_authentication
    for policy in documents:
        why = why_not_selected(world, policy)
        if why:
            yield Unselecting(
                policy=f"{policy.namespace}/{policy.name}",
                kind="AuthorizationPolicy" if isinstance(policy, AuthorizationPolicy) else "RequestAuthentication",
                file=policy.origin.file,
                line=policy.origin.line,
                why=why,
            )


def why_not_selected(world: World, policy: AuthorizationPolicy | RequestAuthentication) -> str:
    """Say why a policy does not speak to the workload; "" when it does."""
    workload = world.workload
    if policy.namespace not in (workload.namespace, world.settings.root_namespace):
        return f"it is of namespace {quoted(policy.namespace)}, the workload of {quoted(workload.namespace)}"
    if selects(policy.selector, workload.labels):
        return ""
    key, value = next((key, value) for key, value in policy.selector.items() if workload.labels.get(key) != value)
    has = f"has {quoted(workload.labels[key])}" if key in workload.labels else "has no such label"
    return f"its selector wants {shown(key)}={quoted(value)}, the workload {has}"
