"""The command `remora bench`: measures what a hop costs beside other proxies, and what one sidecar costs by itself.

Exit codes: 0 measured, 1 could not be measured (a program is missing, a contender failed, work was not done) or, where
that was asked for, a figure is worse than before, 2 wrong usage. A missed target is a result and not a failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import (
    authority,
    capture,
    growth,
    heads,
    hops,
    memory,
    micro,
    policy,
    scrape,
    sheet,
    stages,
    stages_report,
    start,
    webhook,
    workers,
    workers_report,
)
from benchmarks.compiled import look_for
from benchmarks.contenders import contenders
from benchmarks.host import Machine, this_machine
from benchmarks.load import LoadError
from benchmarks.processes import BenchError
from benchmarks.report import Setting, as_json, as_text
from benchmarks.report_command import add_command as add_report
from benchmarks.suite_commands import add_commands, add_compiled
from proxy.telemetry.label_sets import MAX_LABEL_SETS

MAX_SECONDS: Final = 60
MAX_REPETITIONS: Final = 20
MAX_CONNECTIONS: Final = 512
"""Loads are bounded: more connections than a small machine has descriptors for would measure something else."""
MAX_IDLE_CONNECTIONS: Final = 5_000
"""Of one process; the descriptors that they need are asked for before."""

MAX_AUTHORITY_SIDECARS: Final = 5_000
"""Simulated ones; each has two certificates, whose contexts take the callers' memory."""
MAX_AUTHORITY_ENTRIES: Final = 100_000
"""An authority remembers no more sidecars than that."""

Work = Callable[[argparse.Namespace, Machine, Path], str]
"""Measures in a directory, and gives what goes to the standard output."""


