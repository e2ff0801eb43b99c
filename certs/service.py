"""Answers what is asked of the authority: `POST /v1/sign`, `GET /v1/bundle`, `GET /v1/crl`.

A request for a certificate goes one way, and the first step that does not hold ends it, with a Refusal:

    rate by address ─▶ read ─▶ who asks ─▶ rate by identity ─▶ policy ─▶ sign ─▶ index ─▶ audit line ─▶ answer
                               │
                               ├─ join token: used up in the book before anything is signed
                               ├─ ServiceAccount token: judged by whoever `authenticate` asks
                               └─ the certificate of the connection, when there is no token

What holds:

1. Nothing that costs a signature happens before somebody was authenticated and permitted.
2. A certificate leaves only when it stands in the index and in the audit log. What cannot be written there is refused.
3. Each request for a certificate writes exactly one audit line, whatever comes of it. Only of those that an
   address sends too many of it has one line in ten seconds, and the metric counts all.
4. What is held may change while something waits. So it is looked at anew by the step that decides, from the checks to
   the audit line, and `run` sees to it that no other step of that kind runs meanwhile.

Pure: bytes and both clocks are arguments, and what changes something outside is a method of an `Office`.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certs.audit import Occasion, issued_line, refused_line
from certs.bundle_feed import is_known
from certs.caller import Caller, How
from certs.held import Held
from certs.joins import JoinBook, is_join_token
from certs.rates import Rate, RateLimiter, source_of
from certs.refusals import Refusal, Refused
from certs.requests import MAX_BODY_BYTES, SignRequest, read_instance, read_sign_request
from certs.revocations import Revocations
from certs.signers import signer_name
from certs.signing import AuthorityState, Issued, Lifetimes, sign
from certs.spiffe import SpiffeId
from certs.state_store import IssuedEntry, StateError
from certs.svid import SvidError, spiffe_id_of

CRL_TYPE: Final = "application/pkix-crl"
JSON_TYPE: Final = "application/json"

IDENTITY_RATE: Final = Rate(per_second=0.2, burst=10)
"""Of a pod, and of an identity where no pod is known. A sidecar renews twice a day; ten at once let one that begins
again and again come through, or ten of one identity without a token."""

ADDRESS_RATE: Final = Rate(per_second=50.0, burst=200)
"""Before anybody is known only the address tells callers apart, and a node may hide hundreds of them behind one. The
first 64 bits of IPv6 count: with the others one machine would be as many callers as it likes."""

_CROWD_LINES: Final = Rate(per_second=0.1, burst=1)
"""Audit lines of an address that asks too often: who floods must not fill the disk by what is written about it."""

_UNKNOWN_INSTANCE: Final = "-"
_SWAPS: Final = 3  # of a document that other replicas change as well
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered: a status, a media type, a body, and further header lines."""

    status: int = 200
    content_type: str = JSON_TYPE
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a request came from. `leaf` is the certificate that the connection's client showed and TLS has verified."""

    remote_address: str
    leaf: x509.Certificate | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Both clocks: `now` of the calendar, aware of its zone; `ticks` in seconds of a clock that never jumps."""

    now: datetime.datetime
    ticks: float


class Office(Protocol):
    """Who keeps what the service stands on. `record`, `replace_joins` and `audit` raise StateError when they fail."""

    @property
    def held(self) -> Held:
        """What is known at this moment."""

    def record(self, entry: IssuedEntry) -> None:
        """Writes a certificate into the index, and remembers how long its signer is needed."""

    def replace_joins(self, before: JoinBook, after: JoinBook) -> bool:
        """Stores a book in the place of another; False when somebody else was faster."""

    def confirm(self, sidecar: str, sequence: int | None, now: datetime.datetime) -> None:
        """Remembers which bundle a sidecar holds, None for one that does not say."""

    def audit(self, line: str) -> None:
        """Writes one line of the audit log."""


Run = Callable[[Callable[[], _Made]], Awaitable[_Made]]
"""Carries out a step that reads what is held and writes: one at a time, perhaps in a thread, for a store may block."""

Authenticate = Callable[[str, datetime.datetime], Awaitable[Caller]]
"""Judges a ServiceAccount's token: whom it stands for, or Refused."""

Permits = Callable[[Caller | None], str | None]
"""Says why policy does not let this request pass, None when it does; the Caller is None until one is known."""


