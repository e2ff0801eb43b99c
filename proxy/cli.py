"""The commands `remora proxy run` and `remora proxy check`, and `worker`, by which a supervisor begins a worker.

Exit codes: 0 done, 1 cannot start, 2 something is wrong with the files that were given, each fault on a line.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from proxy.app import StartError, run
from proxy.commands import add_commands
from proxy.config import Config, load_config
from proxy.config_read import ConfigReader
from proxy.errors import ConfigError, Fault
from proxy.material import (
    compile_policy,
    identity_of,
    is_file,
    judge_identity,
    name_of_source,
    read_identity,
    read_policy,
)
from proxy.types import Generation

_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_DATE: Final = "%Y-%m-%dT%H:%M:%S"


def main(argv: Sequence[str]) -> int:
    """Run the command given by `argv`, the words after `remora proxy`; return the exit code."""
    parser = argparse.ArgumentParser(prog="remora proxy", description="The sidecar.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run the sidecar until SIGTERM or Ctrl-C"),
        ("check", "check the configuration file and everything it points at"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", required=True, metavar="FILE", help="the configuration file (YAML)")
        if name == "run":
            command.add_argument(
                "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="default: info"
            )
    add_commands(commands)
    worker = commands.add_parser("worker")  # no help: nobody calls it by hand
    worker.add_argument("--channel", required=True, type=int)
    worker.add_argument("--number", required=True, type=int)
    worker.add_argument("--loop", required=True, choices=("uvloop", "asyncio"))
    worker.add_argument("--log-level", required=True)
    options = parser.parse_args(argv)
    if options.command in ("wait", "drain"):
        run_command: Callable[[argparse.Namespace], int] = options.run
        return run_command(options)
    if options.command == "worker":
        return _work(options.channel, options.number, options.loop, options.log_level)
    try:
        data, config = _load(options.config, must_be_whole=options.command == "check")
    except ConfigError as failure:
        return _report(failure.faults)
    return _check(config) if options.command == "check" else _run(config, options.config, data, options.log_level)


def read_config(file: str) -> Config:
    """Read and check the configuration file. Raises ConfigError with every fault."""
    return load_config(ConfigReader(file).read().pack(), file)


def _load(file: str, *, must_be_whole: bool) -> tuple[bytes, Config]:
    """Read the configuration as far as a sidecar needs it to begin, or all of it. Raises ConfigError."""
    reader = ConfigReader(file)
    if must_be_whole:
        data = reader.read().pack()
        return data, load_config(data, file)
    files = reader.read_to_begin()
    try:
        return files.pack(), load_config(files.pack(), file)
    except ConfigError:
        # Mounted services that are broken keep it alive and unready, as policies do; anything else ends it here.
        data = dataclasses.replace(files, services=None).pack()
        return data, load_config(data, file)


def _report(faults: Sequence[Fault]) -> int:
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 2


def _check(config: Config) -> int:
    """Judge what the file points at; warnings are shown and change nothing. Nobody is asked for anything."""
    faults = _check_identity(config)
    try:
        policy = compile_policy(config, read_policy(config), Generation(1))
    except ConfigError as failure:
        faults += failure.faults
    else:
        for warning in policy.warnings:
            sys.stderr.write(f"warning: {warning}\n")
        rules = len(policy.allow_rules)
        sys.stdout.write(f"policy    default {policy.default.value}; {rules} ALLOW rules select this workload\n")
    if faults:
        return _report(faults)
    captured = (
        "" if config.inbound_capture is None else f" with settings, every port captured at {config.inbound_capture}"
    )
    sys.stdout.write(
        f"inbound   {len(config.inbound)} ports{captured}\n"
        f"outbound  {len(config.outbound.listeners)} listeners, {len(config.outbound.services)} services\n"
        "ok\n"
    )
    return 0


def _check_identity(config: Config) -> list[Fault]:
    """Judge identity and bundles where they are files, and look at what else is pointed at; give what is wrong."""
    from proxy.enrolment.inspection import inspect_federation, inspect_source  # a running sidecar needs none of it

    faults: list[Fault] = []
    if is_file(config):
        try:
            tls = judge_identity(config, read_identity(config), Generation(1), time.time())
        except ConfigError as failure:
            faults += failure.faults
        else:
            left = (tls.identity_set.not_after - time.time()) / 3600
            sys.stdout.write(f"identity  {tls.identity_set.spiffe_id}, valid for {left:.1f} h\n")
    else:
        sys.stdout.write(f"identity  {identity_of(config)}, asked of {name_of_source(config)} by a running sidecar\n")
        found, warnings = inspect_source(config, time.time())
        faults += found
        for warning in warnings:
            sys.stderr.write(f"warning: {warning}\n")
    if config.federation:
        faults += inspect_federation(config, time.time())
        sys.stdout.write(f"federation {len(config.federation)} trust domains\n")
    return faults


def _run(config: Config, file: str, data: bytes, level: str) -> int:
    _log_to_stderr(level, _FORMAT)
    try:
        with asyncio.Runner(loop_factory=_loop_factory(config.runtime.loop)) as runner:
            if config.runtime.workers == 1:
                runner.run(run(config, file))
            else:
                from proxy.workers.supervisor import supervise  # one process does without, and its memory

                runner.run(supervise(config, file, data))
    except StartError as failure:
        sys.stderr.write(f"remora: {failure}\n")
        return 1
    except ConfigError as failure:  # it asks for what is not installed
        return _report(failure.faults)
    return 0


def _work(channel: int, number: int, loop: str, level: str) -> int:
    from proxy.workers.worker import run_worker

    os.set_inheritable(channel, False)
    _log_to_stderr(level, _FORMAT.replace("%(message)s", f"worker {number}: %(message)s"))
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        return runner.run(run_worker(socket.socket(fileno=channel)))


def _log_to_stderr(level: str, form: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format=form, datefmt=_DATE)
    logging.Formatter.converter = time.gmtime


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop
