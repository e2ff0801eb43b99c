"""The other ends of one sidecar's connections: callers and a server with mutual TLS, and an application without.

All are small, block, and do one thing after the other, so that a benchmark knows at any moment how many connections
stand and what each of them does. They use the sidecar's own OpenSSL: what is agreed on (TLS 1.3, X25519MLKEM768) is
what two sidecars agree on, and with it what a connection keeps in memory.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL.crypto import X509

from benchmarks.processes import BenchError
from certs.authority import Svid
from certs.bundle import TrustBundle

REQUEST: Final = b"GET /orders/42?currency=EUR HTTP/1.1\r\nhost: orders\r\nuser-agent: remora-bench\r\n\r\n"
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n"
_ALPN: Final = b"istio-http/1.1"
_PATIENCE: Final = struct.pack("ll", 20, 0)
"""How long a socket blocks (struct timeval): longer than the sidecar takes for a thousand handshakes."""
_SPARE_DESCRIPTORS: Final = 256
"""Files, pages, pipes and the loop's own, beside the connections that are counted."""
_SIZE: Final = 16_384


def reserve_descriptors(connections: int) -> None:
    """Raise this process's limit of descriptors, which its children inherit, as far as `connections` need.

    Raises BenchError when the hard limit does not allow it; it is never raised.
    """
    needed = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise BenchError(
            f"{connections} connections need {needed} file descriptors, the limit is {hard}: ask for fewer, "
            "or raise it (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def tls_context(svid: Svid, trusted: TrustBundle, *, server: bool) -> SSL.Context:
    """Make what a caller (or a server) of this identity needs for handshakes; it believes `trusted` alone."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate(svid.chain[0])
    for intermediate in svid.chain[1:]:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(svid.key)
    store = context.get_cert_store()
    if store is None:
        raise BenchError("OpenSSL gave a context without a certificate store")
    for anchor in trusted.certificates:
        store.add_cert(X509.from_cryptography(anchor))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if server:
        context.set_alpn_select_callback(_select)
    else:
        context.set_alpn_protos([_ALPN])
    return context


class Line:
    """One blocking connection of ours, with TLS on it or without. `name` is what its failures are told of."""

    def __init__(self, sock: socket.socket, name: str, context: SSL.Context | None = None) -> None:
        self._name = name
        self._socket = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Not `settimeout`, which makes the socket non-blocking: OpenSSL is to wait by itself.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        self._end: socket.socket | SSL.Connection = sock
        if context is not None:
            self._end = SSL.Connection(context, sock)

    @classmethod
    def call(cls, port: int, name: str, context: SSL.Context | None = None) -> Line:
        """Connect to a port of the loopback address, with a handshake when `context` is given."""
        with told_of(name):
            line = cls(socket.create_connection(("127.0.0.1", port)), name, context)
            if isinstance(line._end, SSL.Connection):
                line._end.set_connect_state()
                line._end.do_handshake()
        return line

    def accept_handshake(self) -> None:
        """Serve the handshake of a connection that was accepted."""
        if isinstance(self._end, SSL.Connection):
            with told_of(self._name):
                self._end.set_accept_state()
                self._end.do_handshake()

    @property
    def group(self) -> str:
        """The key agreement of the handshake, "" without TLS."""
        return self._end.get_group_name() or "" if isinstance(self._end, SSL.Connection) else ""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        with told_of(self._name):
            self._end.sendall(data)

    def read_request(self) -> None:
        """Read one request without a body."""
        self._read_head()

    def read_answer(self, due: int = 200) -> None:
        """Read one answer to its end. Raises BenchError when its status is not the one that is due."""
        self.read_whole(due)

    def read_whole(self, due: int = 200) -> tuple[bytes, bytes]:
        """Read one answer and give its head and its body. Raises BenchError as `read_answer` does."""
        head, rest = self._read_head()
        status, _, fields = head.partition(b"\r\n")
        if status.split(b" ")[1:2] != [b"%d" % due]:
            raise BenchError(f"{self._name} was answered {status.decode('latin-1')} where {due} was due")
        length = next(
            (int(line[15:]) for line in fields.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        # RFC 9112 section 6.3: a 304 has no body, whatever length it tells.
        while due != 304 and len(rest) < length:
            rest += self._receive()
        return head, rest

    def close(self) -> None:
        """Close it, with close_notify where there is TLS."""
        if isinstance(self._end, SSL.Connection):
            with contextlib.suppress(SSL.Error, OSError):  # the other end may have closed first
                self._end.shutdown()
        self._socket.close()

    def _read_head(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _receive(self) -> bytes:
        with told_of(self._name):
            data: bytes = self._end.recv(_SIZE)
        if not data:
            raise BenchError(f"{self._name} was closed by the sidecar, whose log says why")
        return data


@contextlib.contextmanager
def told_of(name: str) -> Iterator[None]:
    """Turn what a connection may fail with into a BenchError that names it."""
    try:
        yield
    except SSL.WantReadError as failure:
        raise BenchError(f"{name}: the sidecar said nothing for 20 s") from failure
    except (SSL.Error, OSError) as failure:
        raise BenchError(f"{name} failed, the sidecar's log may say why: {failure!r}") from failure


class MeshServer:
    """A server with mutual TLS that holds every answer until it is told to answer all."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.settimeout(20)
        self.lines: list[Line] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def read_requests(self, count: int) -> None:
        """Read one request from each of `count` connections, of which those that are missing are accepted now."""
        for line in self.lines:
            line.read_request()
        while len(self.lines) < count:
            with told_of("a connection to the service"):
                sock, _ = self._listener.accept()
            sock.setblocking(True)
            line = Line(sock, f"connection {len(self.lines) + 1} to the service", self._context)
            self.lines.append(line)
            line.accept_handshake()
            line.read_request()

    def answer_all(self) -> None:
        """Answer on every connection."""
        for line in self.lines:
            line.send(ANSWER)

    def close(self) -> None:
        """Close every connection and listen no more."""
        close_all(self.lines)
        self._listener.close()


@contextlib.contextmanager
def application() -> Iterator[int]:
    """Run the application behind a sidecar in threads of this process, and give its port: every answer is the same."""
    with _Application(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, name="application")
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


class _Application(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024


class _Answers(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):  # a sidecar that ends resets what it keeps
            while received := self.request.recv(_SIZE):
                data += received
                while b"\r\n\r\n" in data:
                    _, _, data = data.partition(b"\r\n\r\n")
                    self.request.sendall(ANSWER)


def close_all(lines: Sequence[Line]) -> None:
    """Close connections."""
    for line in lines:
        line.close()


def _select(_: SSL.Connection, offered: list[bytes]) -> Any:
    return _ALPN if _ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
