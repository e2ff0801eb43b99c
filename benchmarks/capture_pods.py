"""Two pods as the kernel has them, without a cluster: network namespaces, a cable between them, sidecars in both.

    pod a  10.0.0.1   wrk, its sidecar          pod b  10.0.0.2   its sidecar, the application (nginx)

Each way of getting traffic into the sidecars has a pair of its own with the same addresses. Needs root.
"""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.configs import CALLED, CALLER
from benchmarks.contenders import application_command, maybe_program
from benchmarks.hops import make_identities
from benchmarks.host import Cores
from benchmarks.processes import PACKAGES, BenchError, Programs, wait_until, write_files
from injector import names

HERE, THERE = "10.0.0.1", "10.0.0.2"
APP, LISTENER = 8080, 9001
"""Where the application is, and where pod a's sidecar listens for it in the mode without rules."""
_PROGRAMS: Final = ("unshare", "nsenter", "setpriv", "ip", "nft", "nginx", "wrk")
_READY: Final = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=5); c.request('GET', '{path}')"
)
_SECONDS: Final = 30.0


class Way(enum.Enum):
    """How what the caller sends gets to the application."""

    DIRECT = "direct"
    """No sidecar and no rule: the cable alone."""
    PORTS = "ports"
    """Sidecars at ports of their own; the caller dials loopback."""
    CAPTURE = "capture"
    """Sidecars, and rules that bring to them what goes to the application's own address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two pods that run. `enter` are the words that start a program in pod a, `pids` the two sidecars' processes."""

    way: Way
    enter: tuple[str, ...]
    host: str
    port: int
    pids: tuple[int, ...]
    logs: tuple[Path, ...]


def check_machine() -> None:
    """Raise BenchError where pods cannot be made."""
    if os.geteuid() != 0:
        raise BenchError("capture makes network namespaces and rules in them: run it as root")
    missing = [name for name in _PROGRAMS if maybe_program(name) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}: apt-get install util-linux iproute2 nftables nginx wrk")


def start(programs: Programs, way: Way, cores: Cores, directory: Path) -> Pair:
    """Make a pair of pods and start what runs in them. Raises BenchError."""
    directory.mkdir()
    a, b = (_namespace(programs, directory, cores.others) for _ in range(2))
    _must("ip", "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
    for pid, address in ((a, HERE), (b, THERE)):
        for words in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
            _must(*_enter(pid), "ip", *words.split())
    _start_application(programs, b, cores.others, directory / "application")
    host, port = ("127.0.0.1", LISTENER) if way is Way.PORTS else (THERE, APP)
    if way is Way.DIRECT:
        return Pair(way=way, enter=_enter(a), host=host, port=port, pids=(), logs=())
    if way is Way.CAPTURE:
        for pid in (a, b):
            _capture(pid)
    identities = make_identities(directory)
    pids, logs = [], []
    for pid, account in ((b, CALLED), (a, CALLER)):
        home = directory / account
        write_files(home, _sidecar(way, account, home, identities[account]))
        # By its group the rules know the sidecar: root in a group of its own reads this checkout wherever it lies.
        own = ("setpriv", f"--regid={names.USER}", "--clear-groups", "--")
        command = [*_enter(pid), *own, *configs.sidecar_command(home)]
        process = programs.launch(command, core=cores.proxies, directory=home)
        _wait(process, pid, names.HEALTH_PORT, "/readyz", home)
        pids.append(process.pid)
        logs.append(home / configs.LOG_FILE)
    return Pair(way=way, enter=_enter(a), host=host, port=port, pids=tuple(pids), logs=tuple(logs))


def _enter(pid: str) -> tuple[str, ...]:
    return ("nsenter", f"--target={pid}", "--net", "--")


def _namespace(programs: Programs, directory: Path, core: int) -> str:
    process = programs.launch(["unshare", "--net", "sleep", "infinity"], core=core, directory=directory)
    ours = os.readlink("/proc/self/ns/net")

    def is_made() -> bool:
        return os.readlink(f"/proc/{process.pid}/ns/net") != ours

    wait_until(is_made, process, "a network namespace", "is not made", directory, pause=0.01)
    return str(process.pid)


def _start_application(programs: Programs, pid: str, core: int, home: Path) -> None:
    text = configs.application(APP, home, as_root=True).replace(f"listen 127.0.0.1:{APP};", f"listen {APP};")
    write_files(home, {"nginx.conf": text})
    nginx = maybe_program("nginx") or ""
    process = programs.launch([*_enter(pid), *application_command(nginx, str(home))], core=core, directory=home)
    _wait(process, pid, APP, "/", home)


def _capture(pid: str) -> None:
    _must(
        *(*_enter(pid), sys.executable, "-m", "remora", "injector", "capture"),
        *("--include-inbound-ports", "*", "--exclude-inbound-ports", str(names.HEALTH_PORT)),
        *("--include-outbound-ip-ranges", "*"),
    )


def _sidecar(way: Way, account: str, home: Path, identity: Path) -> dict[str, str]:
    """Write a sidecar that differs from those of other benchmarks in how traffic comes to it."""
    files = configs.sidecar(home, identity, account=account, health=names.HEALTH_PORT)
    config = json.loads(files[configs.CONFIG_FILE])
    port = {"port": APP, "app": f"127.0.0.1:{APP}", "protocol": "http"}
    service = {"name": CALLED, "protocol": "http", "identities": [configs.CALLED_ID]}
    captures = way is Way.CAPTURE
    if account == CALLED and captures:
        config["inbound"] = {"mode": "capture", "listen": f"[::]:{names.INBOUND_PORT}", "ports": [port]}
    elif account == CALLED:
        config["inbound"] = {"ports": [{"listen": f"[::]:{names.MESH_PORT}", **port}]}
    elif captures:
        listener = {"listen": f"127.0.0.1:{names.OUTBOUND_PORT}", "capture": True}
        config["outbound"] = {"listeners": [listener], "services": [{**service, "addresses": [f"{THERE}:{APP}"]}]}
    else:
        listener = {"listen": f"127.0.0.1:{LISTENER}", "service": CALLED}
        endpoints = [f"{THERE}:{names.MESH_PORT}"]
        config["outbound"] = {"listeners": [listener], "services": [{**service, "endpoints": endpoints}]}
    return {**files, configs.CONFIG_FILE: json.dumps(config, indent=2) + "\n"}


def _wait(process: subprocess.Popen[bytes], pid: str, port: int, path: str, home: Path) -> None:
    asks = f"{_READY.format(port=port, path=path)}; raise SystemExit(c.getresponse().status != 200)"

    def answers() -> bool:
        done = subprocess.run([*_enter(pid), sys.executable, "-c", asks], check=False, capture_output=True)  # noqa: S603
        return done.returncode == 0

    wait_until(answers, process, home.name, f"does not answer on port {port}", home, pause=0.1)


def _must(*words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    done = subprocess.run(  # noqa: S603
        words, check=False, capture_output=True, text=True, timeout=_SECONDS, env=environment
    )
    if done.returncode:
        raise BenchError(f"{' '.join(words[:6])} failed: {(done.stderr or done.stdout).strip()[:300]}")
