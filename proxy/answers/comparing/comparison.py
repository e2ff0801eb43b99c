"""Two policy sets on the same calls: who gains access, who loses it, and what cannot be said."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.answers.calls.points import Point
from proxy.answers.comparing.replay import Unsaid
from proxy.answers.words import NOBODY
from proxy.documents import shown
from proxy.policy.snapshot import NO_RULE

MAX_LINES: Final = 20
"""Calls that one group shows in text; the JSON has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one set says to a call: `rule` is "none" where no rule decided, `reason` the word of a denial."""

    allowed: bool
    rule: str
    reason: str = ""

    def __str__(self) -> str:
        if self.allowed:
            return f"allowed by {self.rule}"
        return f"denied ({self.reason})" if self.rule == NO_RULE else f"denied by {self.rule}"


Ask = Callable[[Point], Verdict]


class Kind(enum.Enum):
    """What becomes of a call. DEPENDS: it hangs on something that a record does not hold."""

    GAINS = "gains"
    LOSES = "loses"
    DEPENDS = "depends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One call that the two sets may answer differently.

    `count` is how often it was recorded (1 for the grid). For DEPENDS, `on` names what the record lacks and `cases`
    says what would happen with which value.
    """

    kind: Kind
    point: Point
    before: Verdict
    after: Verdict
    count: int = 1
    on: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All changes, and how many calls stay as they were; `other_rule` counts those that another rule decides now."""

    changes: tuple[Change, ...]
    asked: int
    allowed: int
    denied: int
    other_rule: int

    def count(self, kind: Kind) -> int:
        """Count the calls of one kind."""
        return sum(change.kind is kind for change in self.changes)


def compare(calls: Mapping[Point, int], before: Ask, after: Ask, unsaid: Unsaid | None = None) -> Comparison:
    """Ask both sets; with `unsaid` every call is asked with all that its record may lack."""
    changes: list[Change] = []
    stays: Counter[str] = Counter()
    for point, count in calls.items():
        change = _change(point, count, before, after, unsaid)
        if isinstance(change, Change):
            changes.append(change)
            continue
        stays["allowed" if change[0].allowed else "denied"] += 1
        stays["other_rule"] += change[0].rule != change[1].rule
    return Comparison(
        changes=tuple(changes),
        asked=len(calls),
        allowed=stays["allowed"],
        denied=stays["denied"],
        other_rule=stays["other_rule"],
    )


def _change(
    point: Point, count: int, before: Ask, after: Ask, unsaid: Unsaid | None
) -> Change | tuple[Verdict, Verdict]:
    old, new = before(point), after(point)
    kind = _kind(old, new)
    if unsaid is not None:
        kinds: dict[Kind | None, list[str]] = {kind: []}
        on: dict[str, None] = {}
        for variant in unsaid.variants(point)[1:]:
            other = _kind(before(variant.point), after(variant.point))
            kinds.setdefault(other, []).append(variant.assumed)
            if other is not kind:
                on.update(dict.fromkeys(variant.on))
        if len(kinds) > 1:
            cases = [_case(kind, "without it")]
            cases += [_case(other, assumed[0]) for other, assumed in kinds.items() if other is not kind]
            return Change(
                kind=Kind.DEPENDS, point=point, before=old, after=new, count=count, on=tuple(on), cases=tuple(cases)
            )
    return (old, new) if kind is None else Change(kind=kind, point=point, before=old, after=new, count=count)


def _kind(before: Verdict, after: Verdict) -> Kind | None:
    if before.allowed == after.allowed:
        return None
    return Kind.GAINS if after.allowed else Kind.LOSES


def _case(kind: Kind | None, assumed: str) -> str:
    return (
        f"{'stays' if kind is None else kind.value} {assumed if assumed.startswith('without') else f'with {assumed}'}"
    )


# --- words ---


_EXTRAS: Final = ("port", "host", "source_ip", "destination_ip", "sni", "headers", "claims")

_TITLES: Final = {
    Kind.GAINS: "gains access",
    Kind.LOSES: "loses access",
    Kind.DEPENDS: "depends on what the record does not hold",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """How text is written: `noun` is what a call is called, `usual` a call whose host and addresses go without saying.

    With `joins`, a call is left out that differs from another of its group only in being less plain.
    """

    noun: str
    usual: Point
    joins: bool


def text_of(comparison: Comparison, plain: Plain) -> Iterator[str]:
    """Write the changes for a person, grouped by kind, identity and rules."""
    for kind in Kind:
        changes = [change for change in comparison.changes if change.kind is kind]
        if changes:
            yield f"{_TITLES[kind]}: {_number(len(changes), plain.noun)}"
            yield from _groups(changes, plain)
            yield ""
    stays = comparison.allowed + comparison.denied
    gains, loses, depends = (comparison.count(kind) for kind in Kind)
    yield (
        f"{_number(comparison.asked, plain.noun)}: {gains} gained, {loses} lost, "
        + (f"{depends} depend on what is not recorded, " if depends else "")
        + f"{stays} as before ({comparison.allowed} allowed, {comparison.denied} denied)"
    )
    if comparison.other_rule:
        yield f"{comparison.other_rule} of them as before, but decided by another rule"


def _groups(changes: Iterable[Change], plain: Plain) -> Iterator[str]:
    by_identity: dict[str, dict[tuple[Verdict, Verdict], list[Change]]] = {}
    for change in changes:
        groups = by_identity.setdefault(change.point.identity, {})
        groups.setdefault((change.before, change.after), []).append(change)
    for identity, groups in by_identity.items():
        yield f"  {shown(identity, 200) if identity else NOBODY}"
        for (before, after), members in groups.items():
            yield f"    {before} -> {after}"
            kept = _plainest(members, plain.usual) if plain.joins else members
            lines = list(_lines(kept, plain.usual))
            yield from (f"      {line}" for line in lines[:MAX_LINES])
            if len(lines) > MAX_LINES:
                yield f"      and {len(lines) - MAX_LINES} more lines; --output json has them all"
            if len(kept) < len(members):
                more = _number(len(members) - len(kept), "call")
                yield f"      and {more} like these but for port, host, address, headers or token"


def _plainest(members: Sequence[Change], usual: Point) -> list[Change]:
    """Leave out what differs from another member only in having something that is not usual."""
    points = {change.point for change in members}
    return [change for change in members if not any(point in points for point in _plainer(change.point, usual))]


def _plainer(point: Point, usual: Point) -> Iterator[Point]:
    """Give the calls that are like this one, but as usual in one respect or in several."""
    differing: dict[str, Any] = {
        name: getattr(usual, name) for name in _EXTRAS if getattr(point, name) != getattr(usual, name)
    }
    for count in range(len(differing), 0, -1):
        for names in itertools.combinations(differing, count):
            yield replace(point, **{name: differing[name] for name in names})


def _lines(changes: Iterable[Change], usual: Point) -> Iterator[str]:
    """Join the methods of calls that differ in nothing else."""
    joined: dict[tuple[str, str], dict[str, int]] = {}
    for change in changes:
        point = change.point
        key = "" if point.opaque else point.path, _rest(change, usual)
        methods = joined.setdefault(key, {})
        method = "opens a connection" if point.opaque else point.method
        methods[method] = methods.get(method, 0) + change.count
    for (path, rest), methods in joined.items():
        count = sum(methods.values())
        times = f" ({count} times)" if count > len(methods) else ""
        yield shown(" ".join(part for part in (", ".join(methods), path, rest) if part), 300) + times


def _rest(change: Change, usual: Point) -> str:
    point = change.point
    parts = [f"port {point.port}"]
    if point.host and point.host != usual.host:
        parts.append(f"host {point.host}")
    parts += [f"{name}: {value}" for name, value in point.headers]
    if point.claims:
        parts.append(f"token {point.claims}")
    if point.source_ip not in ("", usual.source_ip):
        parts.append(f"from {point.source_ip}")
    parts += [f"{name} {value}" for name, value in (("to", point.destination_ip), ("server name", point.sni)) if value]
    rest = " ".join(parts)
    return f"{rest}: depends on {', '.join(change.on)} ({'; '.join(change.cases)})" if change.on else rest


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def json_of(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Write the changes for a program, each with what is set of the call."""
    return [
        {
            "change": change.kind.value,
            "count": change.count,
            "identity": change.point.identity or None,
            **_call(change.point),
            "before": _verdict(change.before),
            "after": _verdict(change.after),
            **({"depends_on": list(change.on), "cases": list(change.cases)} if change.on else {}),
        }
        for change in changes
    ]


def _call(point: Point) -> dict[str, Any]:
    said: dict[str, Any] = {
        "protocol": "tcp" if point.opaque else "http",
        "port": point.port,
        "method": point.method,
        "path": point.path,
        "host": point.host,
        "headers": [list(line) for line in point.headers],
        "claims": point.claims,
        "source": point.source_ip,
        "destination": point.destination_ip,
        "sni": point.sni,
    }
    return {key: value for key, value in said.items() if value}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "decision": "allow" if verdict.allowed else "deny",
        "rule": verdict.rule,
        **({"reason": verdict.reason} if verdict.reason else {}),
    }
