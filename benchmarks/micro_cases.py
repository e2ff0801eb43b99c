"""The hot functions that see bytes as values: first bytes, heads, decisions, tokens. Each ready to be called alone."""

from __future__ import annotations

import functools
import itertools
import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks import configs, heads
from benchmarks.heads import CLIENTS, Client
from benchmarks.micro_world import LIMITS, Call, Case, World
from benchmarks.processes import BenchError
from proxy.authn import Authentication
from proxy.detect.first_bytes import Detected, detect
from proxy.errors import Reason
from proxy.policy.decisions import Decisions
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import write_request_head, write_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import RequestHead
from proxy.telemetry.trace import identifiers
from proxy.types import Denial, Permit

_BASE: Final = PathNormalization.BASE
_CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
_TOKENS: Final = 512
"""Tokens that differ; more than a batch needs would only take time to sign."""


def cases(world: World) -> list[Case]:
    """Build the cases that see bytes as values: first bytes, heads, decisions, tokens."""
    return [*_detection(), *_heads(), *_decisions(world), *_tokens(world)]


def _head(client: Client, number: int = 42) -> RequestHead:
    return parse_request_head(client.head(number), limits=LIMITS, normalization=_BASE)


# --- first bytes and heads --------------------------------------------------------------------------------------------


def _detection() -> list[Case]:
    found = []
    for name, first, due in (
        ("detect/http", heads.CURL.head(1)[:64], Detected.HTTP1),
        ("detect/tls", _CLIENT_HELLO, Detected.TLS),
    ):
        if detect(first) is not due:
            raise BenchError(f"{name}: first bytes are not told as {due.value}")
        found.append(Case(name=name, what="tell a protocol by its first bytes", call=functools.partial(detect, first)))
    return found


def _heads() -> list[Case]:
    found = []
    for client in CLIENTS.values():
        reader = HeadReader()
        # More than are remembered, where no two are alike; else 256 paths, as of a workload's own callers.
        variants = itertools.cycle([client.head(number) for number in range(8_192 if client.visited else 256)])
        whole = client.head(42)
        parsed = _head(client)
        if reader.try_request_head(whole, LIMITS, _BASE, 1) != parsed:
            raise BenchError(f"the fast path does not read the head of {client.name} as the gate does")
        found += [
            Case(
                name=f"gate/{client.name}",
                what="read a request's head by h11 and the rules",
                call=functools.partial(parse_request_head, whole, limits=LIMITS, normalization=_BASE),
            ),
            Case(
                name=f"fast/{client.name}",
                what="read a request's head from memory, one that came before",
                call=functools.partial(reader.try_request_head, whole, LIMITS, _BASE, 1),
            ),
            Case(
                name=f"fast-changing/{client.name}",
                what="the same, with the path (and identifiers) of another request each time, of 256",
                call=_reading(reader, variants),
            ),
            Case(
                name=f"identifiers/{client.name}",
                what="find or make a request's identifiers",
                call=functools.partial(identifiers, parsed),
            ),
            Case(
                name=f"rewrite/{client.name}",
                what="write a request's head for the application",
                call=functools.partial(write_request_head, parsed, extra=b"x: y\r\n", strip_reserved=True),
            ),
        ]
    reader = HeadReader()
    answer = reader.read_response_head(heads.ANSWER, request_method=b"GET", limits=LIMITS)
    return [
        *found,
        Case(
            name="fast/answer",
            what="read an answer's head from memory",
            call=functools.partial(reader.try_response_head, heads.ANSWER, b"GET", LIMITS, 1),
        ),
        Case(
            name="rewrite/answer",
            what="write an answer's head",
            call=functools.partial(write_response_head, answer, close=False, chunked=False),
        ),
    ]


def _reading(reader: HeadReader, variants: Any) -> Call:
    def read() -> object:
        return reader.try_request_head(next(variants), LIMITS, _BASE, 1)

    return read


# --- decisions --------------------------------------------------------------------------------------------------------


def _decisions(world: World) -> list[Case]:
    head = _head(heads.CURL)
    denied = parse_request_head(head_with_path(b"/admin/users"), limits=LIMITS, normalization=_BASE)
    remembering = Decisions()
    many = itertools.cycle([_head(heads.CURL, number) for number in range(8_192)])
    looking = world.policy_with(_LOOKS_AT_A_HEADER)
    judge = functools.partial(remembering.judge, world.policy, world.attributes)
    anew = functools.partial(Decisions().judge, looking, world.attributes, head)
    allow, refuse = functools.partial(judge, head), functools.partial(judge, denied)
    for call, due in ((allow, Permit), (refuse, Denial), (anew, Permit)):
        if not isinstance(call(), due):
            raise BenchError("a request is decided otherwise than the policy of the benchmark says")
    never_seen = Decisions()
    return [
        Case(name="decide/remembered", what="a permit that is remembered", call=allow),
        Case(
            name="decide/new-path",
            what="a permit for a path that is not remembered",
            call=lambda: never_seen.judge(world.policy, world.attributes, next(many)),
        ),
        Case(name="decide/by-header", what="a permit that depends on a header, never remembered", call=anew),
        Case(name="decide/denied", what="a denial with its explanation", call=refuse),
    ]


def head_with_path(path: bytes) -> bytes:
    """Write the head of a request like curl's for another path."""
    return heads.CURL.head(1).replace(b"/orders/1?currency=EUR", path)


_LOOKS_AT_A_HEADER: Final = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: no-robots, namespace: {configs.NAMESPACE}}}
spec:
  action: DENY
  rules:
  - when: [{{key: "request.headers[x-robot]", values: ["*"]}}]
"""


def _tokens(world: World) -> list[Case]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": "b1", "use": "sig", "alg": "ES256"}
    rule = {"issuer": "https://issuer.example", "jwks": json.dumps({"keys": [public]})}
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": configs.NAMESPACE},
        "spec": {"jwtRules": [rule]},
    }
    authentication = world.policy_with(json.dumps(policy)).authentication
    if authentication is None:
        raise BenchError("the policy with a token rule verifies no tokens")
    now = time.time()

    def signed(number: int, by: ec.EllipticCurvePrivateKey) -> RequestHead:
        claims = {"iss": rule["issuer"], "sub": f"user-{number}", "exp": int(now) + 3600}
        token = jwt.encode(claims, by, algorithm="ES256", headers={"kid": "b1"})
        line = f"authorization: Bearer {token}\r\n\r\n".encode()
        return parse_request_head(heads.CURL.head(1)[:-2] + line, limits=LIMITS, normalization=_BASE)

    one = signed(0, key)
    forged = signed(0, ec.generate_private_key(ec.SECP256R1()))
    new = itertools.cycle([(authentication.rules, signed(number, key)) for number in range(_TOKENS)])
    judge = functools.partial(authentication.authenticate, keys=_no_keys, now=now)
    if judge(one).token is None or judge(forged).failure is not Reason.TOKEN_SIGNATURE_INVALID:
        raise BenchError("tokens are not judged as they are signed")

    def verify_new() -> object:
        rules, head = next(new)
        return Authentication(rules).authenticate(head, _no_keys, now)  # one that remembers no token

    return [
        Case(name="token/cached", what="a token that was verified before", call=functools.partial(judge, one)),
        Case(name="token/new", what="a token (ES256) that is seen for the first time", call=verify_new),
        Case(name="token/forged", what="a token with a wrong signature", call=functools.partial(judge, forged)),
    ]


def _no_keys(uri: str) -> Any:
    raise BenchError(f"keys were asked for that no rule names: {uri}")
