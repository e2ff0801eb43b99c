"""A question is answered by what a sidecar asks, in its order: mutual TLS, gate, token, policy."""

from __future__ import annotations

import base64
import json

import pytest
from explain_world import NO_ADMIN, NOW, ORDERS, PERMISSIVE, WEB, allow, question, world

from certs.spiffe import SpiffeIdError
from proxy.answers.question import Answer, Question, Step, World, ask
from proxy.errors import Reason
from proxy.protocol.path import PathNormalization
from proxy.types import Denial, Permit

DISABLED = PERMISSIVE.replace("PERMISSIVE", "DISABLE")
ANYBODY = allow("anybody", "[{}]")


def reason(answer: Answer) -> Reason:
    assert isinstance(answer.verdict, Denial)
    return answer.verdict.reason


def asked(where: World, target: str = "/", **more: object) -> Answer:
    return ask(where, question(target, **more), NOW)


def test_allowed_by_a_rule() -> None:
    answer = asked(world(ORDERS), "/orders/7?full=1")
    assert isinstance(answer.verdict, Permit)
    assert (answer.step, answer.status, answer.allowed) == (Step.ALLOW, 0, True)
    assert answer.verdict.rule == "ns[demo]-policy[orders]-rule[0]"
    assert answer.request is not None
    assert (answer.request.path, answer.request.host, answer.target) == ("/orders/7", "orders", "/orders/7?full=1")


def test_a_principal_with_its_scheme_is_the_same() -> None:
    assert asked(world(ORDERS), "/orders/7", principal=f"spiffe://{WEB}").allowed


def test_a_principal_that_is_none() -> None:
    with pytest.raises(SpiffeIdError, match="capitals"):
        asked(world(ORDERS), principal="Cluster.local/ns/demo/sa/web")


@pytest.mark.parametrize(
    ("where", "more", "step", "found"),
    [
        (world(ORDERS, NO_ADMIN), {"target": "/admin"}, Step.DENY, Reason.DENIED_BY_POLICY),
        (world(ORDERS), {"target": "/admin"}, Step.ALLOW, Reason.DENIED_BY_POLICY),
        (world(""), {}, Step.DEFAULT, Reason.DENIED_BY_DEFAULT),
        (world(NO_ADMIN), {"opaque": True}, Step.DENY, Reason.DENIED_PROTOCOL_OPAQUE),
        (world(ORDERS), {"opaque": True}, Step.ALLOW, Reason.DENIED_BY_POLICY),
        (world(ORDERS), {"principal": ""}, Step.MUTUAL_TLS, Reason.CERTIFICATE_REQUIRED),
        (world(ORDERS), {"principal": "", "opaque": True}, Step.MUTUAL_TLS, Reason.CERTIFICATE_REQUIRED),
        (world(PERMISSIVE, ORDERS), {"principal": ""}, Step.ALLOW, Reason.DENIED_BY_POLICY),
        (world(ORDERS), {"target": "/a b"}, Step.GATE, Reason.REQUEST_LINE_INVALID),
        (world(ORDERS), {"target": "/%00"}, Step.GATE, Reason.PATH_INVALID),
        (world(ORDERS), {"target": "/ä"}, Step.GATE, Reason.TARGET_INVALID),
        (world(ORDERS), {"target": "/\ud800"}, Step.GATE, Reason.TARGET_INVALID),
        (world(ORDERS), {"target": "/\r\nx: y"}, Step.GATE, Reason.HEADER_INVALID),
        (world(ORDERS), {"method": "get"}, Step.GATE, Reason.METHOD_INVALID),
        (world(ORDERS), {"headers": (("x_role", "a"),)}, Step.GATE, Reason.HEADER_NAME_UNDERSCORE),
        (world(ORDERS), {"headers": (("Host", "b"),)}, Step.GATE, Reason.HOST_REPEATED),
        (world(ORDERS), {"headers": (("x-a", "b\nc: d"),)}, Step.GATE, Reason.HEADER_INVALID),
    ],
)
def test_who_denies(where: World, more: dict[str, object], step: Step, found: Reason) -> None:
    answer = asked(where, **more)  # type: ignore[arg-type]
    assert (answer.step, reason(answer)) == (step, found)
    assert answer.status == (0 if answer.opaque or step is Step.MUTUAL_TLS else found.consequence.status)


def test_mutual_tls_is_asked_before_the_gate() -> None:
    assert asked(world(ORDERS), "/a b", principal="").step is Step.MUTUAL_TLS


