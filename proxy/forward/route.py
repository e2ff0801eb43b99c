"""What the HTTP pump is told about a downstream connection by the page that sets it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.forward.upstream import NextHop
from proxy.interfaces import RequestRecord
from proxy.protocol.stream import Field, RequestHead
from proxy.types import Denial, Permit


class Route(Protocol):
    """What the composition page tells the pump about one downstream connection.

    `pool` and `answer_timeout` (seconds, from the end of a request to the head of its answer) are asked for each
    request: a change of the configuration reaches connections that stand.
    """

    strip_reserved: bool

    @property
    def pool(self) -> NextHop: ...
    @property
    def answer_timeout(self) -> float: ...

    def begin(self, head: RequestHead) -> RequestRecord:
        """Begin the record of a request."""

    def begin_unread(self) -> RequestRecord:
        """Begin the record of a request whose head could not be understood."""

    def judge(self, head: RequestHead) -> Permit | Denial | None:
        """Judge a request; None when the verified upstream decides."""

    def forwarded(self, head: RequestHead) -> RequestHead:
        """Give the head as it goes to the next hop; asked once, right after `judge` has permitted it."""

    def trailers(self, fields: Sequence[Field]) -> Sequence[Field]:
        """Give the trailers as they go to the next hop."""

    def lines(self, record: RequestRecord) -> bytes:
        """Give the header lines to add: who is calling, request id, trace."""

    def ends_at(self, permit: Permit) -> float:
        """Say when the token ends that a permit stands on, in the clock's time; infinite without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTimes:
    """Deadlines in seconds. `finish` is what a request may still take when its connection must end."""

    head: float
    idle: float
    stream_idle: float
    tunnel_idle: float
    finish: float
    linger: float