async def no_authenticator(token: str, now: datetime.datetime) -> Caller:
    """Refuses every ServiceAccount token: for an authority that serves no cluster."""
    raise Refused(
        Refusal.TOKEN_REFUSED,
        "this authority takes no ServiceAccount tokens; start it with the cluster's API server, or send a join token",
    )


async def at_once(work: Callable[[], _Made]) -> _Made:
    """Carries out a step here and now: for a store that never blocks."""
    return work()


class Service:
    """Answers requests. `replica` names this process in audit lines, `run` is where steps that write are carried out.

    `is_certificate_enough` lets a caller renew by the certificate of its connection alone, without a token.
    `issued` counts by the proof that was given, `refused` by Refusal.
    """

    def __init__(
        self,
        office: Office,
        *,
        replica: str,
        authenticate: Authenticate = no_authenticator,
        run: Run[Any] = at_once,
        lifetimes: Lifetimes | None = None,
        is_certificate_enough: bool = True,
        identity_rate: Rate = IDENTITY_RATE,
        address_rate: Rate = ADDRESS_RATE,
    ) -> None:
        self._office = office
        self._replica = replica
        self._authenticate = authenticate
        self._run = run
        self._lifetimes = lifetimes or Lifetimes()
        self._is_certificate_enough = is_certificate_enough
        self._by_identity = RateLimiter(identity_rate)
        self._by_address = RateLimiter(address_rate)
        self._readers = RateLimiter(address_rate)
        self._crowd_lines = RateLimiter(_CROWD_LINES)
        self._read: tuple[Revocations, Set[SpiffeId], Set[str]] | None = None
        self.issued: dict[How, int] = {}
        self.refused: dict[Refusal, int] = {}

    async def sign(self, body: bytes, connection: Connection, permits: Permits, moment: Moment) -> Answer:
        """Answers `POST /v1/sign`; raises nothing that a request could cause."""
        occasion = self._occasion(connection, moment)
        wait = self._by_address.wait(source_of(connection.remote_address), moment.ticks)
        try:
            if wait > 0.0:
                raise _too_many("this address", wait)
            request = read_sign_request(body)
            occasion = replace(occasion, key_fingerprint=request.key_fingerprint)
            caller = await self._who(request, connection, moment.now)
            occasion = replace(occasion, caller=caller)
            wait = self._by_identity.wait(_bearer(caller), moment.ticks)
            if wait > 0.0:
                raise _too_many(str(caller.spiffe_id), wait)
            denied = permits(caller)
            if denied is not None:
                raise Refused(Refusal.POLICY_DENIED, denied)
            answer: Answer = await self._run(lambda: self._issue(request, caller, connection, occasion))
            return answer
        except Refused as refused:
            is_crowd = refused.reason is Refusal.RATE_LIMITED and occasion.caller is None
            if is_crowd and self._crowd_lines.wait(source_of(connection.remote_address), moment.ticks) > 0.0:
                return self._count(refused, wait)
            return self._refuse(refused, occasion, wait)

    def too_large(self, connection: Connection, moment: Moment) -> Answer:
        """Answers a request for a certificate whose body was not even read."""
        why = f"the body is larger than {MAX_BODY_BYTES} bytes; send the CSR alone"
        return self._refuse(Refused(Refusal.REQUEST_TOO_LARGE, why), self._occasion(connection, moment), 0.0)

    def deny(self, why: str, connection: Connection, moment: Moment) -> Answer:
        """Answers a request that policy does not let pass before it was read."""
        return self._refuse(Refused(Refusal.POLICY_DENIED, why), self._occasion(connection, moment), 0.0)

    def crowded(self, connection: Connection, moment: Moment) -> Answer | None:
        """Refuses bundle and list to an address that reads too often; None when it may. Leaves no audit line."""
        wait = self._readers.wait(source_of(connection.remote_address), moment.ticks)
        return self._count(_too_many("this address", wait), wait) if wait > 0.0 else None

    def bundle(
        self, connection: Connection, query: Mapping[str, str], if_none_match: str | None, moment: Moment
    ) -> Answer:
        """Answers `GET /v1/bundle`, to anybody. `if_none_match` is that header as sent.

        A sidecar that polls with its certificate may say which bundle it holds (`?confirms=7&instance=orders-0`), so
        that a rotation of the root need not wait for its next renewal.
        """
        published = self._office.held.bundle_answer
        self._take_confirmation(connection, query, moment.now)
        return Answer(
            status=304 if is_known(published.etag, if_none_match) else 200,
            content_type=published.content_type,
            body=published.body,
            headers={"etag": published.etag},
        )

    def crl(self, if_none_match: str | None) -> Answer:
        """Answers `GET /v1/crl`, to anybody. `if_none_match` is that header as sent."""
        listed = self._office.held.crl
        return Answer(
            status=304 if is_known(listed.etag, if_none_match) else 200,
            content_type=CRL_TYPE,
            body=listed.der,
            headers={"etag": listed.etag},
        )

    def _occasion(self, connection: Connection, moment: Moment) -> Occasion:
        return Occasion(
            now=moment.now,
            remote_address=connection.remote_address,
            replica=self._replica,
            presented=None if connection.leaf is None else _name_of(connection.leaf),
        )

    async def _who(self, request: SignRequest, connection: Connection, now: datetime.datetime) -> Caller:
        peer = None if connection.leaf is None else self._peer(connection.leaf, now)
        token = request.token
        if token is None:
            return self._by_certificate(peer)
        if request.kind is How.JOIN_TOKEN or (request.kind is None and is_join_token(token)):
            spiffe_id: SpiffeId = await self._run(lambda: self._redeem(token, now.timestamp()))
            return Caller(spiffe_id=spiffe_id, how=How.JOIN_TOKEN, peer=peer)
        caller = await self._authenticate(token, now)
        return replace(caller, peer=peer)

    def _by_certificate(self, peer: SpiffeId | None) -> Caller:
        if peer is None:
            raise Refused(
                Refusal.CALLER_UNKNOWN,
                "nobody knows who asks; send a ServiceAccount token or a join token, or connect with the certificate "
                "that is to be renewed",
            )
        if not self._is_certificate_enough:
            raise Refused(Refusal.CALLER_UNKNOWN, "a certificate alone renews nothing here; send a fresh token as well")
        return Caller(spiffe_id=peer, how=How.CERTIFICATE, peer=peer)

    def _peer(self, leaf: x509.Certificate, now: datetime.datetime) -> SpiffeId:
        try:
            spiffe_id = spiffe_id_of(leaf)
        except SvidError as error:
            raise Refused(Refusal.IDENTITY_INVALID, f"the certificate of the connection: {error}") from None
        if now > leaf.not_valid_after_utc:
            # TLS has looked at the dates when the connection began, and that may be long ago.
            raise Refused(Refusal.CALLER_UNKNOWN, "the certificate of the connection has ended; connect anew")
        revocation = self._office.held.revocations.refusal_for([leaf])
        if revocation is not None:
            raise Refused(
                Refusal.IDENTITY_REVOKED,
                f"the certificate of the connection is revoked: {revocation}; begin anew with a token and a new key",
            )
        return spiffe_id

    def _redeem(self, token: str, now: float) -> SpiffeId:
        for _ in range(_SWAPS):
            before = self._office.held.joins
            after, spiffe_id = before.redeem(token, now)
            try:
                if self._office.replace_joins(before, after):
                    return spiffe_id
            except StateError as error:
                raise Refused(Refusal.AUTHORITY_NOT_READY, _own_trouble(error)) from None
        raise Refused(Refusal.AUTHORITY_NOT_READY, "others change the book of join tokens at this moment; ask again")

    def _issue(self, request: SignRequest, caller: Caller, connection: Connection, occasion: Occasion) -> Answer:
        if connection.leaf is not None:
            self._peer(connection.leaf, occasion.now)  # it may have been revoked while something waited
        held = self._office.held
        blocked, refused_keys = self._revoked(held.revocations)
        state = AuthorityState(
            authority=held.authority,
            lifetimes=self._lifetimes,
            revoked_identities=blocked,
            revoked_keys=refused_keys,
        )
        issued = sign(request, caller, state, occasion.now)
        try:
            self._office.record(entry_of(issued, signer_name(held.authority.intermediate)))
            self._office.audit(issued_line(occasion, issued))
        except StateError as error:
            raise Refused(Refusal.AUTHORITY_NOT_READY, _own_trouble(error)) from None
        self.issued[caller.how] = self.issued.get(caller.how, 0) + 1
        self._office.confirm(_sidecar(caller.spiffe_id, request.instance), request.bundle_sequence, occasion.now)
        return Answer(body=_issued_body(issued, held))

    def _revoked(self, revocations: Revocations) -> tuple[Set[SpiffeId], Set[str]]:
        """Gives who and which keys get nothing; a list of 20,000 takes 0.4 ms to read, so each is read once."""
        if self._read is None or self._read[0] is not revocations:
            self._read = revocations, revocations.blocked, revocations.refused_keys
        return self._read[1], self._read[2]

    def _refuse(self, refused: Refused, occasion: Occasion, wait: float) -> Answer:
        answer = self._count(refused, wait)
        try:
            self._office.audit(refused_line(occasion, refused))
        except StateError as error:
            # The one who asked is answered all the same, and the log of the process has what the audit log lacks.
            return refusal_answer(Refused(Refusal.AUTHORITY_NOT_READY, _own_trouble(error)), answer.headers)
        return answer

    def _count(self, refused: Refused, wait: float) -> Answer:
        self.refused[refused.reason] = self.refused.get(refused.reason, 0) + 1
        is_early = refused.reason is Refusal.RATE_LIMITED
        return refusal_answer(refused, {"retry-after": str(math.ceil(wait))} if is_early else {})

    def _take_confirmation(self, connection: Connection, query: Mapping[str, str], now: datetime.datetime) -> None:
        text = query.get("confirms", "")
        if connection.leaf is None or not (text.isascii() and text.isdigit() and len(text) <= 18):
            return
        try:
            spiffe_id, instance = self._peer(connection.leaf, now), read_instance(query.get("instance"))
        except Refused:
            return  # the bundle is for anybody, and who confirms badly, or is revoked, is not heard
        self._office.confirm(_sidecar(spiffe_id, instance), int(text), now)


