"""RequestAuthentication: how it is read, what is refused at load, and which rules hold for a workload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from authn_world import ISSUER, bearer, head, judge, jwk, key_text, token
from policy_world import document, snapshot, workload

from proxy.authn import Authentication, JwtRule
from proxy.authn.rules import DEFAULT_SPACE_DELIMITED
from proxy.errors import ConfigError, Reason
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, load
from proxy.types import Generation

JWKS = key_text(jwk("ES256", kid="k")).decode()
RULE = {"issuer": ISSUER, "jwks": JWKS}


def request_authentication(
    *rules: Mapping[str, Any], name: str = "tokens", namespace: str = "demo", **spec: Any
) -> bytes:
    return document("RequestAuthentication", {"jwtRules": list(rules), **spec}, name, namespace)


def load_one(content: bytes, *, allow_loopback: bool = False) -> PolicySnapshot:
    settings = PolicySettings(default=PolicyDefault.ALLOW_ALL, jwks_allow_loopback=allow_loopback)
    return load({"a.json": content}, workload=workload(), settings=settings, generation=Generation(1))


def read(*, allow_loopback: bool = False, **fields: Any) -> JwtRule:
    """Read one rule that has these fields beside issuer and keys; a field of None is left out."""
    whole = {name: value for name, value in (RULE | fields).items() if value is not None}
    compiled = load_one(request_authentication(whole), allow_loopback=allow_loopback)
    assert compiled.authentication is not None
    (rule,) = compiled.authentication.rules
    return rule


def faults(content: bytes, *, allow_loopback: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_one(content, allow_loopback=allow_loopback)
    assert all(fault.line and fault.column for fault in raised.value.faults)
    return [fault.message + (f"; {fault.hint}" if fault.hint else "") for fault in raised.value.faults]


def fault(*, allow_loopback: bool = False, **fields: Any) -> str:
    """Read one rule with these fields and give the one fault that it has."""
    whole = {name: value for name, value in (RULE | fields).items() if value is not None}
    (found,) = faults(request_authentication(whole), allow_loopback=allow_loopback)
    return found


def uri(text: Any) -> dict[str, Any]:
    return {"jwks": None, "jwksUri": text}


# --- what is read ----------------------------------------------------------------------------------------------------


def test_a_rule_with_defaults() -> None:
    rule = read()
    assert rule.issuer == ISSUER
    assert rule.keys is not None
    assert rule.keys.keys[0].kid == "k"
    assert [(place.name, place.prefix) for place in rule.headers] == [(b"authorization", "Bearer ")]
    assert (rule.params, rule.cookies) == (("access_token",), ())
    assert (rule.forward_original, rule.payload_header, dict(rule.claim_headers)) == (False, "", {})
    assert (rule.fetch_timeout, rule.space_delimited) == (5.0, DEFAULT_SPACE_DELIMITED)
    assert (rule.line, rule.column) != (0, 0)


def test_a_rule_with_everything() -> None:
    rule = read(
        **uri("https://issuer.example/keys"),
        audiences=["a", "b"],
        fromHeaders=[{"name": "X-Jwt"}, {"name": "x-other", "prefix": "JWT "}, {"name": "x-jwt", "prefix": ""}],
        fromParams=["tok", "tok"],
        fromCookies=["c"],
        outputPayloadToHeader="X-Payload",
        outputClaimToHeaders=[{"header": "X-Sub", "claim": "sub"}, {"header": "x-role", "claim": "realm.role"}],
        forwardOriginalToken=True,
        timeout="1.5s",
        spaceDelimitedClaims=["roles"],
    )
    assert (rule.keys, rule.jwks_uri, rule.fetch_timeout) == (None, "https://issuer.example/keys", 1.5)
    assert rule.audiences == {"a", "b"}
    assert [(place.name, place.prefix) for place in rule.headers] == [(b"x-jwt", ""), (b"x-other", "JWT ")]
    assert (rule.params, rule.cookies) == (("tok",), ("c",))
    assert (rule.payload_header, dict(rule.claim_headers)) == ("x-payload", {"x-sub": "sub", "x-role": "realm.role"})
    assert (rule.forward_original, rule.space_delimited) == (True, DEFAULT_SPACE_DELIMITED | {"roles"})


@pytest.mark.parametrize("place", [{"fromHeaders": [{"name": "x"}]}, {"fromParams": ["p"]}, {"fromCookies": ["c"]}])
def test_a_place_of_its_own_switches_the_default_places_off(place: dict[str, Any]) -> None:
    rule = read(**place)
    assert (len(rule.headers), len(rule.params), len(rule.cookies)) == (
        int("fromHeaders" in place),
        int("fromParams" in place),
        int("fromCookies" in place),
    )


def test_empty_places_are_no_places() -> None:
    assert read(fromHeaders=[], fromParams=[], fromCookies=[]).params == ("access_token",)


def test_the_older_spelling_of_the_uri() -> None:
    assert read(jwks=None, jwks_uri="https://a.example/").jwks_uri == "https://a.example/"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5s", 1.5), ("1000000us", 1), ("5m", 300)]
)
def test_timeouts(text: str, seconds: float) -> None:
    assert read(timeout=text).fetch_timeout == pytest.approx(seconds)


def test_a_document_as_users_have_it() -> None:
    text = f"""\
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata:
  name: tokens
  uid: 1-2
