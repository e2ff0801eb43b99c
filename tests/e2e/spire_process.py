"""A real SPIRE server and agent on loopback, their entries written by the server's own command.

SPIRE is no Debian package and no wheel: its programs are looked for in REMORA_SPIRE_BIN and on the path, and where
there are none the tests that want them are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mesh import free_port, identity

from certs.bundle import TrustBundle

START, END = 20.0, 10.0
TTL = 20
"""Seconds of a certificate. SPIRE back-dates by 10 s, so an agent renews one about 5 s after it came."""
_NODE = "spiffe://cluster.local/node"
_SERVER = """
server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{base}/server.sock"
    trust_domain = "cluster.local"
    data_dir = "{base}/server"
    ca_ttl = "1h"
    default_x509_svid_ttl = "{ttl}s"
    default_jwt_svid_ttl = "1m"
    agent_ttl = "10m"
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{ database_type = "sqlite3" connection_string = "{base}/server/entries.sqlite3" }}
    }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
    data_dir = "{base}/agent"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{base}/agent.sock"
    trust_domain = "cluster.local"
    trust_bundle_path = "{base}/bootstrap.pem"
    join_token = "{token}"
    experimental {{ sync_interval = "1s" }}
}}
plugins {{
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ directory = "{base}/agent" }} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


def program(name: str) -> str:
    """The path of one of SPIRE's programs; without it the test is skipped."""
    where = os.environ.get("REMORA_SPIRE_BIN", "")
    found = shutil.which(name, path=f"{where}{os.pathsep}{os.environ['PATH']}" if where else None)
    if found is None:
        pytest.skip(f"{name} IS NOT INSTALLED: nothing here is shown against a real agent; set REMORA_SPIRE_BIN")
    return found


class Spire:
    """One server and one agent that vouches for whoever runs as our user."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.socket = base / "agent.sock"
        self._programs = {name: program(f"spire-{name}") for name in ("server", "agent")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._entries: set[str] = set()
        self._places = {"base": str(base), "port": str(free_port()), "ttl": str(TTL)}
        for name in self._programs:
            (base / name).mkdir()

    def __enter__(self) -> Spire:
        try:
            self._start("server", _SERVER, "server.sock")
            (self.base / "bootstrap.pem").write_text(self.order("bundle", "show"))
            self._places["token"] = self.told("token", "generate", "-spiffeID", _NODE)["value"]
            self.start_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("agent", "server"):
            self._stop(name)

    def start_agent(self) -> None:
        """Start the agent; a second time it comes with the identity that it kept."""
        self._start("agent", _AGENT, "agent.sock")

    def stop_agent(self) -> None:
        """End the agent."""
        self._stop("agent")

    def order(self, *words: str) -> str:
        """Run a command of the server that has to succeed; what it says."""
        done = subprocess.run(
            [self._programs["server"], *words[:2], "-socketPath", f"{self.base}/server.sock", *words[2:]],
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told(self, *words: str) -> Any:
        """Run a command of the server; what it says as JSON."""
        return json.loads(self.order(*words, "-output", "json"))

    def enter(self, account: str, *federated: str) -> str:
        """Register a workload of our user; the id of its entry."""
        words = [word for domain in federated for word in ("-federatesWith", f"spiffe://{domain}")]
        said = self.told(
            "entry", "create", "-parentID", _NODE, "-spiffeID", identity(account),
            "-selector", f"unix:uid:{os.geteuid()}", "-x509SVIDTTL", str(TTL), *words,
        )  # fmt: skip
        entry = str(said["results"][0]["entry"]["id"])
        self._entries.add(entry)
        return entry

    def strike(self, *entries: str) -> None:
        """Delete entries; without any, all that were entered."""
        for entry in entries or tuple(self._entries):
            self.order("entry", "delete", "-entryID", entry)
            self._entries.remove(entry)

    def federate(self, bundle: TrustBundle) -> None:
        """Give the server the bundle of another trust domain, or a newer one."""
        file = self.base / "other.json"
        file.write_bytes(bundle.to_jwks())
        self.order("bundle", "set", "-id", f"spiffe://{bundle.trust_domain}", "-path", str(file), "-format", "spiffe")

    def _start(self, name: str, template: str, waits_for: str) -> None:
        config = self.base / f"{name}.conf"
        config.write_text(template.format(**self._places))
        log = self.base / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self._programs[name], "run", "-config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes[name] = process
        deadline = time.monotonic() + START
        while not (self.base / waits_for).exists():
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
