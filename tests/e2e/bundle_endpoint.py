"""A bundle endpoint of another trust domain, on loopback: a small TLS server that says what a test wants said."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from handshake_peers import TIMEOUT

from certs.authority import Svid
from certs.testing import MemoryAuthority, Shape

Say = Callable[[bytes], bytes]
"""The head of a request -> the bytes of the answer; b"" lets the caller wait."""


def bundle_answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """An answer with a body; `lines` are further header lines."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def web_certificate(authority: MemoryAuthority, name: str = "localhost") -> Svid:
    """A certificate of the ordinary web: a DNS name, no SPIFFE ID."""
    return authority.shaped(Shape(dns_names=(name.encode("ascii"),), key=f"web {name}"))


class Endpoint:
    """Serves until it is left (`with`); `say` and `show` may be changed at any time."""

    def __init__(
        self, directory: Path, shows: Svid, say: Say, *, tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> None:
        self.say = say
        self.requests: list[bytes] = []
        self.handshakes = 0
        self._directory = directory
        self._tls_version = tls_version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.show(shows)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="bundle endpoint")

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/bundle"

    def show(self, svid: Svid) -> None:
        """Present this certificate from the next connection on."""
        certificate, key = self._directory / f"endpoint-{self.port}.crt", self._directory / f"endpoint-{self.port}.key"
        certificate.write_bytes(svid.chain_pem())
        key.write_bytes(svid.key_pem())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = self._tls_version
        context.load_cert_chain(certificate, key)
        self._context = context

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(TIMEOUT)
                with self._context.wrap_socket(accepted, server_side=True) as secured:
                    self.handshakes += 1
                    self._answer(secured)

    def _answer(self, secured: ssl.SSLSocket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            chunk = secured.recv(65_536)
            if not chunk:
                return
            request += chunk
        self.requests.append(request)
        said = self.say(request)
        secured.sendall(said)
        secured.settimeout(0.05 if said else TIMEOUT)
        with contextlib.suppress(TimeoutError):  # until the caller hangs up, so that no reset eats the answer
            while not self._closing.is_set() and secured.recv(65_536):
                pass


@contextlib.contextmanager
def endpoint(directory: Path, shows: Svid, body: Callable[[], bytes]) -> Iterator[Endpoint]:
    """An endpoint that always answers what `body()` is now."""
    with Endpoint(directory, shows, lambda _: bundle_answer(body())) as serving:
        yield serving


def until(check: Callable[[], object], what: str = "", seconds: float = TIMEOUT) -> None:
    """Wait, in a test without a loop, until `check` gives something true."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come true within {seconds:g} s: {what or check}")
        time.sleep(0.01)