spec:
  selector:
    matchLabels:
      app: orders
  jwtRules:
  - issuer: "{ISSUER}"
    forwardOriginalToken: true
    jwks: |
      {JWKS}
"""
    compiled = load_one(text.encode())
    assert compiled.authentication is not None
    carried = token(header={"kid": "k"})
    assert judge(compiled.authentication, carried).token is not None
    assert not [warning for warning in compiled.warnings if "jwtRules" in warning.message]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_issuer_is_asked_for() -> None:
    assert fault(issuer=None) == "`spec.jwtRules[0]` lacks the key `issuer`"
    assert "`spec.jwtRules[0].issuer` is empty text" in fault(issuer="")
    assert "must be text" in fault(issuer=5)


def test_one_source_of_keys_is_asked_for() -> None:
    neither = fault(jwks=None)
    assert neither.startswith("`spec.jwtRules[0]` has neither `jwks` nor `jwksUri`, and keys are not discovered")
    assert "openid-configuration" in neither
    assert (
        fault(jwksUri="https://a.example/") == "`spec.jwtRules[0]` has both `jwks` and `jwksUri`; keep one of the two"
    )
    assert "both `jwksUri` and `jwks_uri`" in fault(**uri("https://a.example/"), jwks_uri="https://a.example/")


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_private_key_is_a_fault(member: str) -> None:
    text = key_text(jwk("RSA", **{member: "c2VjcmV0"})).decode()
    found = fault(jwks=text)
    assert "is a private key" in found
    assert "c2VjcmV0" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', "is symmetric"),
        ("", "is empty text"),
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"keys": []}', "it has no usable key"),
        ('{"keys": [{"kty": "RSA", "use": "enc"}]}', "it has no usable key"),
        (key_text(jwk("RSA", n="AQAB")).decode(), "it has no usable key"),
        ({"keys": []}, "must be text, not a mapping"),
    ],
)
def test_keys_that_cannot_be_used(text: Any, expected: str) -> None:
    assert expected in fault(jwks=text)


def test_single_keys_that_cannot_be_used_are_a_warning() -> None:
    text = key_text(jwk("ES256"), jwk("RSA", use="enc")).decode()
    compiled = load_one(request_authentication(RULE | {"jwks": text}))
    (warning,) = [warning for warning in compiled.warnings if "jwtRules" in warning.message]
    assert warning.message == '`spec.jwtRules[0].jwks`: key 1 is left out: `use` is "enc", not sig'
    assert warning.line == 1


@pytest.mark.parametrize(
    "text",
    ["http://a.example/", "https://localhost/", "https://127.0.0.1/", "https://169.254.169.254/", "https://[::1]/",
     "https://[fd00:ec2::254]/", "https://0.0.0.0/", "https://224.0.0.1/", "https://u@a.example/", "https://a.example/#f",
     "https:///x", "ftp://a.example/", "https://2130706433/"],
)  # fmt: skip
def test_uris_that_are_not_fetched(text: str) -> None:
    assert fault(**uri(text)).startswith("`spec.jwtRules[0].jwksUri` is not fetched: ")


def test_loopback_by_the_configuration_alone() -> None:
    assert "policy.jwks_allow_loopback" in fault(**uri("https://127.0.0.1:8443/keys"))
    for text in ("http://localhost:8080/keys", "https://127.0.0.1/", "http://[::1]:80/"):
        assert read(**uri(text), allow_loopback=True).jwks_uri == text
    for text in ("http://a.example/", "https://169.254.169.254/", "http://169.254.169.254/", "http://10.0.0.1/"):
        assert fault(**uri(text), allow_loopback=True)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 s", "0s", "5d", "6m", "1e3s", "999us", "1s1", "9" * 40 + "s", 5]
)
def test_times_that_are_none(text: Any) -> None:
    assert "timeout" in fault(timeout=text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"audiences": [""]}, "`spec.jwtRules[0].audiences[0]` is empty text"),
        ({"audiences": "a"}, "must be a list"),
        ({"fromHeaders": [{}]}, "lacks the key `name`"),
        ({"fromHeaders": ["x"]}, "must be a mapping"),
        ({"fromHeaders": [{"name": ""}]}, "is empty text"),
        ({"fromHeaders": [{"name": "x y"}]}, '"x y" is no name of a header'),
        ({"fromHeaders": [{"name": ":path"}]}, "is no name of a header"),
        ({"fromHeaders": [{"name": "x_jwt"}]}, "has `_`, and requests with such headers are refused; use `-`"),
        ({"fromHeaders": [{"name": "Host"}]}, "belongs to the connection or to the mesh"),
        ({"fromHeaders": [{"name": "x-forwarded-client-cert"}]}, "belongs to the connection or to the mesh"),
        ({"fromHeaders": [{"name": "X-Envoy-Jwt"}]}, "belongs to the connection or to the mesh"),
        ({"fromHeaders": [{"name": "x", "prefix": "a\nb"}]}, "holds what no header line holds"),
        ({"fromHeaders": [{"name": "x", "prefx": "a"}]}, "did you mean `prefix`?"),
        ({"fromParams": [""]}, "is empty text"),
        ({"fromCookies": [""]}, "is empty text"),
        ({"fromCookies": ["a b"]}, '"a b" is no name of a cookie'),
        ({"fromCookies": ["a;b"]}, "is no name of a cookie"),
        ({"outputClaimToHeaders": [{"header": "x"}]}, "lacks the key `claim`"),
        ({"outputClaimToHeaders": [{"claim": "x"}]}, "lacks the key `header`"),
        ({"outputClaimToHeaders": [{"header": "x", "claim": ""}]}, "is empty text"),
        ({"outputClaimToHeaders": [{"header": "x", "claim": "a..b"}]}, "has an empty part between dots"),
        ({"outputClaimToHeaders": [{"header": "x:", "claim": "a"}]}, "is no name of a header"),
        ({"forwardOriginalToken": "true"}, "must be true or false"),
        ({"spaceDelimitedClaims": [""]}, "is empty text"),
        ({"fromheaders": []}, "did you mean `fromHeaders`?"),
        ({"issuers": "x"}, "did you mean `issuer`?"),
    ],
)
def test_fields_that_are_malformed(fields: dict[str, Any], expected: str) -> None:
    assert expected in fault(**fields)


@pytest.mark.parametrize(
    "name",
    ["authorization", "Proxy-Authorization", "cookie", "host", "content-length", "Content-Type", "transfer-encoding",
     "connection", "te", "upgrade", "expect", "x-forwarded-client-cert", "x-forwarded-for", "x-envoy-a", "x-istio-a",
     "l5d-client-id", "x-remora-a", "x-request-id", "traceparent", "b3", "origin", "access-control-request-method",
     "accept", "if-match", "sec-fetch-mode", "forwarded", "via", "x_user"],
)  # fmt: skip
def test_headers_that_no_output_may_take(name: str) -> None:
    assert fault(outputPayloadToHeader=name)
    assert fault(outputClaimToHeaders=[{"header": name, "claim": "sub"}])


def test_an_output_header_is_written_once() -> None:
    twice = [{"header": "x-a", "claim": "sub"}, {"header": "X-A", "claim": "iss"}]
    assert 'the header "x-a" is written twice' in fault(outputClaimToHeaders=twice)
    assert 'the header "x-a" is written twice' in fault(outputPayloadToHeader="x-a", outputClaimToHeaders=twice[:1])


def test_every_fault_is_told() -> None:
    bad = {"issuer": "", "jwks": "{", "audiences": [""], "timeout": "x"}
    assert len(faults(request_authentication(bad, bad))) == 8


def test_a_fault_has_its_place() -> None:
    text = b"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: demo}
spec:
  jwtRules:
  - issuer: https://issuer.example
    jwksUri: http://issuer.example/keys
"""
    with pytest.raises(ConfigError) as raised:
        load_one(text)
    assert [str(fault) for fault in raised.value.faults] == [
        "a.json:7:14: `spec.jwtRules[0].jwksUri` is not fetched: "
        "keys fetched over http can be replaced on the way: it must begin with https://"
    ]


