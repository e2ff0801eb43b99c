"""Asks a bundle endpoint once, on a thread: connect, verify, GET, follow redirects, within one deadline.

    https_web      roots of the system or of a file; the certificate must name the host of the URL (RFC 6125)
    https_spiffe   roots of one bundle alone; the certificate must be the SVID of the configured SPIFFE ID

What holds:

1. Not a byte of the request goes to a server that has not proved itself, at each hop of a redirect anew.
2. The deadline is whole, from the look-up of the first name to the last byte, redirects included. A name server that
   hangs is the one thing that it cannot cut off; the thread waits there and nobody waits for the thread.
3. `abort` may be called from anywhere at any time, and ends whatever is waited for on the network.

No proxy of the environment, no cookie, no compression, no client certificate (SPIFFE Federation section 5.2).
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import MAX_BUNDLE_BYTES, TrustBundle
from certs.bundle_feed import CONTENT_TYPE, BundleEndpoint, EndpointProfile, FeedError
from certs.federation import endpoint_fault, redirected

REDIRECTS: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an endpoint answered: a document, or that it is still the one of the entity tag (`body` None)."""

    body: bytes | None = field(repr=False)
    etag: str = ""


class Poll:
    """One question to one endpoint. `run` once, on a thread; `abort` from anywhere."""

    def __init__(
        self,
        endpoint: BundleEndpoint,
        verifying_bundle: TrustBundle | None,
        *,
        etag: str,
        seconds: float,
        ca_file: str = "",
    ) -> None:
        """`verifying_bundle` is the relationship's; `ca_file` holds roots for https_web, "" means those of the system.

        `etag` is sent along, "" for none; `seconds` are left from now.
        """
        self._endpoint = endpoint
        self._bundle = verifying_bundle
        self._etag = etag
        self._ca_file = ca_file
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def run(self) -> Answer:
        """Ask, and follow redirects. Raises FeedError."""
        try:
            context = self._context()
            url, hops = self._endpoint.url, 0
            while True:
                answered = self._ask(context, url)
                if isinstance(answered, Answer):
                    return answered
                hops += 1
                url = redirected(self._endpoint, url, answered[0], hops)
        except ssl.SSLCertVerificationError as failure:
            raise FeedError(f"{self._endpoint.url}: {self._unverified(failure)}") from failure
        except TimeoutError as failure:
            why = "the poll was ended" if self._aborted else f"there was no whole answer within {self._seconds:g} s"
            raise FeedError(f"{self._endpoint.url}: {why}") from failure
        except OSError as failure:
            raise FeedError(f"{self._endpoint.url}: the connection failed: {_words(failure)}") from failure
        except (http.client.HTTPException, UnicodeError, ValueError) as failure:
            if isinstance(failure, FeedError):
                raise
            raise FeedError(f"{self._endpoint.url}: the answer is not HTTP, or the host no name") from failure

    def abort(self) -> None:
        """End it now: `run` raises."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Past the TLS layer, which must not be touched while the other thread is inside it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    # --- who answers ---

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Mozilla's "intermediate", as the standard asks: foreign endpoints may be older than our own mesh.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        if self._endpoint.profile is EndpointProfile.HTTPS_WEB:
            self._load_web_roots(context)
            return context
        bundle = self._bundle
        if bundle is None or not bundle.certificates:
            raise FeedError(
                f"{self._endpoint.url}: the bundle that its server must be verified by is empty, so nobody can be; "
                "bring a new bootstrap bundle and write it to bundle_file"
            )
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_verify_locations(
            cadata="".join(root.public_bytes(Encoding.PEM).decode("ascii") for root in bundle.certificates)
        )
        return context

    def _load_web_roots(self, context: ssl.SSLContext) -> None:
        if not self._ca_file:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            return
        try:
            context.load_verify_locations(cadata=Path(self._ca_file).read_text("ascii"))
        except (OSError, ValueError) as failure:  # ssl.SSLError is an OSError
            raise FeedError(
                f"{self._ca_file}: no certificates can be read from it ({_words(failure)}); write roots as PEM there"
            ) from failure

    def _unverified(self, failure: ssl.SSLCertVerificationError) -> str:
        why = failure.verify_message
        if self._endpoint.profile is EndpointProfile.HTTPS_WEB:
            return f"the server's certificate is not valid: {why}; a private authority is trusted by ca_file"
        domain = self._bundle.trust_domain if self._bundle is not None else self._endpoint.trust_domain
        return (
            f"the server's certificate leads to no root of {domain} that is held ({why}); if its roots were replaced "
            "while we were away, bring its bundle again and write it to bundle_file"
        )

    # --- one hop ---

    def _ask(self, context: ssl.SSLContext, url: str) -> Answer | tuple[str | None]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        raw = self._connect(host, port)
        try:
            secured = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            self._hold(None)
            raw.close()
            raise
        try:
            self._hold(secured)
            secured.settimeout(self._left())
            secured.do_handshake()
            self._judge(secured)
            resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            lines = [
                f"GET {resource} HTTP/1.1",
                f"Host: {parts.netloc}",
                f"Accept: {CONTENT_TYPE}",
                "Accept-Encoding: identity",
                "User-Agent: remora",
                "Connection: close",
            ]
            if self._etag:
                lines.append(f"If-None-Match: {self._etag}")
            secured.settimeout(self._left())
            secured.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))
            return self._answer(secured)
        finally:
            self._hold(None)
            secured.close()

    def _connect(self, host: str, port: int) -> socket.socket:
        problem: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            raw = socket.socket(family, kind, protocol)
            try:
                self._hold(raw)
                raw.settimeout(self._left())
                raw.connect(address)
            except OSError as failure:
                self._hold(None)
                raw.close()
                problem = failure
            else:
                return raw
        raise problem

    def _judge(self, secured: ssl.SSLSocket) -> None:
        if self._endpoint.profile is EndpointProfile.HTTPS_WEB:
            return
        der = secured.getpeercert(binary_form=True)
        if der is None:
            raise FeedError(f"{self._endpoint.url}: the server showed no certificate")
        try:
            fault = endpoint_fault(self._endpoint, x509.load_der_x509_certificate(der))
        except (ValueError, x509.InvalidVersion):
            fault = "the server's certificate cannot be read"
        if fault is not None:
            raise FeedError(f"{self._endpoint.url}: {fault}")

    def _answer(self, secured: ssl.SSLSocket) -> Answer | tuple[str | None]:
        response = http.client.HTTPResponse(_Deadlined(secured, self._left), method="GET")  # type: ignore[arg-type]
        try:
            response.begin()
            if response.status in REDIRECTS:
                return (response.getheader("location"),)
            if response.status == 304 and self._etag:
                return Answer(body=None, etag=self._etag)
            return Answer(body=self._body(response), etag=response.getheader("etag", ""))
        finally:
            response.close()

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        url = self._endpoint.url
        if response.status != 200:
            raise FeedError(f"{url}: it answered {response.status}, and a bundle comes with 200; tell who runs it")
        if response.getheader("content-encoding", "identity").lower() != "identity":
            raise FeedError(f"{url}: the answer is compressed although nobody asked for it; tell who runs it")
        body = response.read(MAX_BUNDLE_BYTES + 1)
        if len(body) > MAX_BUNDLE_BYTES:
            raise FeedError(f"{url}: the answer is larger than {MAX_BUNDLE_BYTES} bytes; no bundle is")
        if response.length:
            raise FeedError(f"{url}: the answer broke off; it is asked again at the next interval")
        return body

    def _hold(self, sock: socket.socket | None) -> None:
        """Let `abort` reach this socket from now on; called with None before it is closed, and with the lock free."""
        with self._lock:
            self._socket = sock
            if self._aborted and sock is not None:
                raise TimeoutError

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0 or self._aborted:
            raise TimeoutError
        return left


class _Deadlined:
    """A socket as `HTTPResponse` reads it, each read within what is left of the whole deadline."""

    def __init__(self, secured: ssl.SSLSocket, left: Callable[[], float]) -> None:
        self._stream = _Stream(secured, left)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._stream)


class _Stream(io.RawIOBase):
    def __init__(self, secured: ssl.SSLSocket, left: Callable[[], float]) -> None:
        super().__init__()
        self._secured = secured
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._secured.settimeout(self._left())
        return self._secured.recv_into(buffer)


def _words(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or getattr(failure, "reason", None) or str(failure)
