"""`remora proxy wait` and `drain`: what a pod's hooks call, over the admin listener of its own sidecar.

wait     until the sidecar is ready: the kubelet starts the next container when this has ended
drain    peers are turned to others: not ready, then no new connection, until what runs has ended
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Final

from proxy.config import Address
from proxy.config_text import TextError, parse_duration
from proxy.constants import DEFAULT_ADMIN

BETWEEN: Final = 0.2
"""Seconds between two looks. A start takes 0.2 s; a look costs a millisecond."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `wait` and `drain` to the parser of `remora proxy`."""
    for name, text, run, usual in (
        ("wait", "wait until the sidecar is ready", wait, "60s"),
        ("drain", "let peers go elsewhere and wait until what runs has ended", drain, "20s"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--admin",
            type=_admin,
            default=DEFAULT_ADMIN,
            metavar="ADDRESS",
            help=f"default: {DEFAULT_ADMIN}",
        )
        command.add_argument(
            "--timeout", type=_seconds, default=_seconds(usual), metavar="TIME", help=f"at most (default: {usual})"
        )
        if name == "drain":
            command.add_argument(
                "--delay",
                type=_seconds,
                default=0.0,
                metavar="TIME",
                help="go on as before for so long: until everybody knows that this pod ends (default: 0s)",
            )
        command.set_defaults(run=run)


def wait(options: argparse.Namespace) -> int:
    """Wait until the sidecar is ready; 1 when it is not in time."""
    from proxy.admin_client import AdminError, ask_admin  # with http.client a megabyte, which `run` does without

    last = "it was not asked"

    def is_ready() -> bool:
        nonlocal last
        try:
            answer = ask_admin(options.admin, "/readyz")
        except AdminError as failure:
            last = str(failure)
            return False
        last = answer.body.decode("utf-8", "replace").strip()
        return answer.status == 200

    if _until(is_ready, options.timeout):
        return 0
    sys.stderr.write(f"remora proxy wait: the sidecar is not ready after {options.timeout:g} s: {last}\n")
    return 1


def drain(options: argparse.Namespace) -> int:
    """Drain inbound connections; 0 when none is left, 1 when some are at the end, or nobody answers."""
    from proxy.admin_client import AdminError, ask_admin

    time.sleep(options.delay)
    left = 0

    def is_empty() -> bool:
        nonlocal left
        left = _open_inbound(options.admin)
        return left == 0

    try:
        answer = ask_admin(options.admin, "/drain", act=True)
        if answer.status != 200:
            said = answer.body.decode("utf-8", "replace").strip()
            sys.stderr.write(f"remora proxy drain: the sidecar does not drain: {answer.status} {said}\n")
            return 1
        if _until(is_empty, options.timeout):
            return 0
    except AdminError as failure:
        sys.stderr.write(f"remora proxy drain: {failure}\n")
        return 1
    sys.stderr.write(f"remora proxy drain: {left} inbound connections are left after {options.timeout:g} s\n")
    return 1


def _open_inbound(admin: Address | str) -> int:
    from proxy.admin_client import AdminError, ask_admin

    answer = ask_admin(admin, "/connections?format=json")
    try:
        rows = json.loads(answer.body)["connections"]
        return sum(1 for row in rows if row["direction"] == "inbound")
    except (ValueError, KeyError, TypeError) as failure:
        raise AdminError("the answer names no connections; use a sidecar of the same version") from failure


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(BETWEEN)
    return True


def _admin(text: str) -> Address | str:
    from proxy.admin_client import parse_admin

    try:
        return parse_admin(text)
    except TextError as fault:
        raise argparse.ArgumentTypeError(f"{fault}; {fault.hint}") from None


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except TextError as fault:
        raise argparse.ArgumentTypeError(f"{fault}; {fault.hint}") from None
