"""The command `remora policy diff`: the same calls asked of two policy sets, and who gains and loses access.

Exit codes: 0 compared, 1 there is a change that --fail-on names, 2 wrong input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from proxy.answers.calls.grid import DEFAULT_LIMIT, make_grid
from proxy.answers.calls.points import Point, Scene, dropping_details
from proxy.answers.comparing.comparison import Ask, Comparison, Kind, Plain, Verdict, compare, json_of, text_of
from proxy.answers.comparing.replay import NOT_A_RECORD, Records, Unsaid, merged, read_records
from proxy.answers.question import World, ask
from proxy.errors import ConfigError, Fault
from proxy.policy.model import Rule
from proxy.policy_commands.inputs import STDIN, add_options, compile_world, read_files, read_surroundings
from proxy.types import Denial

EXIT_CHANGED: Final = 1

MAX_LINE: Final = 256 * 1024
"""Bytes of one access record; a longer line is cut, and then it is none."""

_FAIL_ON: Final[Mapping[str, frozenset[Kind]]] = {
    "never": frozenset(),
    "gain": frozenset({Kind.GAINS, Kind.DEPENDS}),
    "lose": frozenset({Kind.LOSES, Kind.DEPENDS}),
    "any": frozenset(Kind),
}

_DESCRIPTION: Final = """\
Ask two policy sets about the same calls, and show who gains access and who loses it.

OLD and NEW are files, directories or - (standard input). The calls are the requests and connections of an access log
(--records), or else a grid of every identity, method, path, port, host, header and token that either set names, with
neighbours that none names.

A record holds no token and few headers. Where an answer hangs on them, the call is listed as one that depends on them.
"""

_EXAMPLES: Final = """\
examples:
  remora policy diff policy/ new-policy/ --config remora.yaml
  remora policy diff policy/ new-policy/ --config remora.yaml --records access.log --fail-on lose
  git show main:policy/orders.yaml | remora policy diff - policy/orders.yaml --namespace demo --labels app=orders
  kubectl logs deploy/orders -c remora | remora policy diff policy/ new-policy/ --config remora.yaml --records -

exit codes: 0 compared, 1 there is a change that --fail-on names, 2 something is wrong with the files
"""


def add_parser(commands: Any) -> None:
    """Add `diff` to the subcommands of `remora policy`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="compare two policy sets: who gains and who loses access",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", metavar="OLD", help="the policies as they are: a file, a directory or -")
    parser.add_argument("new", metavar="NEW", help="the policies as they will be")
    parser.add_argument("--records", metavar="FILE", help="replay the calls of an access log; - for standard input")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument(
        "--fail-on",
        choices=tuple(_FAIL_ON),
        default="never",
        help="exit 1 when somebody gains or loses access, or may (depends); default: never",
    )
    parser.add_argument(
        "--grid-limit",
        type=_positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"calls of a grid; default: {DEFAULT_LIMIT}",
    )
    add_options(parser, files=False)


def run(options: argparse.Namespace) -> int:
    """Compare; returns the exit code. Raises ConfigError."""
    if [options.old, options.new, options.records].count("-") > 1:
        message, hint = "standard input can be read once only", "give the others as files"
        raise ConfigError([Fault(file="remora policy diff", message=message, hint=hint)])
    old, new = _worlds(options)
    scene = Scene.of(old, new)
    rules = [rule.rule for world in (old, new) for rule in world.snapshot.rules]
    subject = _recorded(options.records, rules, scene) if options.records else _grid(options.grid_limit, rules, scene)
    now = time.time()
    comparison = compare(subject.calls, _asker(old, now), _asker(new, now), subject.unsaid)
    if options.output == "json":
        sys.stdout.write(json.dumps(_json(comparison, subject), indent=2) + "\n")
    else:
        usual = dropping_details(rules)(scene.plain)
        plain = Plain(noun=subject.noun, usual=usual, joins=subject.unsaid is None)
        lines = (*subject.notes, "", *text_of(comparison, plain))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return EXIT_CHANGED if any(change.kind in _FAIL_ON[options.fail_on] for change in comparison.changes) else 0


def _worlds(options: argparse.Namespace) -> tuple[World, World]:
    """Compile both sets; the faults of both are said at once."""
    surroundings = read_surroundings(options)
    worlds: list[World] = []
    faults: list[Fault] = []
    for path in (options.old, options.new):
        try:
            worlds.append(compile_world(read_files([path]), surroundings))
        except ConfigError as failure:
            faults += failure.faults
    if faults:
        raise ConfigError(faults)
    return worlds[0], worlds[1]


def _asker(world: World, now: float) -> Ask:
    def answer(point: Point) -> Verdict:
        verdict = ask(world, point.question(), now).verdict
        reason = verdict.reason.word if isinstance(verdict, Denial) else ""
        return Verdict(allowed=not reason, rule=verdict.rule, reason=reason)

    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is compared: calls with their counts, and sentences about where they come from and what was left out."""

    noun: str
    calls: Mapping[Point, int]
    notes: tuple[str, ...]
    skipped: Mapping[str, int]
    unsaid: Unsaid | None = None


def _grid(limit: int, rules: Sequence[Rule], scene: Scene) -> _Subject:
    grid = make_grid(rules, scene, limit)
    calls = dict.fromkeys(grid.points, 1)
    note = f"a grid of {len(calls)} calls: what either set names, and neighbours"
    left_out = {}
    if grid.is_cut:
        left_out = {"combinations beyond the limit": grid.combinations - len(calls)}
        note += f"; {left_out['combinations beyond the limit']} further combinations are left out (--grid-limit)"
    return _Subject(noun="call", calls=calls, notes=(note,), skipped=left_out)


def _recorded(path: str, rules: Sequence[Rule], scene: Scene) -> _Subject:
    records = _read(path)
    drop = dropping_details(rules)
    calls = merged((drop(point), count) for point, count in records.calls.items())
    name = STDIN if path == "-" else path
    notes = [f"{sum(calls.values())} calls of {name}, {len(calls)} different ones"]
    notes += [f"skipped: {count} {why}" for why, count in records.skipped.items()]
    unsaid = Unsaid(rules, scene)
    return _Subject(noun="recorded call", calls=calls, notes=tuple(notes), skipped=records.skipped, unsaid=unsaid)


def _read(path: str) -> Records:
    try:
        if path == "-":
            records = read_records(_lines(sys.stdin.buffer))
        else:
            with open(path, "rb") as file:
                records = read_records(_lines(file))
    except OSError as failure:
        message = f"the records cannot be read: {failure.strerror}"
        raise ConfigError([Fault(file=path, message=message)]) from failure
    if not records.calls and not (set(records.skipped) - {NOT_A_RECORD}):
        hint = "give the access log of a sidecar, one JSON object a line"
        raise ConfigError([Fault(file=STDIN if path == "-" else path, message="no access record in it", hint=hint)])
    return records


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE):
        yield line


def _json(comparison: Comparison, subject: _Subject) -> dict[str, Any]:
    return {
        "calls": comparison.asked,
        "gains": comparison.count(Kind.GAINS),
        "loses": comparison.count(Kind.LOSES),
        "depends": comparison.count(Kind.DEPENDS),
        "as_before": {"allowed": comparison.allowed, "denied": comparison.denied},
        "other_rule": comparison.other_rule,
        "left_out": dict(subject.skipped),
        "changes": json_of(comparison.changes),
    }


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 9999999")
    return int(text)
