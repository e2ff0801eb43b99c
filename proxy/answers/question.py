"""A question to the policies: who asks for what, in which world, and what the sidecar would decide.

The order is the sidecar's: mutual TLS -> the gate, with the normal form of the path -> tokens -> policy. Each step is
the very code that a connection runs through, on a request head written out as a client would send it.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from proxy.answers.asked import DEFAULT_PORT, Question, peer_of
from proxy.answers.reading import question_of_record, read_question
from proxy.authn import NOT_CARRIED, Authenticated, Authentication, KeySet, forwarded
from proxy.authn.rules import AUTHORIZATION
from proxy.authn.token import TokenRefused, parse_token
from proxy.documents import quoted
from proxy.errors import ProtocolError, Reason
from proxy.policy import PolicySettings, PolicySnapshot, Workload
from proxy.policy.model import MtlsMode
from proxy.policy.snapshot import NO_RULE
from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import header_attributes
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.types import (
    ConnectionAttributes,
    Denial,
    Permit,
    RequestAttributes,
    VerifiedToken,
)

__all__ = [
    "DEFAULT_PORT",
    "Answer",
    "Question",
    "Step",
    "World",
    "ask",
    "judge",
    "peer_of",
    "question_of_record",
    "read_question",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that a decision depends on beside the question.

    `files` are what `snapshot` was loaded from, for edits, None where they are not at hand. `keys` is what each
    jwksUri gives, `tcp_ports` are the workload ports on which every connection is opaque.
    """

    snapshot: PolicySnapshot
    workload: Workload
    settings: PolicySettings
    normalization: PathNormalization = PathNormalization.BASE
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    keys: Mapping[str, KeySet] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    tcp_ports: frozenset[int] = frozenset()


class Step(enum.Enum):
    """What decided, in the order in which it is asked."""

    MUTUAL_TLS = "mutual TLS"
    GATE = "gate"
    TOKEN = "token"  # noqa: S105 (the name of a step)
    DENY = "DENY"
    DEFAULT = "default"
    ALLOW = "ALLOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decision, what decided, and the attributes that were judged.

    `request` is None for an opaque connection, and for a request that policy never saw; `method` and `target` are as
    they were sent. `notes` are sentences about what the question left open or what was not looked at.
    """

    verdict: Permit | Denial
    step: Step
    connection: ConnectionAttributes
    request: RequestAttributes | None = None
    method: str = ""
    target: str = ""
    opaque: bool = False
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Say whether the request goes through."""
        return isinstance(self.verdict, Permit)

    @property
    def status(self) -> int:
        """The HTTP status that the caller gets of the sidecar; 0 when there is none to get: allowed, or closed."""
        if isinstance(self.verdict, Permit) or self.opaque or self.step is Step.MUTUAL_TLS:
            return 0
        return self.verdict.reason.consequence.status


def ask(world: World, question: Question, now: float) -> Answer:
    """Decide as a sidecar in this world would; `now` is in seconds since the epoch and judges a token's times.

    Raises SpiffeIdError when the principal is no SPIFFE ID.

    >>> from proxy.policy.examples import snapshot_of, workload, deny
    >>> world = World(snapshot=snapshot_of(""), workload=workload, settings=deny)
    >>> answer = ask(world, Question(principal="cluster.local/ns/demo/sa/web", target="/a/../b", host="orders"), 0.0)
    >>> answer.step, answer.status, answer.request.path
    (<Step.DEFAULT: 'default'>, 403, '/b')
    """
    snapshot = world.snapshot
    connection = ConnectionAttributes(
        peer=peer_of(question.principal),
        source_ip=question.source_ip,
        destination_ip=question.destination_ip,
        destination_port=question.port,
        sni=question.sni,
    )
    if connection.peer is not None and snapshot.mode(question.port) is MtlsMode.DISABLE:
        # TLS is the application's own there: nobody looks at certificates.
        note = f"mutual TLS is off on port {question.port}: TLS passes through unread, and its caller has no identity"
        return judge(snapshot, replace(connection, peer=None, sni=""), notes=(note,))
    if question.opaque:
        return judge(snapshot, connection)
    if question.port in world.tcp_ports:
        note = f"port {question.port} carries TCP: its bytes are not read as HTTP"
        return judge(snapshot, connection, notes=(note,))
    refused = snapshot.admits_connection(connection)
    if refused is not None:
        return _refused(refused, Step.MUTUAL_TLS, connection, question)
    try:
        head = parse_request_head(
            head_bytes(_with_token(question, snapshot.authentication)),
            limits=HeadLimits(),
            normalization=world.normalization,
        )
    except ProtocolError as fault:
        return _refused(_denial(snapshot, fault.reason, str(fault)), Step.GATE, connection, question)
    authenticated, notes = _authenticate(world, question, head, now)
    if authenticated.failure is not None:
        denial = _denial(snapshot, authenticated.failure, authenticated.explanation)
        return _refused(denial, Step.TOKEN, connection, question)
    if snapshot.authentication is not None:
        head = forwarded(head, authenticated, snapshot.authentication)
    request = RequestAttributes(
        method=head.method.decode("latin-1"),
        path=head.path.decode("latin-1"),
        host=head.authority.decode("latin-1"),
        headers=header_attributes(head),
        token=authenticated.token,
    )
    return judge(snapshot, connection, request, target=question.target, notes=notes)