# --- whom it holds for -----------------------------------------------------------------------------------------------


def issuers(*documents: bytes) -> list[str]:
    authentication = snapshot(*documents).authentication
    return [rule.issuer for rule in authentication.rules] if authentication is not None else []


def of(issuer: str, **place: Any) -> bytes:
    return request_authentication(RULE | {"issuer": issuer}, name=issuer, **place)


def test_without_a_document_there_is_no_authentication() -> None:
    assert snapshot().authentication is None


def test_root_namespace_and_workload_hold_together_in_the_order_of_names() -> None:
    assert issuers(
        of("c", selector={"matchLabels": {"app": "orders"}}),
        of("b"),
        of("a", namespace="istio-system"),
        of("d", namespace="istio-system", selector={"matchLabels": {"version": "v1"}}),
    ) == ["b", "c", "a", "d"]


def test_what_does_not_select_the_workload_does_not_hold() -> None:
    assert (
        issuers(
            of("a", namespace="elsewhere"),
            of("b", selector={"matchLabels": {"app": "other"}}),
            of("c", namespace="istio-system", selector={"matchLabels": {"app": "other"}}),
        )
        == []
    )


def test_rules_of_two_documents_are_one_set() -> None:
    other = "https://other.example"
    compiled = snapshot(request_authentication(RULE), request_authentication(RULE | {"issuer": other}, name="b"))
    assert isinstance(compiled.authentication, Authentication)
    for issuer in (ISSUER, other):
        assert judge(compiled.authentication, token(iss=issuer, header={"kid": "k"})).token is not None
    assert judge(compiled.authentication, token(iss="x")).failure is Reason.TOKEN_ISSUER_UNKNOWN
    assert judge(compiled.authentication, head(bearer(b"x"))).failure is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("spec", [{}, {"jwtRules": []}])
def test_a_document_without_rules_asks_for_nothing(spec: dict[str, Any]) -> None:
    compiled = load_one(document("RequestAuthentication", spec))
    assert compiled.authentication is None
    assert any("asks for nothing" in warning.message for warning in compiled.warnings)


def test_documents_for_gateways_are_skipped_and_said() -> None:
    reference = {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"}
    compiled = load_one(request_authentication(RULE, targetRefs=[reference]))
    assert compiled.authentication is None
    assert any("speaks to gateways: skipped" in warning.message for warning in compiled.warnings)
    both = request_authentication(RULE, targetRef=reference, selector={"matchLabels": {"app": "orders"}})
    assert faults(both) == ["`selector` and `targetRefs` exclude each other; keep `selector` to speak to workloads"]


def test_a_list_of_documents() -> None:
    items = [json.loads(of("a")), json.loads(of("b"))]
    whole = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthenticationList", "items": items}
    assert issuers(json.dumps(whole).encode()) == ["a", "b"]
