"""The command `remora demo`: sets up the mesh, goes through the tour, and stays until somebody ends it.

Exit codes: 0 everything came out as it should (or was ended by Ctrl-C or SIGTERM after the tour), 1 something did not,
or the mesh did not stand, 2 the command line or the directory cannot be used, 130 ended before the tour was over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from demo import authority, edit, revocation, rotation
from demo import screen as draw
from demo.command import MeshError
from demo.inside import AuthorityLogs, SidecarLogs
from demo.layout import WORKLOADS, Layout
from demo.mesh import Mesh, free_base, log_tail
from demo.prepare import DirectoryError, prepare
from demo.records import AccessLogs
from demo.rotation import Rotation
from demo.screen import Screen
from demo.tour import STEPS, Result, Step, walk

_BETWEEN_LOOKS: Final = 0.25
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Run `remora demo` with the words that follow; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="remora demo",
        description="A small mesh on this machine: three workloads, a sidecar beside each, and who may call whom.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="go through the tour and end; 0 when all came out right")
    what.add_argument("--no-tour", action="store_true", help="go straight to the commands to try")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where to put files and logs; kept, with the policies that stand in it (default: a temporary directory)",
    )
    parser.add_argument("--keep", action="store_true", help="do not remove the temporary directory at the end")
    options = parser.parse_args(argv)
    screen = screen_of(sys.stdout, os.environ)
    try:
        with _ended_by_signals(), _directory(options.directory, keep=options.keep) as directory:
            kept = options.keep or options.directory is not None
            return _run(screen, directory, tour=not options.no_tour, once=options.once, kept=kept)
    except DirectoryError as failure:
        return _refuse(str(failure), 2)
    except MeshError as failure:
        return _refuse(str(failure), 1)
    except BrokenPipeError:
        raise  # who read our output went away: that is for the command to end with
    except OSError as failure:
        return _refuse(f"{failure.filename or 'a file'}: {failure.strerror}", 2)


def screen_of(output: TextIO, environment: Mapping[str, str]) -> Screen:
    """Find out what the terminal can show: colours only on one that has them, and not against NO_COLOR."""
    columns = shutil.get_terminal_size((draw.WIDEST, 24)).columns
    is_terminal = output.isatty() and environment.get("TERM") != "dumb"
    return Screen(
        width=min(max(columns, draw.NARROWEST), draw.WIDEST),
        colour=is_terminal and not environment.get("NO_COLOR"),
        unicode=(output.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32"),
    )


def _run(screen: Screen, directory: Path, *, tour: bool, once: bool, kept: bool) -> int:
    layout = Layout(directory=directory, base=free_base())
    shipped = prepare(layout)
    _show(screen, [screen.paint("Remora: a small mesh on this machine", draw.BOLD)])
    with Mesh(layout, authority.BRIEF if tour else authority.LONGER) as mesh:
        processes = f"{len(mesh.processes)} processes, ready after {mesh.ready_after:.1f} s, in {directory}"
        _show(screen, screen.wrapped(processes, "", draw.DIM))
        _show(screen, draw.topology(screen, layout, shipped_policies=shipped))
        audit = authority.audit_lines(layout)
        _show(screen, draw.identities(screen, layout, authority.roots(layout), audit, mesh.lifetime))
        logs = AccessLogs(layout)
        code = 0
        if tour:
            code = exit_code(_tour(screen, layout, logs))
            mesh.check()
        if code:
            _show_logs(screen, layout)
        _show(screen, draw.places(screen, layout, logs.counts, kept=kept))
        if not once:
            if mesh.lifetime != authority.LONGER:
                mesh.serve_anew(authority.LONGER)
            _show(screen, draw.commands(screen, layout, _command()))
            _stay(screen, layout, mesh, logs)
    rest = f"; the files stay in {directory}" if kept else ", no file either"
    _show(screen, ["", f"ended: no process is left{rest}"])
    return code


def exit_code(results: Sequence[Result | Rotation]) -> int:
    """Give 0 for a tour of which every step came out as it should."""
    return 0 if results and not any(result.faults for result in results) else 1


def _tour(screen: Screen, layout: Layout, logs: AccessLogs) -> list[Result | Rotation]:
    _show(screen, screen.title("The tour (identities without spiffe://cluster.local/)"))
    results: list[Result | Rotation] = []

    def show_steps(steps: Sequence[Step]) -> None:
        for result in walk(layout, logs, steps):
            results.append(result)
            _show(screen, draw.step(screen, len(results), result, layout))

    show_steps(STEPS)
    _show(screen, draw.heading(screen, len(results) + 1, rotation.OUTCOME, rotation.STORY, draw.GREEN))
    rotated = rotation.rotate(layout, logs, lambda label, text: _show(screen, screen.labelled(label, text)))
    results.append(rotated)
    _show(screen, draw.faults(screen, rotated.faults))
    with edit.undone(layout):
        show_steps(edit.STEPS)
    show_steps(revocation.STEPS)
    _show(screen, draw.verdict(screen, results))
    return results


def _stay(screen: Screen, layout: Layout, mesh: Mesh, logs: AccessLogs) -> None:
    """Show what happens in the mesh until a signal ends it. Raises MeshError when a process ends by itself."""
    _show(screen, ["", screen.paint("What you do shows up here. Ctrl-C ends the mesh.", draw.BOLD)])
    inside, certified = SidecarLogs(layout), AuthorityLogs(layout)
    try:
        while True:
            mesh.check()
            said = inside.news(time.monotonic()) | {text: ["authority"] for text in certified.news()}
            _show(screen, draw.news(screen, said, layout, time.strftime("%H:%M:%S")))
            for access in logs.new_verdicts():
                _show(screen, draw.live(screen, access, layout, time.strftime("%H:%M:%S")))
            time.sleep(_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        return


def _show(screen: Screen, lines: Sequence[str]) -> None:
    for line in lines:
        print(screen.encode(line))
    sys.stdout.flush()


def _show_logs(screen: Screen, layout: Layout) -> None:
    logs = [layout.authority_log, layout.batch_log]
    for workload in WORKLOADS:
        logs += [layout.sidecar_log(workload), layout.application_log(workload), layout.access_log(workload)]
    for log in logs:
        _show(screen, [*screen.title(layout.short(str(log))), *log_tail(log).splitlines()])


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"remora demo: {message}\n")
    return code


def _command() -> str:
    """Write the command as it can be called from where the reader is."""
    if shutil.which("remora"):
        return "remora"
    beside = Path(sys.executable).with_name("remora")
    return str(beside) if beside.exists() else f"{sys.executable} -m remora"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn the first signal that ends a program into KeyboardInterrupt, and ignore those that come while it ends."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _directory(chosen: Path | None, *, keep: bool) -> Iterator[Path]:
    if chosen is not None:
        yield chosen.expanduser().absolute()
        return
    directory = Path(tempfile.mkdtemp(prefix="remora-demo-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
