"""Access records as questions: what was called, by whom, and what a record does not say.

A record names the caller, the method, the path, the host and the port; of the headers it has three, and of a token
nothing. Where an answer would hang on the rest it is asked with every value that the rules name, and when the answers
differ the record is said to depend on it: nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.answers.calls.points import Point, Scene
from proxy.answers.calls.samples import claim_sets, header_lists
from proxy.answers.reading import NoQuestion, question_of_record, record_of_line
from proxy.policy.model import Attribute, Clause, Rule

MAX_POINTS: Final = 100_000
"""Different calls of one replay; paths are chosen by clients, and nobody compares more."""

MAX_VARIANTS: Final = 64
"""Ways to fill in what a record lacks; each is asked against both sets."""

RECORDED: Final = ("user-agent", "x-forwarded-for", "x-request-id")
"""The headers that a record has."""

_UNVERIFIED: Final = "unverified "  # how a record marks a name that no certificate proved
_KNOWN: Final = (*RECORDED, "host", ":authority", ":method")

NOT_A_RECORD: Final = "lines that are no access record"
OUTBOUND: Final = "outbound calls, which policies do not speak of"
UNREADABLE: Final = "requests that could not be read, and records without a port"
UNJUDGED: Final = "connections and requests that ended before policy was asked"
TOO_MANY: Final = f"calls beyond the first {MAX_POINTS} different ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What a log holds: how often each call was made, in order of the first, and what was skipped by why."""

    calls: Mapping[Point, int]
    skipped: Mapping[str, int]


def read_records(lines: Iterable[bytes]) -> Records:
    """Read the lines of an access log. Lines of anything else are counted and left out."""
    calls: Counter[Point] = Counter()
    skipped: Counter[str] = Counter()
    for line in lines:
        if not line.strip():
            continue
        found = _point(line.decode("utf-8", "replace"))
        if isinstance(found, Point) and found not in calls and len(calls) >= MAX_POINTS:
            found = TOO_MANY
        if isinstance(found, Point):
            calls[found] += 1
        else:
            skipped[found] += 1
    return Records(calls=calls, skipped=dict(skipped))


def merged(calls: Iterable[tuple[Point, int]]) -> dict[Point, int]:
    """Add up the counts of calls that are the same."""
    total: Counter[Point] = Counter()
    for point, count in calls:
        total[point] += count
    return dict(total)


def _point(line: str) -> Point | str:
    """Read one record: the call, or why it is skipped."""
    try:
        record = record_of_line(line)
    except NoQuestion:
        return NOT_A_RECORD
    if record["kind"] not in ("request", "connection") or record["direction"] not in ("inbound", "outbound"):
        return NOT_A_RECORD
    if record["direction"] == "outbound":
        return OUTBOUND
    if record.get("decision") not in ("allow", "deny") or str(record.get("source_principal")).startswith(_UNVERIFIED):
        return UNJUDGED
    try:
        question = question_of_record(record)
    except NoQuestion:
        return UNREADABLE
    if not question.port:
        return UNREADABLE
    headers = list(question.headers)
    request_id = record.get("request_id")
    if isinstance(request_id, str) and not question.opaque:
        headers.append(("x-request-id", request_id))
    return Point(
        identity=question.principal,
        port=question.port,
        method="" if question.opaque else question.method,
        path="" if question.opaque else question.target,
        host="" if question.opaque else question.host,
        source_ip=question.source_ip,
        destination_ip=question.destination_ip,
        sni=question.sni,
        headers=tuple(headers),
        opaque=question.opaque,
    )


# --- what a record does not say ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to fill in what a record lacks: what was assumed, in words, `on` what it is, and the call with it."""

    assumed: str
    on: tuple[str, ...]
    point: Point


class Unsaid:
    """What the rules look at and records lack: headers, and tokens."""

    __slots__ = ("_choices", "names")

    def __init__(self, rules: Sequence[Rule], scene: Scene) -> None:
        clauses = [replace(clause, negated=False) for rule in rules for clause in rule.clauses()]
        lacking: dict[str, list[Clause]] = {}
        for clause in clauses:
            if clause.attribute is Attribute.HEADER and clause.header not in _KNOWN:
                lacking.setdefault(clause.header, []).append(clause)
        self._choices: list[list[_Choice]] = []
        for name, found in sorted(lacking.items()):
            lines = dict.fromkeys(line for single in found for lines in _each(single, scene) for line in lines)
            self._choices.append(
                [_Choice(), *(_Choice(f"header {name}", f"{name}: {line[1]}", (line,)) for line in lines)]
            )
        tokens = [
            claims
            for rule in rules
            for source in rule.sources or ((),)
            for claims in claim_sets([replace(c, negated=False) for c in (*source, *rule.conditions)], scene)
            if claims
        ]
        if tokens:
            carried = [_Choice("the token", f"a token with {text}", claims=text) for text in dict.fromkeys(tokens)]
            self._choices.append([_Choice(), *carried])
        self.names = tuple([f"header {name}" for name in sorted(lacking)] + (["the token"] if tokens else []))

    def variants(self, point: Point) -> list[Variant]:
        """Fill in what the record lacks in every way, at most `MAX_VARIANTS`; the first assumes nothing is there."""
        if point.opaque or not self._choices:
            return [Variant(assumed="", on=(), point=point)]
        return [_variant(point, chosen) for chosen in itertools.islice(_nearest_first(self._choices), MAX_VARIANTS)]


@dataclass(frozen=True, slots=True)
class _Choice:
    on: str = ""
    words: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    claims: str = ""


def _each(clause: Clause, scene: Scene) -> Iterable[tuple[tuple[str, str], ...]]:
    return header_lists([clause], scene)


def _nearest_first(choices: Sequence[Sequence[_Choice]]) -> Iterable[tuple[_Choice, ...]]:
    """Order the product by how much it assumes, so that a cut one has lost only what assumes most."""
    seen: dict[tuple[_Choice, ...], None] = {}
    first = tuple(choice[0] for choice in choices)
    seen[first] = None
    for i, choice in enumerate(choices):
        for value in choice[1:]:
            seen[(*first[:i], value, *first[i + 1 :])] = None
    yield from seen
    yield from (chosen for chosen in itertools.product(*choices) if chosen not in seen)


def _variant(point: Point, chosen: Sequence[_Choice]) -> Variant:
    headers = itertools.chain(point.headers, *(choice.headers for choice in chosen))
    return Variant(
        assumed=", ".join(choice.words for choice in chosen if choice.words),
        on=tuple(choice.on for choice in chosen if choice.on),
        point=replace(
            point, headers=tuple(headers), claims=next((choice.claims for choice in chosen if choice.claims), "")
        ),
    )
