"""What differs between an inbound and an outbound HTTP connection: who judges, what is added, what is recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from proxy.authn import Authentication, forwarded
from proxy.config import Service
from proxy.errors import Reason, RemoraError
from proxy.forward.pool import Pool
from proxy.forward.upstream import NextHop
from proxy.interfaces import RequestRecord
from proxy.policy import PolicySnapshot
from proxy.policy.snapshot import NO_RULE
from proxy.protocol.headers import xfcc_value
from proxy.protocol.stream import Field, RequestHead
from proxy.sidecar import Sidecar
from proxy.telemetry.record import Record, Scope
from proxy.telemetry.trace import completed, identifiers, new_request_id
from proxy.types import ConnectionAttributes, Denial, Generation, Permit


class _Recorded:
    """Begins the records of one connection's requests."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def begin(self, head: RequestHead) -> Record:
        """Begin the record of a request."""
        remembered = head.remembered
        if remembered is not None:
            line, block, _, request_id, traced = remembered
            record = Record(
                self._scope,
                protocol="HTTP/1.1" if line.version == b"1.1" else "HTTP/1.0",
                method=line.method_text,
                path=line.path_text,
            )
            record.authority, record.user_agent = block.authority_text, block.user_agent
            record.forwarded_for = block.forwarded_for
            record.request_id, record.trace_lines = completed(request_id, traced)
            return record
        record = Record(
            self._scope,
            protocol="HTTP/1.0" if head.version == b"1.0" else "HTTP/1.1",
            method=head.method.decode("latin-1"),
            path=(head.path + head.query).decode("latin-1"),
        )
        record.authority = head.authority.decode("latin-1")
        record.request_id, record.trace_lines = identifiers(head)
        for field in head.fields:
            name = field[0]
            if name == b"user-agent":
                record.user_agent = field[1].decode("latin-1")
            elif name == b"x-forwarded-for":
                record.forwarded_for = field[1].decode("latin-1")
        return record

    def begin_unread(self) -> Record:
        """Begin the record of a request that could not be understood."""
        record = Record(self._scope, protocol="HTTP/1.1", method="-", path="-")
        record.request_id = new_request_id()
        return record


class InboundRoute(_Recorded):
    """A peer's requests to the application: their tokens verified, judged by policy, told who is calling."""

    __slots__ = ("_attributes", "_caller", "_forwarded", "_sidecar", "answer_timeout", "pool", "strip_reserved")

    def __init__(self, sidecar: Sidecar, scope: Scope, attributes: ConnectionAttributes, pool: Pool) -> None:
        super().__init__(scope)
        self._sidecar = sidecar
        self._attributes = attributes
        self.pool = pool
        self.strip_reserved = True
        self.answer_timeout = sidecar.limits.stream_idle_timeout
        peer = attributes.peer
        self._forwarded: RequestHead | None = None
        self._caller = b""
        if peer is not None:
            element = xfcc_value(str(sidecar.identity), peer.fingerprint, str(peer.spiffe_id))
            self._caller = b"x-forwarded-client-cert: %b\r\n" % element

    def begin(self, head: RequestHead) -> Record:
        """Begin the record of a request; a token in its query is nobody else's to read."""
        record = super().begin(head)
        if head.query and (authentication := self._authentication) is not None:
            record.path = (head.path + authentication.masked(head.query)).decode("latin-1")
        return record

    @property
    def _authentication(self) -> Authentication | None:
        policy = self._sidecar.policy
        return policy.authentication if policy is not None else None

    def judge(self, head: RequestHead) -> Permit | Denial:
        """Judge by the newest policy: first the token, where RequestAuthentication is in force, then the rules."""
        snapshot = self._sidecar.policy
        if snapshot is None:
            return not_ready()
        if snapshot.authentication is not None:
            return self._authenticate(snapshot, snapshot.authentication, head)
        self._forwarded = None
        return self._sidecar.decisions.judge(snapshot, self._attributes, head)

    def _authenticate(
        self, snapshot: PolicySnapshot, authentication: Authentication, head: RequestHead
    ) -> Permit | Denial:
        """Verify the token and let policy judge what the application will see: a client's copy of a claim is gone."""
        sidecar = self._sidecar
        authenticated = authentication.authenticate(head, sidecar.key_store.keys, time.time())
        if authenticated.failure is not None:
            return Denial(
                reason=authenticated.failure,
                rule=NO_RULE,
                generation=snapshot.generation,
                explanation=authenticated.explanation,
            )
        self._forwarded = head = forwarded(head, authenticated, authentication)
        return sidecar.decisions.judge(snapshot, self._attributes, head, authenticated.token)

    def forwarded(self, head: RequestHead) -> RequestHead:
        """Give what policy judged: without the token that was verified, with the headers that carry its claims."""
        found, self._forwarded = self._forwarded, None
        return head if found is None else found

    def trailers(self, fields: Sequence[Field]) -> Sequence[Field]:
        """Leave out what only a verified token may fill: some applications read trailers as headers."""
        authentication = self._authentication
        if authentication is None:
            return fields
        return [field for field in fields if field.name not in authentication.claimed_headers]

    def lines(self, record: RequestRecord) -> bytes:
        """Tell the application who is calling; add the identifiers that the request lacks."""
        return self._caller + record.trace_lines

    def ends_at(self, permit: Permit) -> float:
        """Turn the end of the token into the clock's time."""
        return self._sidecar.loop_time(permit.expires_at)


