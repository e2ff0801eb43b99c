"""The commands `remora bench run` and `remora bench compare`.

Exit codes: 0 measured (or compared); 1 a scenario failed, or `--fail-on worse` found something worse; 2 wrong usage or
a file that cannot be read. A missed target is a result and not a failure.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import comparison, suite, suite_report, tables, wiring
from benchmarks.compiled import DEFAULT, CompiledForm, look_for, told
from benchmarks.host import Machine, this_machine
from benchmarks.matrix import COMPILED, Scenario, Tier, scenarios, select
from benchmarks.processes import PACKAGES
from benchmarks.results import (
    METRICS,
    MachineFacts,
    Results,
    ResultsError,
    RunSettings,
    ScenarioResult,
    dumps,
    loads,
)

SECONDS: Final = 2
"""Of a repetition: 200 of the kernel's ticks, so that CPU is known to half a percent."""
REPETITIONS: Final = 3
_PROCESSES: Final = 2
_STARTS: Final = 5

Tell = Callable[[str], None]
Bounded = Callable[[int, int], Callable[[str], int]]


def add_commands(commands: Any, bounded: Bounded, tell: Tell) -> None:
    """Add both to the subcommands of `remora bench`; their `handle` gives the exit code."""
    text = "the suite: what hops cost beside other proxies, held against the targets (about 5 minutes)"
    command = commands.add_parser("run", help=text, description=text)
    command.add_argument("--full", action="store_true", help="every setup and every load: three quarters of an hour")
    command.add_argument(
        "--only", metavar="PATTERN", action="append", default=[], help="scenarios with this in their name; * and ?"
    )
    command.add_argument("--list", action="store_true", help="name the scenarios and run nothing")
    command.add_argument("--seconds", type=bounded(1, 60), default=SECONDS, help=f"default: {SECONDS}")
    command.add_argument(
        "--repetitions", type=bounded(1, 20), default=REPETITIONS, help=f"rounds (default: {REPETITIONS})"
    )
    add_compiled(command)
    command.add_argument("--output", metavar="FILE.json", type=Path, help="write every repetition to a file, too")
    command.set_defaults(handle=partial(_run, tell=tell))

    text = "tell what got better or worse between two files of `run --output`"
    command = commands.add_parser("compare", help=text, description=text)
    command.add_argument("before", type=Path, metavar="BEFORE.json")
    command.add_argument("after", type=Path, metavar="AFTER.json")
    command.add_argument("--only", metavar="PATTERN", default="", help="scenarios with this in their name")
    command.add_argument(
        "--metric", action="append", choices=comparison.COMPARED, help="figures to compare (default: all)"
    )
    command.add_argument("--relative-to", metavar="CONTENDER", default="", help="compare ratios to this peer instead")
    command.add_argument("--fail-on", choices=("worse",), help="exit with code 1 when a figure is worse")
    command.add_argument(
        "--threshold", type=float, default=1.0, help="by more than this factor, as 1.05 for 5 %% (default: 1)"
    )
    command.set_defaults(handle=partial(_compare, tell=tell))


def add_compiled(command: argparse.ArgumentParser) -> None:
    """Add the option that says where the compiled form is, to a command that measures it."""
    command.add_argument(
        "--compiled",
        metavar="PYTHON",
        type=Path,
        default=DEFAULT,
        help="interpreter of an environment with the compiled form (default: what `make compiled` made)",
    )


# --- run --------------------------------------------------------------------------------------------------------------


def chosen_by(options: argparse.Namespace) -> list[Scenario]:
    """Give the scenarios that the options name, in the order in which they are run."""
    found = scenarios()
    if options.only:
        names = {item.name for pattern in options.only for item in select(found, pattern)}
        return [item for item in found if item.name in names]
    most = Tier.FULL if options.full else Tier.QUICK
    return [item for item in found if item.tier <= most]


def listing(found: Sequence[Scenario]) -> Iterator[str]:
    """Name scenarios with when they are run, one a line."""
    words = {Tier.QUICK: "quick", Tier.FULL: "full", Tier.NAMED: "by name"}
    for item in found:
        yield f"{words[item.tier]:<8}  {item.name}"