def refusal_answer(refused: Refused, headers: Mapping[str, str] | None = None) -> Answer:
    """Writes a refusal for its author.

    >>> refusal_answer(Refused(Refusal.CALLER_UNKNOWN, "send a token")).body
    b'{"reason": "caller_unknown", "message": "send a token"}\\n'
    """
    body = json.dumps({"reason": refused.reason.word, "message": str(refused)}).encode("ascii") + b"\n"
    return Answer(status=refused.reason.status, body=body, headers=headers or {})


def entry_of(issued: Issued, issuer: str) -> IssuedEntry:
    """Makes the line of the index for a certificate; `issuer` is the name of the signer."""
    return IssuedEntry(
        serial=issued.serial,
        identity=str(issued.spiffe_id),
        key=issued.key_fingerprint,
        not_after=issued.not_after.timestamp(),
        issuer=issuer,
    )


def _issued_body(issued: Issued, held: Held) -> bytes:
    document = {
        "chain": issued.chain_pem().decode("ascii"),
        "serial": issued.serial,
        "spiffe_id": str(issued.spiffe_id),
        "not_before": _time(issued.not_before),
        "not_after": _time(issued.not_after),
        "bundle": json.loads(held.bundle_answer.body),
        "crl": base64.b64encode(held.crl.der).decode("ascii"),
    }
    return json.dumps(document).encode("ascii") + b"\n"


def _too_many(whose: str, wait: float) -> Refused:
    return Refused(Refusal.RATE_LIMITED, f"too many requests of {whose}; ask again in {math.ceil(wait)} seconds")


def _bearer(caller: Caller) -> str:
    """Names whoever shares a grant: the pod that a token is bound to, else everybody of one identity."""
    return str(caller.spiffe_id) if caller.pod is None else f"{caller.spiffe_id}#{caller.pod.uid}"


def _sidecar(spiffe_id: SpiffeId, instance: str | None) -> str:
    return f"{spiffe_id}#{instance or _UNKNOWN_INSTANCE}"


def _name_of(leaf: x509.Certificate) -> str | None:
    try:
        return str(spiffe_id_of(leaf))
    except (SvidError, ValueError, UnsupportedAlgorithm):
        return None


def _own_trouble(error: StateError) -> str:
    # Paths of the authority's disk are for its operator, not for whoever asks.
    return f"the authority cannot write what it must remember ({type(error).__name__}); ask again later"


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
