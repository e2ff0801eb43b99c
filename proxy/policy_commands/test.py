"""The command `remora policy test`: asks the policies what a table of tests expects.

Exit codes: 0 every test passes, 1 one fails (or a rule has none, with --require-coverage), 2 wrong input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proxy.answers.question import World
from proxy.answers.testing.junit import junit, said_of
from proxy.answers.testing.starter import Source, starter
from proxy.answers.testing.tables import (
    Outcome,
    Table,
    Unexercised,
    count_rules,
    read_table,
    run_table,
    unexercised,
    unknown_rule,
)
from proxy.answers.words import got, request_line
from proxy.errors import ConfigError, Fault
from proxy.policy_commands.inputs import (
    Surroundings,
    add_options,
    compile_world,
    from_config,
    gives_workload,
    read_config,
    read_file,
    read_files,
    read_key_sets,
    read_surroundings,
    read_world,
)
from proxy.types import Denial

EXIT_FAILED: Final = 1

_DESCRIPTION: Final = """\
Ask the policies what a table of tests expects. A file of tests names its policies and its workload:

  policies: [policy/]                       # relative to the file; or -f and --config on the command line
  workload: {namespace: demo, service_account: orders, labels: {app: orders}}
  request: {host: orders.demo, port: 8080}  # what every request has unless it says otherwise
  tests:
    - name: web reads orders
      request: {identity: cluster.local/ns/demo/sa/web, method: [GET, HEAD], path: /orders/7}
      expect: allow                         # allow | deny | 403 | {decision: deny, rule: ..., reason: ...}
      rule: ns[demo]-policy[orders]-rule[0] # optional: which rule decides

A list in a request makes one case for each value. A request may also have headers, claims (of a token that counts as
verified), token, source, destination, sni, and protocol: tcp for a connection that is not HTTP. `null` takes a shared
value away. Instead of a workload the file may name a sidecar's configuration: config: remora.yaml.
"""

_EXAMPLES: Final = """\
examples:
  remora policy test --init -f policy/ --namespace demo --account orders --labels app=orders -o orders.test.yaml
  remora policy test orders.test.yaml
  remora policy test orders.test.yaml -f new-policy/ --require-coverage
  remora policy test *.test.yaml --junit report.xml

