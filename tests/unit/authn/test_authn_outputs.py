"""What the application sees: no token, no header that a client forged, and the claims of who was verified."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from authn_world import NOW, bearer, head, judge, no_keys, rule, token

from proxy.authn import Authentication, HeaderPlace, JwtRule, forwarded
from proxy.authn.outputs import claim_text
from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import header_attributes, write_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead

OUTPUTS: dict[str, Any] = {
    "payload_header": "x-payload",
    "claim_headers": {"x-sub": "sub", "x-role": "realm.role"},
}


def passed_on(rules: list[JwtRule] | JwtRule, request: RequestHead) -> RequestHead:
    authentication = Authentication([rules] if isinstance(rules, JwtRule) else rules)
    return forwarded(request, authentication.authenticate(request, no_keys, NOW), authentication)


def lines(request: RequestHead) -> list[bytes]:
    return [field.line.removesuffix(b"\r\n") for field in request.fields]


def test_the_verified_token_is_taken_out_unless_its_rule_forwards_it() -> None:
    carried = token()
    request = head(b"x: 1", bearer(carried), query=b"?a=%41&access_token=" + carried + b"&b")
    seen = passed_on(rule(), request)
    assert (lines(seen), seen.query) == ([b"x: 1"], b"?a=%41&b")
    kept = passed_on(rule(forward_original=True), request)
    assert (lines(kept), kept.query) == (lines(request), request.query)


def test_the_token_is_taken_out_of_the_places_of_all_rules() -> None:
    carried = token()
    other = rule(issuer="https://other.example", headers=(HeaderPlace(name=b"x-b"),), params=(), cookies=("c",))
    seen = passed_on([rule(), other], head(bearer(carried), b"x-b: " + carried, b"cookie: c=" + carried + b"; d=1"))
    assert lines(seen) == [b"cookie: d=1"]


def test_a_request_without_a_token_goes_on_as_it_came() -> None:
    request = head(b"x: 1", b"authorization: Basic abc", query=b"?a")
    assert passed_on(rule(), request) is request


def test_an_unverified_token_of_another_rule_stays() -> None:
    other = rule(issuer="https://other.example", headers=(HeaderPlace(name=b"x-b"),), params=())
    assert lines(passed_on([rule(), other], head(bearer(token()), b"x-b: bad"))) == [b"x-b: bad"]


def test_outputs_of_a_verified_token() -> None:
    carried = token(realm={"role": "admin"}, forward=True)
    seen = passed_on(rule(**OUTPUTS), head(b"x: 1", bearer(carried)))
    payload = carried.split(b".")[1]
    assert lines(seen) == [b"x: 1", b"x-payload: " + payload, b"x-sub: alice", b"x-role: admin"]
    assert json.loads(base64.urlsafe_b64decode(payload + b"==="))["sub"] == "alice"
    assert header_attributes(seen)[-1] == (b"x-role", b"admin"), "policy sees them"


@pytest.mark.parametrize("carried", [None, token()])
def test_a_clients_copies_are_dropped_always(carried: bytes | None) -> None:
    forged = [b"X-SUB: admin", b"x-role: root", b"x-payload: e30", b"x-sub: admin"]
    request = head(*forged, b"x: 1", *([bearer(carried)] if carried else []))
    seen = passed_on(rule(**OUTPUTS), request)
    left = [line for line in lines(seen) if line != b"x: 1" and not line.startswith(b"x-payload: ey")]
    assert left == ([b"x-sub: alice"] if carried else [])


def test_a_clients_copies_are_dropped_from_a_preflight_request_too() -> None:
    request = head(b"origin: https://a", b"access-control-request-method: PUT", b"x-sub: admin", method=b"OPTIONS")
    assert lines(passed_on(rule(**OUTPUTS), request)) == lines(request)[:2]


def test_outputs_of_one_rule_are_no_place_for_clients_of_another() -> None:
    other = rule(issuer="https://other.example", claim_headers={"x-tenant": "tenant"})
    seen = passed_on([rule(**OUTPUTS), other], head(bearer(token()), b"x-tenant: t"))
    assert [line for line in lines(seen) if line.startswith(b"x-tenant")] == []


def test_the_names_claimed() -> None:
    authentication = Authentication([rule(**OUTPUTS), rule(), rule(claim_headers={"x-b": "b"})])
    assert authentication.claimed_headers == {b"x-payload", b"x-sub", b"x-role", b"x-b"}


def test_a_failed_request_gets_no_outputs() -> None:
    authentication = Authentication([rule(**OUTPUTS)])
    request = head(bearer(b"bad"), b"x-sub: admin")
    found = judge(authentication, request)
    assert found.failure is not None
    assert lines(forwarded(request, found, authentication)) == [bearer(b"bad")]


# --- claims as values ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("alice", "alice"),
        ("a b, c;d", "a b, c;d"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, ""),
        (-(2**63) - 1, ""),
        (1.5, ""),
        (None, ""),
        ([], ""),
        (["a"], ""),
        ({"a": 1}, ""),
        ("", ""),
        (" ", ""),
        (" admin", ""),
        ("admin ", ""),
        ("\tadmin", ""),
        ("a\r\nx-role: root", ""),
        ("a\nb", ""),
        ("a\rb", ""),
        ("a\0b", ""),
        ("a\tb", ""),
        ("a\x7fb", ""),
        ("José", ""),
        ("admin\u00a0", ""),
        ("a\u2028b", ""),
        ("😀", ""),
    ],
)
def test_which_values_are_written(value: Any, text: str) -> None:
    assert claim_text({"claim": value}, "claim") == text


def test_dots_lead_into_objects() -> None:
    claims = {"a": {"b": {"c": "x"}, "d": ["y"]}, "a.b": "no", "s": "t"}
    assert claim_text(claims, "a.b.c") == "x"
    for nothing in ("a", "a.b", "a.x", "a.d", "a.d.0", "s.t", "x", "A.b.c", "a.b.c.d"):
        assert claim_text(claims, nothing) == ""


def test_what_is_written_passes_the_gate_again() -> None:
    evil: dict[str, Any] = {"sub": "a\r\nx-evil: 1", "realm": {"role": "r\0"}, "name": "ok, fine"}
    written = {"x-sub": "sub", "x-role": "realm.role", "x-name": "name"}
    seen = passed_on(rule(claim_headers=written, payload_header="x-payload"), head(bearer(token(**evil))))
    wire = write_request_head(seen, strip_reserved=True)
    again = parse_request_head(wire, limits=HeadLimits(), normalization=PathNormalization.BASE)
    assert [field.name for field in again.fields if field.name.startswith(b"x-")] == [b"x-payload", b"x-name"]