def judge(
    snapshot: PolicySnapshot,
    connection: ConnectionAttributes,
    request: RequestAttributes | None = None,
    *,
    target: str = "",
    notes: tuple[str, ...] = (),
) -> Answer:
    """Ask policy alone, for a request that has passed everything before it, or for an opaque connection (None)."""
    verdict = snapshot.request(connection, request) if request is not None else snapshot.connection(connection)
    return Answer(
        verdict=verdict,
        step=_step(verdict),
        connection=connection,
        request=request,
        method=request.method if request is not None else "",
        target=target,
        opaque=request is None,
        notes=notes,
    )


def _refused(denial: Denial, step: Step, connection: ConnectionAttributes, question: Question) -> Answer:
    """Answer for a request that policy never saw."""
    return Answer(verdict=denial, step=step, connection=connection, method=question.method, target=question.target)


def head_bytes(question: Question) -> bytes:
    """Write the head as a client would send it, its token apart; raises ProtocolError where a line would be several."""
    lines = [f"{question.method} {question.target} HTTP/{'1.1' if _names_host(question) else '1.0'}"]
    if question.host:
        lines.append(f"host: {question.host}")
    if question.token:
        lines.append(f"authorization: Bearer {question.token}")
    lines += [f"{name}: {value}" for name, value in question.headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise ProtocolError("the request holds a line break inside a line", Reason.HEADER_INVALID)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("utf-8", "surrogatepass")


def _with_token(question: Question, authentication: Authentication | None) -> Question:
    """Put the token of a question where the rule of its issuer looks for one; a bearer token where none says."""
    token, rules = question.token, authentication.rules if authentication is not None else ()
    if not token:
        return question
    try:
        issuer = parse_token(token.encode("utf-8", "surrogatepass")).issuer
    except TokenRefused:
        issuer = ""
    rule = next((rule for rule in rules if rule.issuer == issuer), rules[0] if rules else None)
    if rule is not None and not rule.headers and rule.params:
        mark = "&" if "?" in question.target else "?"
        return replace(question, target=f"{question.target}{mark}{rule.params[0]}={token}")
    if rule is not None and not rule.headers and rule.cookies:
        return replace(question, headers=(*question.headers, ("cookie", f"{rule.cookies[0]}={token}")))
    place = rule.headers[0] if rule is not None and rule.headers else AUTHORIZATION
    return replace(question, headers=(*question.headers, (place.name.decode(), f"{place.prefix}{token}")))


def _names_host(question: Question) -> bool:
    return bool(question.host) or any(name.lower() == "host" for name, _ in question.headers)


def _authenticate(
    world: World, question: Question, head: RequestHead, now: float
) -> tuple[Authenticated, tuple[str, ...]]:
    authentication = world.snapshot.authentication
    if authentication is None:
        unread = question.token or question.claims is not None
        note = "no RequestAuthentication selects this workload, so no token is verified and none counts"
        return NOT_CARRIED, ((note,) if unread else ())
    if question.claims is not None:
        return _taken_as_verified(authentication, question.claims), ()
    return authentication.authenticate(head, world.keys.get, now), ()


def _taken_as_verified(authentication: Authentication, claims: Mapping[str, Any]) -> Authenticated:
    """Make of claims what a token with a good signature and good times makes; its issuer must be a rule's."""
    issuer, subject = (value if isinstance(value, str) else "" for value in (claims.get("iss"), claims.get("sub")))
    rule = next((rule for rule in authentication.rules if rule.issuer == issuer), None)
    if rule is None:
        named = quoted(issuer) if issuer else "missing"
        explanation = f"the token's iss is {named}, and no rule names it"
        return Authenticated(failure=Reason.TOKEN_ISSUER_UNKNOWN, explanation=explanation)
    token = VerifiedToken(issuer=issuer, subject=subject, claims=claims, space_delimited=rule.space_delimited)
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return Authenticated(token=token, rule=rule, payload=payload)


def _step(verdict: Permit | Denial) -> Step:
    if isinstance(verdict, Permit):
        return Step.DEFAULT if verdict.rule.startswith("default[") else Step.ALLOW
    if verdict.reason is Reason.CERTIFICATE_REQUIRED:
        return Step.MUTUAL_TLS
    if verdict.reason is Reason.DENIED_BY_DEFAULT:
        return Step.DEFAULT
    return Step.ALLOW if verdict.rule == NO_RULE else Step.DENY


def _denial(snapshot: PolicySnapshot, reason: Reason, explanation: str) -> Denial:
    return Denial(reason=reason, rule=NO_RULE, generation=snapshot.generation, explanation=explanation)