exit codes: 0 every test passes, 1 a test fails, 2 something is wrong with the files
"""


def add_parser(commands: Any) -> None:
    """Add `test` to the subcommands of `remora policy`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "test",
        help="run table tests: requests with the answers that they must get",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tests", nargs="*", metavar="FILE", help="a file of tests, or - for standard input")
    parser.add_argument("--init", action="store_true", help="write a first file of tests for the policies")
    parser.add_argument("-o", dest="out", metavar="FILE", help="with --init: write to FILE, which must not exist")
    parser.add_argument("--output", choices=("text", "json", "junit"), default="text", help="default: text")
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML to FILE as well")
    parser.add_argument("--require-coverage", action="store_true", help="fail when a rule decides none of the tests")
    add_options(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What became of one file of tests."""

    table: Table
    world: World
    outcomes: Sequence[Outcome]
    untested: Sequence[Unexercised]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]


def run(options: argparse.Namespace) -> int:
    """Run the tests, or write the first ones; returns the exit code. Raises ConfigError."""
    if options.init:
        return _init(options)
    if not options.tests:
        raise _usage("no file of tests is given", "name one, or write a first one with --init -f POLICIES")
    if options.out:
        raise _usage("-o belongs to --init", "use --junit FILE for a report")
    if list(options.tests).count("-") + options.files.count("-") > 1:
        raise _usage("standard input can be read once only", "give one of the two as a file")
    results = [_run_file(path, options) for path in options.tests]
    if options.junit:
        _write(options.junit, _junit(results, options.require_coverage), overwrite=True)
    match options.output:
        case "json":
            sys.stdout.write(json.dumps(_json(results), indent=2) + "\n")
        case "junit":
            sys.stdout.write(_junit(results, options.require_coverage).decode())
        case _:
            sys.stdout.write("".join(f"{line}\n" for result in results for line in _text(result)))
    failed = any(result.failed or (options.require_coverage and result.untested) for result in results)
    return EXIT_FAILED if failed else 0


def _run_file(path: str, options: argparse.Namespace) -> _Result:
    name, data = read_file(path)
    table = read_table(data, name)
    world = _world(table, options)
    now = time.time() if table.now is None else table.now
    outcomes = run_table(world, table.cases, now)
    untested = unexercised(world, (outcome.answer for outcome in outcomes))
    return _Result(table=table, world=world, outcomes=outcomes, untested=untested)


def _world(table: Table, options: argparse.Namespace) -> World:
    """Join what the file says with what the command line says, which comes first."""
    base = "" if table.file.startswith("<") else os.path.dirname(table.file)
    surroundings = _surroundings(table, base, options)
    if options.files:
        files = read_files(options.files)
    elif table.policies:
        files = read_files(os.path.join(base, path) if path != "-" else path for path in table.policies)
    elif options.config or table.config:
        config = read_config(options.config or os.path.join(base, table.config))
        files = read_files([config.policy.directory])
    else:
        message = "the file names no policies"
        raise ConfigError([Fault(file=table.file, message=message, hint="write policies: [PATH], or give -f PATH")])
    return compile_world(files, surroundings)


def _surroundings(table: Table, base: str, options: argparse.Namespace) -> Surroundings:
    if gives_workload(options):
        return read_surroundings(options)
    jwks = [f"{uri}={os.path.join(base, path)}" for uri, path in table.jwks.items()]
    keys = read_key_sets([*jwks, *options.jwks])
    if table.config:
        return from_config(read_config(os.path.join(base, table.config)), keys)
    if table.workload is None:
        message = "the file names no workload"
        hint = "write workload: {namespace: ..., service_account: ..., labels: {...}}, or give --namespace"
        raise ConfigError([Fault(file=table.file, message=message, hint=hint)])
    return Surroundings(
        workload=table.workload,
        settings=table.settings,
        normalization=table.normalization,
        tcp_ports=table.tcp_ports,
        keys=keys,
    )


# --- output ---


def _text(result: _Result) -> list[str]:
    lines: list[str] = []
    for outcome in result.failed:
        case = outcome.case
        lines.append(f"FAIL {case.file}:{case.line} {case.name}: expected {case.expect}, got {got(outcome.answer)}")
        lines += [f"     {line}" for line in said_of(outcome)]
        if wrong_name := unknown_rule(result.world, case):
            lines.append(f"     {wrong_name}")
    count, failed, rules = len(result.outcomes), len(result.failed), count_rules(result.world)
    lines.append(f"{result.table.file}: {_number(count, 'case')}, {count - failed} passed, {failed} failed")
    if not result.untested:
        lines.append(f"every rule decides a case ({rules})" if rules else "there are no rules")
        return lines
    lines.append(f"{rules - len(result.untested)} of {_number(rules, 'rule')} decide a case; without one:")
    lines += [f"  {rule.place} {rule.rule}" for rule in result.untested]
    return lines


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _junit(results: Sequence[_Result], require_coverage: bool) -> bytes:
    suites = []
    for result in results:
        complaints = [f"{rule.place} {rule.rule} decides no case" for rule in result.untested if require_coverage]
        suites.append((result.table.file, result.outcomes, complaints))
    return junit(suites)


def _json(results: Sequence[_Result]) -> dict[str, Any]:
    return {
        "passed": sum(len(result.outcomes) - len(result.failed) for result in results),
        "failed": sum(len(result.failed) for result in results),
        "files": [
            {
                "file": result.table.file,
                "cases": [_case_json(outcome) for outcome in result.outcomes],
                "coverage": {
                    "rules": count_rules(result.world),
                    "without_a_case": [{"rule": rule.rule, "place": rule.place} for rule in result.untested],
                },
            }
            for result in results
        ],
    }


def _case_json(outcome: Outcome) -> dict[str, Any]:
    verdict, expect = outcome.answer.verdict, outcome.case.expect
    denial = verdict if isinstance(verdict, Denial) else None
    wanted = {"decision": expect.decision, "status": expect.status, "rule": expect.rule, "reason": expect.reason}
    return {
        "name": outcome.case.name,
        "line": outcome.case.line,
        "passed": outcome.passed,
        "request": request_line(outcome.case.question),
        "expected": {key: value for key, value in wanted.items() if value},
        "decision": "deny" if denial else "allow",
        "status": outcome.answer.status or None,
        "rule": verdict.rule,
        "reason": denial.reason.word if denial else "ok",
        "explanation": denial.explanation if denial else "",
        "nearest_miss": denial.nearest_miss if denial else "",
    }


# --- the first file ---


def _init(options: argparse.Namespace) -> int:
    if options.tests:
        raise _usage("--init reads policies and no tests", "give the policies with -f, and the file to write with -o")
    world = read_world(options)
    base = os.path.dirname(options.out or "") or "."
    paths = [path for path in options.files if path != "-"]
    source = Source(
        name=os.path.basename(options.out) if options.out else "THIS-FILE",
        config=_relative(options.config, base) if options.config else "",
        policies=tuple(_relative(path, base) for path in paths) if len(paths) == len(options.files) else (),
    )
    text = starter(world, source, time.time())
    if not options.out:
        sys.stdout.write(text)
        return 0
    _write(options.out, text.encode(), overwrite=False)
    cases = text.count("\n  - name: ")
    sys.stdout.write(f"{options.out}: {_number(cases, 'test')}; run them with: remora policy test {options.out}\n")
    return 0


def _relative(path: str, base: str) -> str:
    """Write a path as one that is read from the folder of the new file."""
    if os.path.isabs(path):
        return path
    relative = os.path.relpath(path, base)
    return f"{relative}/" if path.endswith("/") else relative


def _write(path: str, data: bytes, *, overwrite: bool) -> None:
    try:
        with Path(path).open("wb" if overwrite else "xb") as file:
            file.write(data)
    except OSError as failure:
        hint = "choose another name: tests that somebody wrote are not replaced" if not overwrite else ""
        message = f"the file cannot be written: {failure.strerror}"
        raise ConfigError([Fault(file=path, message=message, hint=hint)]) from failure


def _usage(message: str, hint: str) -> ConfigError:
    return ConfigError([Fault(file="remora policy test", message=message, hint=hint)])