def test_what_the_question_does_not_say_is_not_there() -> None:
    hosts = allow("hosts", '[{to: [{operation: {hosts: ["*"]}}]}]')
    assert asked(world(hosts)).allowed
    assert not asked(world(hosts), host="").allowed
    assert asked(world(hosts), host="", headers=(("Host", "orders"),)).allowed


def test_the_mode_of_normalisation_counts() -> None:
    merging = world(ORDERS, normalization=PathNormalization.MERGE_SLASHES)
    assert asked(merging, "//orders//7").allowed
    assert not asked(world(ORDERS), "//orders//7").allowed


def test_absolute_form_is_taken() -> None:
    assert asked(world(ORDERS), "http://orders/orders/7").allowed


def test_a_port_that_carries_tcp_is_not_read_as_http() -> None:
    where = world(
        allow("db", "[{from: [{source: {principals: [cluster.local/ns/demo/sa/web]}}]}]"), tcp_ports=frozenset({5432})
    )
    answer = asked(where, port=5432)
    assert answer.allowed
    assert answer.opaque
    assert answer.notes == ("port 5432 carries TCP: its bytes are not read as HTTP",)


def test_where_mutual_tls_is_off_nobody_has_an_identity() -> None:
    answer = asked(world(DISABLED, ORDERS), "/orders/7")
    assert not answer.allowed
    assert answer.connection.peer is None
    assert "mutual TLS is off on port 8080" in answer.notes[0]
    assert asked(world(DISABLED, ANYBODY), principal="").allowed


def test_a_token_counts_only_where_a_policy_asks_for_tokens() -> None:
    wants = allow("wants", '[{from: [{source: {requestPrincipals: ["*"]}}]}]')
    for more in ({"token": "a.b.c"}, {"claims": {"iss": "i", "sub": "s"}}):
        answer = asked(world(wants), **more)
        assert answer.step is Step.ALLOW
        assert "no RequestAuthentication selects this workload" in answer.notes[0]


KEYS = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "k"}]}'
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: issuer, namespace: demo}}
spec:
  jwtRules:
  - issuer: https://issuer.example
    jwks: '{KEYS}'
    outputClaimToHeaders: [{{header: x-groups, claim: group}}]
"""


def test_claims_count_as_a_verified_token() -> None:
    wants = allow("wants", '[{from: [{source: {requestPrincipals: ["https://issuer.example/alice"]}}]}]')
    claims = {"iss": "https://issuer.example", "sub": "alice", "group": "staff"}
    answer = asked(world(TOKENS, wants), claims=claims, headers=(("x-groups", "root"),))
    assert answer.allowed
    assert answer.request is not None
    assert (b"x-groups", b"staff") in answer.request.headers
    assert (b"x-groups", b"root") not in answer.request.headers
    assert not asked(world(TOKENS, wants), claims=claims | {"sub": 7}).allowed


def test_claims_of_an_issuer_that_no_rule_names() -> None:
    answer = asked(world(TOKENS, ANYBODY), claims={"iss": "https://other.example", "sub": "alice"})
    assert (answer.step, reason(answer), answer.status) == (Step.TOKEN, Reason.TOKEN_ISSUER_UNKNOWN, 401)
    assert reason(asked(world(TOKENS, ANYBODY), claims={"sub": "alice"})) is Reason.TOKEN_ISSUER_UNKNOWN


def test_a_token_is_verified() -> None:
    answer = asked(world(TOKENS, ANYBODY), token="a.b.c")
    assert (answer.step, reason(answer), answer.status) == (Step.TOKEN, Reason.TOKEN_MALFORMED, 401)
    assert asked(world(TOKENS, ANYBODY)).allowed


def b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "places",
    [
        "",
        "fromHeaders: [{name: x-token, prefix: 'JWT '}], ",
        "fromParams: [jwt], ",
        "fromCookies: [jwt], ",
    ],
)
def test_a_token_is_sent_where_the_rule_of_its_issuer_looks(places: str) -> None:
    other = f"{{issuer: other, jwks: '{KEYS}', fromParams: [never]}}"
    tokens = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: issuer, namespace: demo}\n"
        f"spec: {{jwtRules: [{other}, {{issuer: i, {places}jwks: '{KEYS}'}}]}}\n"
    )
    token = f"{b64({'alg': 'EdDSA', 'kid': 'k'})}.{b64({'iss': 'i', 'sub': 's'})}.{b64('x')}"
    for target in ("/", "/?a=b"):
        answer = asked(world(tokens, ANYBODY), target, token=token)
        assert (answer.step, reason(answer)) == (Step.TOKEN, Reason.TOKEN_SIGNATURE_INVALID)
        assert answer.target == target


def test_defaults_of_a_question() -> None:
    assert Question() == Question(principal="", method="GET", target="/", port=8080)
