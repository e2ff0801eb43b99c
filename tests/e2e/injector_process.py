"""The webhook as a process of its own, with a certificate as a cluster has it, and API servers that call it."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from certs.memory import MemoryAuthority
from injector import certificate, names

ROOT = Path(__file__).parents[2]
START, END, ASK = 20.0, 15.0, 15.0
"""Seconds that the process has to serve, to end, and to answer."""
HOST = f"{names.INJECTOR}.{names.NAMESPACE}.svc"


class InjectorProcess:
    """Directories of one webhook, and the process that serves between `start` and `stop`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tls = base / "tls"
        self.tls.mkdir()
        self.defaults = base / "defaults.yaml"
        self.bundle = base / "bundle.pem"
        self.audit_file = base / "audit.log"
        self.log_file = base / "serve.log"
        self.ca = b""
        self.process: subprocess.Popen[bytes] | None = None
        self.port = self.health_port = 0

    def issue(self) -> None:
        """Write a certificate of a new authority, which callers believe beside the old ones."""
        step = certificate.advance({}, (HOST,), datetime.datetime.now(datetime.UTC))
        assert step is not None
        self.ca += certificate.ca_bundle(step.files)
        for name in ("tls.key", "tls.crt"):
            fresh = self.tls / f".{name}.new"
            fresh.write_bytes(step.files[name])
            fresh.chmod(0o600)
            fresh.replace(self.tls / name)

    def mount(self, defaults: str = "image: remora:0.1.0\n") -> list[str]:
        """Write defaults and trust bundle, and give the arguments that name them."""
        self.defaults.write_text(defaults)
        self.bundle.write_bytes(MemoryAuthority().bundle.to_pem())
        return self.mounted

    @property
    def mounted(self) -> list[str]:
        """The arguments that name what is mounted."""
        return ["--config", str(self.defaults), "--trust-bundle", str(self.bundle)]

    def launch(self, *words: str, loop: str = "uvloop") -> None:
        """Start the process on ports that the kernel chooses, and wait until the health port is open."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "remora", "injector", "serve", "--listen", "127.0.0.1:0",
                    "--tls-directory", str(self.tls), "--health-listen", "127.0.0.1:0",
                    "--audit-log", str(self.audit_file), "--loop", loop, "--drain", "0s", *words,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self.health_port = int(self.said(r"the health port is (\d+)")[1])

    def start(self, *words: str, loop: str = "uvloop") -> None:
        """Start the process and wait until it serves."""
        self.launch(*words, loop=loop)
        self.port = int(self.said(r"serving; ports: health \d+, webhook (\d+)")[1])

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until the log has a line."""

        def found() -> re.Match[str] | None:
            text = self.log_file.read_text(errors="replace")
            match = re.search(pattern, text)
            assert match or self.process is None or self.process.poll() is None, text
            return match

        match = eventually(found, pattern)
        assert isinstance(match, re.Match)
        return match

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process; its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until the process has ended; its exit code."""
        process, self.process = self.process, None
        assert process is not None
        try:
            return process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def audit(self) -> list[dict[str, Any]]:
        """The audit lines."""
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    def page(self, path: str) -> tuple[int, str]:
        """Get a page of the health port."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=ASK)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    @contextlib.contextmanager
    def api_server(self) -> Iterator[ApiServer]:
        """A caller with one connection that is kept."""
        caller = ApiServer(self)
        try:
            yield caller
        finally:
            caller.close()


class ApiServer:
    """Calls the webhook as API servers do: by the name of the Service, believing the caBundle and nothing else."""

    def __init__(self, injector: InjectorProcess) -> None:
        self._injector = injector
        self._connection: http.client.HTTPConnection | None = None

    def post(
        self, body: bytes, path: str = "/inject?timeout=5s", content_type: str | None = "application/json"
    ) -> tuple[int, bytes]:
        """Post a review; status and body of the answer. The connection is kept where the webhook keeps it."""
        connection = self.opened()
        headers = {} if content_type is None else {"content-type": content_type}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.getheader("connection") == "close":
            self.close()
        return answer.status, content

    @property
    def is_open(self) -> bool:
        """Whether the connection was kept."""
        return self._connection is not None

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def opened(self) -> http.client.HTTPConnection:
        """The connection, made if there is none."""
        if self._connection is None:
            self._connection = _Known("127.0.0.1", self._injector.port, self._injector.ca.decode())
            self._connection.connect()
        return self._connection


class _Known(http.client.HTTPConnection):
    """A connection to an address, to whom has the certificate for the Service's name."""

    def __init__(self, address: str, port: int, ca: str) -> None:
        super().__init__(address, port, timeout=ASK)
        self._context = ssl.create_default_context(cadata=ca)

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=HOST)


def eventually(check: Any, what: str, seconds: float = START) -> Any:
    """Wait until `check` gives something true."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"it never came to: {what}"
        time.sleep(0.02)