def main(argv: Sequence[str]) -> int:
    """Run the command given by `argv`, the words after `remora bench`; return the exit code."""
    parser = argparse.ArgumentParser(prog="remora bench", description="What a hop costs, and what a sidecar costs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")

    def add(name: str, work: Work, text: str, repetitions: int, of: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(work=work)
        command.add_argument(
            "--repetitions",
            type=_bounded(1, MAX_REPETITIONS),
            default=repetitions,
            help=f"{of} (default: {repetitions})",
        )
        command.add_argument("--output", choices=("text", "json"), default="text", help="default: text")
        return command

    command = add("hops", _hops, "requests/s and CPU per request of two mTLS hops beside other proxies", 5, "rounds")
    command.add_argument("--seconds", type=_bounded(1, MAX_SECONDS), default=3, help="of each repetition (default: 3)")
    command.add_argument(
        "--connections", type=_bounded(1, MAX_CONNECTIONS), default=32, help="of the load generator (default: 32)"
    )
    add_compiled(command)
    command = add("memory", _memory, "memory of an idle sidecar and of each idle connection", 3, "fresh processes")
    command.add_argument(
        "--connections",
        type=_bounded(10, MAX_IDLE_CONNECTIONS),
        default=1_000,
        help="of each direction (default: 1000)",
    )
    command.add_argument("--steps", type=_bounded(2, 10), default=8, help="in which they are opened (default: 8)")
    add("start", _start, "time from the start of a process until it is ready", 10, "starts")
    command = add("scrape", _scrape, "cost of a scrape of /metrics with many label sets", 5, "repetitions")
    command.add_argument(
        "--label-sets", type=_bounded(1, MAX_LABEL_SETS), default=MAX_LABEL_SETS, help="default: the most there can be"
    )
    command = add("workers", _workers, "capacity of one hop on two cores, with one worker and with two", 5, "rounds")
    command.add_argument("--seconds", type=_bounded(1, MAX_SECONDS), default=3, help="of each repetition (default: 3)")
    command.add_argument(
        "--connections", type=_bounded(8, MAX_CONNECTIONS), default=64, help="of the load generator (default: 64)"
    )
    add_compiled(command)
    command = add("authority", _authority, "what one authority on one core can carry", 3, "rounds")
    command.add_argument("--seconds", type=_bounded(1, MAX_SECONDS), default=4, help="of each load (default: 4)")
    command.add_argument(
        "--sidecars", type=_bounded(2, MAX_AUTHORITY_SIDECARS), default=1_000, help="simulated ones (default: 1000)"
    )
    command.add_argument(
        "--entries",
        type=_bounded(1, MAX_AUTHORITY_ENTRIES),
        default=MAX_AUTHORITY_ENTRIES,
        help="certificates and sidecars that the grown authority knows (default: the most there can be)",
    )
    command = add(
        "webhook", _webhook, "what an API server waits for the injector, and what one core carries", 3, "rounds"
    )
    command.add_argument("--seconds", type=_bounded(1, MAX_SECONDS), default=5, help="of each load (default: 5)")
    command.add_argument(
        "--connections", type=_bounded(1, MAX_CONNECTIONS), default=16, help="of the API server (default: 16)"
    )
    command = add("capture", _capture, "what capture by rules costs beside ports, between two pods", 5, "rounds")
    command.add_argument("--seconds", type=_bounded(1, MAX_SECONDS), default=3, help="of each repetition (default: 3)")
    command.add_argument(
        "--connections", type=_bounded(2, MAX_CONNECTIONS), default=32, help="that are kept (default: 32)"
    )
    add("policy", _policy, "cost of a decision and of a request under ten to a thousand rules", 5, "rounds")
    add("growth", _growth, "curves of cost over idle connections, rules, services and headers", 9, "rounds")
    command = add("stages", _stages, "where the microseconds of a hop go, by timers in the process", 5, "rounds")
    command.add_argument(
        "--seconds",
        type=_bounded(stages.READ_SECONDS, MAX_SECONDS),
        default=stages.READ_SECONDS,
        help=f"of each repetition (default: {stages.READ_SECONDS})",
    )
    command.add_argument(
        "--connections", type=_bounded(1, MAX_CONNECTIONS), default=32, help="of the load generator (default: 32)"
    )
    command.add_argument("--client", choices=heads.CLIENTS, default="curl", help="whose heads are sent (default: curl)")
    command = add("micro", _micro, "cost of each hot function by itself", 7, "rounds")
    command.add_argument("--only", default="", metavar="PATTERN", help="cases with this in their name; * is anything")
    add_commands(commands, _bounded, _tell)
    add_report(commands, _tell)
    options = parser.parse_args(argv)
    try:
        if "handle" in options:
            return int(options.handle(options))
        work: Work = options.work
        with tempfile.TemporaryDirectory(prefix="remora-bench-") as directory:
            sys.stdout.write(work(options, this_machine(sorted(os.sched_getaffinity(0))), Path(directory)))
    except (BenchError, LoadError) as failure:
        _tell(str(failure))
        return 1
    return 0


def _hops(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = hops.Plan(seconds=options.seconds, repetitions=options.repetitions, connections=options.connections)
    wanted = contenders(look_for(options.compiled))
    absent = [contender for contender in wanted if contender.absent]
    for contender in absent:
        _tell(f"{contender.name} is left out: {contender.absent}")
    standings = hops.run(wanted, plan, machine.cores, directory, _tell)
    write = as_json if options.output == "json" else as_text
    return write(Setting(machine=machine, plan=plan), standings, absent)


def _memory(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = memory.Plan(repetitions=options.repetitions, connections=options.connections, steps=options.steps)
    return _written(memory.run(machine, plan, directory, _tell), options)


def _start(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    return _written(start.run(machine, options.repetitions, directory, _tell), options)


def _scrape(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    return _written(scrape.run(machine, options.repetitions, options.label_sets, directory, _tell), options)


def _workers(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = workers_report.Plan(
        seconds=options.seconds, repetitions=options.repetitions, connections=options.connections
    )
    found = workers.run(machine, plan, look_for(options.compiled), directory, _tell)
    return workers_report.as_json(found) if options.output == "json" else workers_report.as_text(found)


def _authority(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = authority.Plan(
        sidecars=options.sidecars,
        seconds=options.seconds,
        repetitions=options.repetitions,
        entries=options.entries,
    )
    return _written(authority.run(machine, plan, directory, _tell), options)


def _webhook(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = webhook.Plan(seconds=options.seconds, repetitions=options.repetitions, connections=options.connections)
    return _written(webhook.run(machine, plan, directory, _tell), options)


def _capture(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = capture.Plan(seconds=options.seconds, repetitions=options.repetitions, connections=options.connections)
    return _written(capture.run(machine, plan, directory, _tell), options)


def _policy(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    return _written(policy.run(machine, options.repetitions, directory, _tell), options)


def _growth(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    curves = growth.run(machine, options.repetitions, directory, _tell)
    return growth.as_json(curves) if options.output == "json" else growth.as_text(curves)


def _stages(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    plan = stages_report.Plan(
        seconds=options.seconds,
        repetitions=options.repetitions,
        connections=options.connections,
        client=heads.CLIENTS[options.client],
    )
    found = stages.run(machine, plan, directory, _tell)
    text = stages_report.as_json(found) if options.output == "json" else stages_report.as_text(found)
    try:
        stages_report.check(found)
    except BenchError:
        sys.stdout.write(text)  # what does not add up is shown, and then said to be wrong
        raise
    return text


def _micro(options: argparse.Namespace, machine: Machine, directory: Path) -> str:
    found = micro.run(machine, options.repetitions, options.only, directory, _tell)
    return micro.as_json(found) if options.output == "json" else micro.as_text(found)


def _written(measured: sheet.Sheet, options: argparse.Namespace) -> str:
    return sheet.as_json(measured) if options.output == "json" else sheet.as_text(measured)


def _bounded(lowest: int, highest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{value} is not between {lowest} and {highest}")
        return value

    return number


def _tell(line: str) -> None:
    sys.stderr.write(f"remora bench: {line}\n")
    sys.stderr.flush()
