"""An authority as a process of its own, its operator at the command line, and callers over real TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Svid
from certs.keys import PrivateKey, generate_key

ROOT = Path(__file__).parents[2]
START, END, ASK = 20.0, 15.0, 15.0
"""Seconds that the service has to serve, to end, and to answer."""

DOMAIN = "cluster.local"
OWN = f"spiffe://{DOMAIN}/ns/remora-system/sa/remora-authority"


def identity(account: str, namespace: str = "demo") -> str:
    """The SPIFFE ID of a ServiceAccount."""
    return f"spiffe://{DOMAIN}/ns/{namespace}/sa/{account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer over TLS; `presented` is the leaf that the authority showed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    presented: x509.Certificate

    @property
    def told(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The word of a refusal."""
        return str(self.told["reason"])


class AuthorityProcess:
    """One directory, and the process that serves it between `start` and `stop`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.directory = base / "ca"
        self.audit_file = base / "audit.log"
        self.log_file = base / "serve.log"
        self.bundle_file = base / "bundle.pem"
        self.environment: dict[str, str] = {}
        """What the process has beside ours."""
        self.enter: tuple[str, ...] = ()
        """The program that starts it in a network of its own (tests/e2e/pod_network.py)."""
        self.listen = "127.0.0.1:0"
        self.verify_flags = 0
        """OpenSSL's flags by which callers judge it, beside the usual ones."""
        self.process: subprocess.Popen[bytes] | None = None
        self.port = self.health_port = 0

    # --- the operator ---

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `remora authority` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "remora", "authority", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def order(self, command: str, *words: str) -> str:
        """Run a command that has to succeed, on our directory; what it says."""
        done = self.run(*command.split(), "--directory", str(self.directory), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, command: str, *words: str) -> str:
        """Run a command that has to fail with one line; what it complains of."""
        done = self.run(*command.split(), "--directory", str(self.directory), *words)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "Traceback" not in done.stderr
        return done.stderr

    def init(self, *words: str) -> None:
        """Make the authority, and write its bundle where callers find it."""
        self.order("init", "--trust-domain", DOMAIN, *words)
        self.bundle_file.write_text(self.order("export bundle", "--form", "pem"))

    def token(self, account: str = "orders") -> str:
        """Make a join token."""
        return self.order("token create", "--identity", identity(account)).strip()

    # --- the process ---

    def start(self, *words: str, loop: str = "uvloop") -> None:
        """Serve on ports that the kernel chooses."""
        with self.log_file.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [
                    *self.enter, sys.executable, "-m", "remora", "authority", "serve",
                    "--directory", str(self.directory), "--listen", self.listen, "--health-listen", "127.0.0.1:0",
                    "--audit-log", str(self.audit_file), "--loop", loop, *words,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )  # fmt: skip
        deadline = time.monotonic() + START
        while True:
            said = self.log_file.read_bytes()[begin:].decode(errors="replace")
            match = re.search(r"ports: signing (\d+), health (\d+)", said)
            if match is not None:
                self.port, self.health_port = int(match[1]), int(match[2])
                return
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def audit(self) -> list[dict[str, Any]]:
        """The audit lines of callers; those of the authority's own certificate are left out."""
        lines = [json.loads(line) for line in self.audit_file.read_text().splitlines()]
        return [line for line in lines if line["remote_address"] != "-"]

    def page(self, path: str) -> tuple[int, str]:
        """Get a page of the health port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=ASK)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    # --- callers ---

    @contextlib.contextmanager
    def connection(self, svid: Svid | None = None) -> Iterator[http.client.HTTPSConnection]:
        """A connection whose server leads to our bundle; with `svid` the caller shows its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # an authority is known by its identity, not by a host name
        context.load_verify_locations(self.bundle_file)
        context.verify_flags |= ssl.VerifyFlags(self.verify_flags)
        context.set_alpn_protocols(["http/1.1"])
        if svid is not None:
            pair = self.base / "client.pem"
            pair.write_bytes(svid.chain_pem() + svid.key_pem())
            context.load_cert_chain(pair)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=ASK, context=context)
        try:
            yield connection
        finally:
            connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        svid: Svid | None = None,
    ) -> Answered:
        """Ask once, by a connection of its own."""
        with self.connection(svid) as connection:
            return exchange(connection, method, path, body, headers)

    def sign(self, key: PrivateKey | None = None, svid: Svid | None = None, **members: object) -> Answered:
        """Ask for a certificate; `members` go into the request beside the CSR."""
        return self.ask("POST", "/v1/sign", sign_body(key or generate_key(), **members), svid=svid)

    def enrol(self, svid: Svid | None = None, **members: object) -> Svid:
        """Get a certificate."""
        key = generate_key()
        answered = self.sign(key, svid, **members)
        assert answered.status == 200, answered.body
        chain = tuple(x509.load_pem_x509_certificates(answered.told["chain"].encode()))
        return Svid(chain=chain, key=key)


def exchange(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    """Ask by a connection that goes on."""
    if connection.sock is None:
        connection.connect()
    sock: Any = connection.sock
    presented = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True))
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    lines = {name.lower(): value for name, value in answer.getheaders()}
    return Answered(status=answer.status, headers=lines, body=answer.read(), presented=presented)


def sign_body(key: PrivateKey, **members: object) -> bytes:
    """The body of a request for a certificate."""
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return json.dumps({"csr": csr.public_bytes(Encoding.PEM).decode(), **members}).encode()


def openssl_verify(base: Path, chain: tuple[x509.Certificate, ...], bundle: str, *words: str) -> str:
    """What `openssl verify -x509_strict` says of a chain: "OK", or its complaint."""
    (base / "verify-leaf.pem").write_bytes(chain[0].public_bytes(Encoding.PEM))
    (base / "verify-chain.pem").write_bytes(b"".join(item.public_bytes(Encoding.PEM) for item in chain[1:]))
    (base / "verify-bundle.pem").write_text(bundle)
    done = subprocess.run(
        [
            "openssl", "verify", "-x509_strict", *words,
            "-CAfile", "verify-bundle.pem", "-untrusted", "verify-chain.pem", "verify-leaf.pem",
        ],
        cwd=base, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return "OK" if done.returncode == 0 else done.stderr + done.stdout


def eventually(check: Any, what: str, seconds: float = ASK) -> Any:
    """Wait until `check` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"it did not come true: {what}"
        time.sleep(0.05)
    return found


def raw_tls(port: int, source: str = "127.0.0.1") -> ssl.SSLSocket:
    """A TLS connection that verifies nobody, for bytes that no client library sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), ASK, (source, 0)))
