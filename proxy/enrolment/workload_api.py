"""Keeps the identity that a SPIFFE Workload API streams, such as that of a SPIRE agent on this host.

    connect --> FetchX509SVID --message--> certs.workload_api --> judged --> held; the next message replaces it whole
       ^              |
       |              ends, breaks or is silent for long
       '-- a second after a stream that gave something, else 1 s, 2 s ... 150 s

What holds:

1. A message is the whole state: a federated bundle that is not in the newest one ends its domain.
2. A message that cannot be taken changes nothing, and is asked for again after a wait.
3. InvalidArgument is final, as the standard says (Workload API, section 6.1): this process does not ask again.
4. The identity that is held is used until it ends, whatever becomes of the agent. `read` raises what is wrong from the
   first failure on: the watcher keeps what is in force and says so, and says that nothing is when that has ended.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from certs.spiffe import SpiffeId
from certs.store import IdentitySet
from certs.workload_api import (
    MAX_MESSAGE_BYTES,
    METHOD,
    REQUEST,
    SECURITY_HEADER,
    WorkloadApiError,
    parse_state,
    state_files,
)
from proxy.config_values import IdentityWorkloadApi
from proxy.enrolment.grpc_stream import INVALID_ARGUMENT, PERMISSION_DENIED, CallFailed, StreamCall, load_grpc
from proxy.enrolment.held import Files, HeldIdentity
from proxy.errors import ConfigError, Fault

_PATIENCE: Final = 0.75
"""The part of what is left of an identity for which an agent may be silent. It renews at half of the lifetime, so one
that has not by then has hung, and is asked again while there is time."""
_SHORTEST_PATIENCE: Final = 10.0
_PAUSE: Final = 1.0
"""Seconds between two calls: an agent that ends each stream at once is not asked without end."""
_LONGEST_WAIT: Final = 300.0
_JOIN_SECONDS: Final = 5.0

_MENDS: Final = {
    PERMISSION_DENIED: "register this workload with its server, and see how the agent recognises it",
    INVALID_ARGUMENT: "this agent does not take our call; it is not asked again until a restart",
}

_log = logging.getLogger("remora.identity")


class WorkloadApiSource:
    """Follows the stream on a thread. `read` from any thread; `close` ends the call."""

    def __init__(
        self,
        api: IdentityWorkloadApi,
        expected: SpiffeId,
        judge: Callable[[Files, float], IdentitySet],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`expected` chooses among several identities; `judge` raises ConfigError for a set that cannot be taken.

        Raises ConfigError where grpcio is not installed.
        """
        self._path = api.socket.path
        load_grpc(self._path)  # here, where a process that can never have an identity still ends with a word
        self._expected = expected
        self._judge = judge
        self._now = now
        self._held = HeldIdentity(self._path, "the Workload API has not given an identity yet", now)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._call: StreamCall | None = None
        self._thread = threading.Thread(target=self._follow, name="workload api", daemon=True)
        self._thread.start()

    def read(self) -> Files:
        """Give the files of the newest state. Raises ConfigError until there is one, and when it could not be taken."""
        return self._held.read()

    def close(self) -> None:
        """End the call and the thread."""
        self._ending.set()
        with self._lock:
            if self._call is not None:
                self._call.abort()
        self._thread.join(_JOIN_SECONDS)

    def _follow(self) -> None:
        while not self._ending.is_set():
            try:
                gave = self._stream()
            except CallFailed as failure:
                gave = False
                if self._ending.is_set():
                    return
                hint = _MENDS.get(failure.status, "see that the agent runs and the path of its socket is right")
                self._held.fail([Fault(file=self._path, message=f"the Workload API: {failure}", hint=hint)])
                if failure.status == INVALID_ARGUMENT:
                    return
            except Exception:
                gave = False
                _log.exception("the Workload API cannot be followed; the identity that is held stays")
                self._held.fail()
            wait = _PAUSE if gave else max(self._held.renewal.due - self._now(), _PAUSE)
            self._ending.wait(min(wait, _LONGEST_WAIT))

    def _stream(self) -> bool:
        """Follow one call to its end; say whether it gave anything that was taken."""
        call = StreamCall(self._path, METHOD, [SECURITY_HEADER], REQUEST, limit=MAX_MESSAGE_BYTES)
        with self._lock:
            self._call = call
            if self._ending.is_set():
                return False
        gave = False
        with contextlib.closing(call.messages(self._patience)) as messages:
            for message in messages:
                if not self._take(message):
                    return False
                gave = True
        return gave

    def _take(self, message: bytes) -> bool:
        try:
            files = state_files(parse_state(message), self._expected)
            identity = self._judge(files, self._now())
        except WorkloadApiError as failure:
            self._held.fail([Fault(file=self._path, message=str(failure))])
            return False
        except ConfigError as failure:
            self._held.fail(failure.faults)
            return False
        self._held.take(files, identity)
        return True

    def _patience(self) -> float:
        return max(self._held.renewal.left(self._now()) * _PATIENCE, _SHORTEST_PATIENCE)