def _run(options: argparse.Namespace, *, tell: Tell) -> int:
    # A list without a choice is of everything there is to choose from.
    chosen = chosen_by(options) if options.only or options.full or not options.list else scenarios()
    if not chosen:
        tell(f"no scenario has {' or '.join(options.only)} in its name; --list names them all")
        return 2
    if options.list:
        sys.stdout.write("".join(f"{line}\n" for line in listing(chosen)))
        return 0
    if options.output is not None and not options.output.parent.is_dir():
        tell(f"there is no directory {options.output.parent}")
        return 2
    machine = this_machine(sorted(os.sched_getaffinity(0)))
    plan = suite.Plan(
        seconds=options.seconds,
        repetitions=options.repetitions,
        processes=_PROCESSES,
        starts=_STARTS,
        compiled=look_for(options.compiled),
    )
    with tempfile.TemporaryDirectory(prefix="remora-bench-") as directory:
        outcome = suite.run(chosen, plan, machine, Path(directory), tell)
    mode = "only" if options.only else "full" if options.full else "quick"
    settings = RunSettings(
        mode=mode, seconds=float(options.seconds), repetitions=options.repetitions, only=" ".join(options.only)
    )
    results = results_of(outcome, machine, settings, plan.compiled)
    if options.output is not None:
        options.output.write_text(dumps(results), "utf-8")
    sys.stdout.write(suite_report.as_text(results, partial(tables.render, terminal=sys.stdout.isatty())))
    if options.output is not None:
        tell(f"written: {options.output}")
    return 1 if outcome.failed else 0


def results_of(outcome: suite.Outcome, machine: Machine, settings: RunSettings, compiled: CompiledForm) -> Results:
    """Write down a run with the facts of this machine."""
    measured = tuple(_scenario_result(item) for item in outcome.measured)
    contenders = dict.fromkeys(item.contender for item in measured)
    results = Results(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        remora=_remora_version(),
        machine=facts(machine, {name: version for name in contenders if (version := wiring.version(name))}),
        settings=settings,
        scenarios=measured,
        absent=outcome.absent,
        remora_compiled=compiled.version if COMPILED in contenders else "",
    )
    failed = [f"{name} was not measured: {why}" for name, why in outcome.failed.items()]
    found = (*failed, *machine.warnings(), *suite_report.warnings(results))
    return Results(**{**{name: getattr(results, name) for name in Results.__slots__}, "warnings": found})


def _scenario_result(measured: suite.Measured) -> ScenarioResult:
    load, setup = measured.scenario.load, measured.scenario.setup
    return ScenarioResult(
        name=measured.scenario.name,
        contender=setup.contender,
        protocol="http" if load.kind.http or load.kind.alone else "tcp",
        load=load.kind.value,
        tls="mtls" if setup.tls and setup.sides != "none" else "plain",
        sides=setup.sides,
        rules=setup.rules,
        log=setup.log,
        connections=load.connections,
        payload=load.payload,
        rate=load.rate,
        repetitions=tuple(measured.repetitions),
        denials=measured.denials,
    )


def facts(machine: Machine, peers: dict[str, str]) -> MachineFacts:
    """Say what there is to know of this machine; nothing that names it."""
    total = Path("/proc/meminfo").read_text("ascii").split()[1]
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return MachineFacts(
        processor=machine.processor,
        processors=os.cpu_count() or 1,
        memory_mib=int(total) // 1024,
        kernel=f"{platform.system()} {platform.release()}",
        system=release.get("PRETTY_NAME", platform.system()),
        python=machine.python,
        python_build=machine.build.value,
        python_optimised=machine.build.optimised,
        openssl=machine.openssl,
        proxies_core=machine.cores.proxies,
        others_core=machine.cores.others,
        peers=peers,
    )


def _remora_version() -> str:
    command = [sys.executable, "-m", "remora", "version"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGES, check=True)  # noqa: S603
    return told(said.stdout, sys.executable)


# --- compare ----------------------------------------------------------------------------------------------------------


def _compare(options: argparse.Namespace, *, tell: Tell) -> int:
    try:
        before, after = (_read(path) for path in (options.before, options.after))
    except ResultsError as failure:
        tell(str(failure))
        return 2
    metrics = options.metric or comparison.COMPARED
    found = comparison.compare(before, after, metrics=metrics, relative_to=options.relative_to)
    names = {item.name for item in select(scenarios(), options.only)}
    found = [item for item in found if not options.only or item.scenario in names]
    if not found:
        tell("the two runs have no figure in common that was asked for")
        return 2
    table = comparison.as_table(found, relative_to=options.relative_to)
    sys.stdout.write(tables.render(table, terminal=sys.stdout.isatty()))
    counts = {change: sum(item.change is change for item in found) for change in comparison.Change}
    sys.stdout.write(", ".join(f"{count} {change.value}" for change, count in counts.items()) + "\n")
    worse = [item for item in found if item.is_worse_than(options.threshold)]
    if options.fail_on == "worse" and worse:
        named = ", ".join(f"{METRICS[item.metric].title} of {item.scenario}" for item in worse)
        tell(f"{len(worse)} figures are worse by more than a factor of {options.threshold:g}: {named}")
        return 1
    return 0


def _read(path: Path) -> Results:
    try:
        return loads(path.read_text("utf-8"))
    except OSError as failure:
        raise ResultsError(f"{path} cannot be read: {failure.strerror}") from failure
    except ResultsError as failure:
        raise ResultsError(f"{path}: {failure}") from failure
