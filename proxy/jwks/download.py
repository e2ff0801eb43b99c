"""One download of a key set, on a thread: from an address that was judged before to the bytes of the answer.

    run (in a thread):    connect -> TLS -> GET -> status, headers, body -> bytes
    abort (on the loop):  shuts the socket down, which ends whatever `run` waits for

What holds:

1. The connection goes to one of the addresses given. Nothing is looked up here, so nothing can be looked up anew.
2. The deadline is whole: a server that feeds a byte now and then is cut off by `abort` all the same.
3. A descriptor is closed only by the thread, and never while `abort` holds the lock: it cannot become another's.

No proxy of the environment, no redirect, no cookie, no compression. Roots are the system's; `SSL_CERT_FILE` and
`SSL_CERT_DIR` name others, which is how an issuer with a private authority is trusted.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from proxy.jwks.target import FetchError, Target

BODY_LIMIT: Final = 1_048_576
"""Bytes of a key set. A key takes 0.5 to 2 KiB and an issuer has a handful; Envoy's default limit is the same."""


class Download:
    """One GET. `run` once, on a thread; `abort` from anywhere, at any time."""

    def __init__(self, target: Target, addresses: Sequence[tuple[Any, ...]], *, seconds: float) -> None:
        """`addresses` are rows of `getaddrinfo`, all of them judged; `seconds` are left from now."""
        self._target = target
        self._addresses = addresses
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def run(self) -> bytes:
        """Give the body of the answer. Raises FetchError."""
        try:
            return self._ask(self._connect())
        except ssl.SSLCertVerificationError as failure:
            raise FetchError(
                f"the certificate of {self._target.host} is not valid: {failure.verify_message}; a private authority "
                "is trusted by SSL_CERT_FILE"
            ) from failure
        except TimeoutError as failure:
            raise FetchError("it did not answer in time") from failure
        except OSError as failure:
            raise FetchError(f"the connection failed: {failure.strerror or failure}") from failure
        except (http.client.HTTPException, ValueError) as failure:
            raise FetchError(f"the answer is not HTTP, or the host no name: {failure!r}") from failure
        finally:
            with self._lock:
                if self._socket is not None:
                    self._socket.close()

    def abort(self) -> None:
        """End it now: `run` raises."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Past the TLS layer, which must not be touched while the other thread is inside it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _connect(self) -> socket.socket:
        problem: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in self._addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                self._hold(sock)
                sock.settimeout(self._left())
                sock.connect(address)
            except OSError as failure:
                problem = failure
                continue
            return self._secured(sock) if self._target.secure else sock
        raise problem

    def _secured(self, sock: socket.socket) -> socket.socket:
        context = ssl.create_default_context()
        wrapped = context.wrap_socket(sock, server_hostname=self._target.host, do_handshake_on_connect=False)
        self._hold(wrapped)
        wrapped.settimeout(self._left())
        wrapped.do_handshake()
        return wrapped

    def _ask(self, sock: socket.socket) -> bytes:
        sock.settimeout(self._left())
        lines = (
            f"GET {self._target.resource} HTTP/1.1",
            f"Host: {self._target.authority}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "User-Agent: remora",
            "Connection: close",
        )
        sock.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))
        response = http.client.HTTPResponse(sock, method="GET")
        try:
            response.begin()
            return _body(response)
        finally:
            response.close()

    def _hold(self, sock: socket.socket) -> None:
        """Let `abort` reach this socket from now on; the one before it is closed, or is inside this one."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = sock
            if self._aborted:
                raise TimeoutError

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _body(response: http.client.HTTPResponse) -> bytes:
    """Read the body. Raises FetchError for everything but a whole, plain 200 of at most `BODY_LIMIT` bytes."""
    if 300 <= response.status < 400:
        raise FetchError(f"it answered {response.status}: redirects are not followed, write the address itself")
    if response.status != 200:
        raise FetchError(f"it answered {response.status}")
    if response.getheader("content-encoding", "identity").lower() != "identity":
        raise FetchError("the answer is compressed although nobody asked for it")
    body = response.read(BODY_LIMIT + 1)
    if len(body) > BODY_LIMIT:
        raise FetchError(f"the answer is larger than {BODY_LIMIT} bytes")
    if response.length:
        raise FetchError("the answer broke off")
    return body
