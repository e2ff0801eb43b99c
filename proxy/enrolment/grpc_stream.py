"""One server-streaming gRPC call over a unix socket, by grpcio: an extra, imported here alone and when it is asked for.

    call --> message, message ... --> the server ends it with OK, or CallFailed: refused, broken, silent, aborted

A call is synchronous and for a thread of its own; `abort` ends it from any other. Each has a channel of its own, and so
a connection of its own: nothing that gRPC remembers of one that failed delays the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final
from urllib.parse import quote

from proxy.errors import ConfigError, Fault

INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
UNAVAILABLE: Final = 14

_ENDED: Final = "the call was ended"
_SILENT: Final = "it was silent too long"
_SHOWN_CHARACTERS: Final = 400
"""Of what gRPC or the server says: gRPC names the path of the socket twice before it comes to the cause."""


class CallFailed(Exception):
    """A call that ended otherwise than by OK; `status` is gRPC's number."""

    def __init__(self, status: int, word: str, message: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in message[:_SHOWN_CHARACTERS])
        super().__init__(f"{word}: {shown}" if shown else word)
        self.status = status


def load_grpc(where: str) -> Any:
    """Give the module `grpc`. Raises ConfigError at `where` when it is not installed, or is broken."""
    try:
        import grpc
    except ImportError as failure:
        message = f"the package grpcio, by which a Workload API is asked, cannot be imported ({failure})"
        raise ConfigError([Fault(file=where, message=message, hint="pip install 'remora[spire]'")]) from failure
    return grpc


class StreamCall:
    """One call. `messages` once, on a thread; `abort` from anywhere, at any time."""

    def __init__(
        self, path: str, method: str, metadata: Sequence[tuple[str, str]], request: bytes, *, limit: int
    ) -> None:
        """`path` is that of the unix socket, `limit` the bytes of the largest message that is taken."""
        self._path = path
        self._method = method
        self._metadata = tuple(metadata)
        self._request = request
        self._options = (("grpc.max_receive_message_length", limit),)
        self._lock = threading.Lock()
        self._call: Any = None
        self._why = ""

    def messages(self, patience: Callable[[], float]) -> Generator[bytes]:
        """Give each message as it comes, until the server ends the stream with OK.

        `patience()` gives the seconds that the server may be silent from now. Raises CallFailed; a socket that breaks,
        is silent for too long or does not speak HTTP/2 is Unavailable. Close what is given where it is left early.
        """
        grpc = load_grpc(self._path)
        # The target is a URI: what is no letter of one in a path has to be escaped.
        with grpc.insecure_channel(f"unix:{quote(self._path)}", options=self._options) as channel:
            call = channel.unary_stream(self._method)(self._request, metadata=self._metadata)
            with self._lock:
                self._call = call
                if self._why:
                    call.cancel()
            try:
                while (message := self._next(call, patience())) is not None:
                    yield message
            except grpc.RpcError as failure:
                if self._why:
                    raise CallFailed(UNAVAILABLE, "Unavailable", self._why) from None
                status = failure.code()
                word = status.name.title().replace("_", "")
                raise CallFailed(status.value[0], word, failure.details() or "") from None

    def abort(self) -> None:
        """End it now: `messages` raises."""
        self._end(_ENDED)

    def _next(self, call: Any, seconds: float) -> bytes | None:
        # gRPC has a deadline for a whole call and none for a silence.
        watch = threading.Timer(seconds, self._end, (_SILENT,))
        watch.daemon = True
        watch.start()
        try:
            message: bytes | None = next(call, None)
        finally:
            watch.cancel()
        return message

    def _end(self, why: str) -> None:
        with self._lock:
            self._why = self._why or why
            if self._call is not None:
                self._call.cancel()
