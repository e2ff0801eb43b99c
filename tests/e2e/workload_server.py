"""A Workload API on a unix socket, by grpcio: what a real agent seldom says, at the moment that a test wants it.

It behaves as the standard says (SPIFFE Workload API 5, Workload Endpoint 4): a call without the security header is
InvalidArgument, a state goes to whoever calls and to every stream that is open when it changes. A real agent stands in
`test_source_spire.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from handshake_peers import TIMEOUT

from certs.workload_api import METHOD, SECURITY_HEADER

Refusal = tuple[grpc.StatusCode, str]


class WorkloadServer(grpc.GenericRpcHandler):
    """Serves until it is left (`with`). `state` is the newest message, or what every call is refused with."""

    def __init__(self, path: Path, state: bytes | Refusal) -> None:
        self.path = path
        self.calls: list[dict[str, str]] = []
        """The metadata of every call."""
        self._state = state
        self._number = 0
        self._changed = threading.Condition()

    def __enter__(self) -> WorkloadServer:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self.path.unlink(missing_ok=True)

    def update(self, state: bytes | Refusal) -> None:
        """Tell every stream of a new state; a refusal ends them."""
        with self._changed:
            self._state, self._number = state, self._number + 1
            self._changed.notify_all()

    def break_off(self) -> None:
        """Close every connection, as an agent that is restarted."""
        self._stop()
        self._start()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_stream_rpc_method_handler(self._stream) if details.method == METHOD else None

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor()
        self._server = grpc.server(self._pool, handlers=[self])
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def _stop(self) -> None:
        assert self._server.stop(None).wait(TIMEOUT)
        self._pool.shutdown()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        headers = dict(context.invocation_metadata())
        self.calls.append(headers)
        if headers.get(SECURITY_HEADER[0]) != SECURITY_HEADER[1] or request:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        context.add_callback(self._wake)
        told = -1
        while True:
            with self._changed:
                while context.is_active() and told == self._number:
                    self._changed.wait()
                state, told = self._state, self._number
            if not context.is_active():
                return
            if not isinstance(state, bytes):
                context.abort(*state)
            yield state