class OutboundRoute(_Recorded):
    """The application's requests to one service: the verified server's identity permits them."""

    __slots__ = ("_service", "_sidecar", "pool", "strip_reserved")

    def __init__(self, sidecar: Sidecar, scope: Scope, service: Callable[[], Service], pool: NextHop) -> None:
        """`service` gives what the configuration in force says of it."""
        super().__init__(scope)
        self._sidecar = sidecar
        self._service = service
        self.pool = pool
        self.strip_reserved = False

    @property
    def answer_timeout(self) -> float:
        return self._service().timeout

    def judge(self, head: RequestHead) -> Denial | None:
        """Leave it to the server's identity, once this sidecar can prove its own."""
        return None if self._sidecar.tls is not None else not_ready()

    def forwarded(self, head: RequestHead) -> RequestHead:
        """Change nothing: the tokens of the application's requests are not ours to verify."""
        return head

    def trailers(self, fields: Sequence[Field]) -> Sequence[Field]:
        """Change nothing."""
        return fields

    def lines(self, record: RequestRecord) -> bytes:
        """Add the identifiers that the request lacks."""
        return record.trace_lines

    def ends_at(self, permit: Permit) -> float:
        """Name no end: a server's identity stands on its certificate."""
        return math.inf


class UnknownServiceRoute(_Recorded):
    """The application's requests to an address that is no service's: each is refused, and told why."""

    __slots__ = ("_why", "strip_reserved")

    def __init__(self, scope: Scope, why: str) -> None:
        super().__init__(scope)
        self._why = why
        self.strip_reserved = False

    @property
    def pool(self) -> NextHop:
        raise RemoraError("a request to no known service would have been forwarded")

    @property
    def answer_timeout(self) -> float:
        return math.inf

    def judge(self, head: RequestHead) -> Denial:
        """Refuse."""
        return Denial(reason=Reason.SERVICE_UNKNOWN, rule=NO_RULE, generation=Generation(0), explanation=self._why)

    def forwarded(self, head: RequestHead) -> RequestHead:
        """Change nothing."""
        return head

    def trailers(self, fields: Sequence[Field]) -> Sequence[Field]:
        """Change nothing."""
        return fields

    def lines(self, record: RequestRecord) -> bytes:
        """Add nothing."""
        return b""

    def ends_at(self, permit: Permit) -> float:
        """Name no end."""
        return math.inf


def not_ready() -> Denial:
    """Refuse because nothing valid has been loaded."""
    return Denial(
        reason=Reason.NOT_READY,
        rule=NO_RULE,
        generation=Generation(0),
        explanation="this sidecar has no valid certificate or policy set yet; /readyz says what is missing",
    )
