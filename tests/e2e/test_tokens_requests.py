"""Tokens in live requests: what is verified, what a caller is told, what is on record, what the application sees."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from mesh import ALLOW_ALL, Backend, Mesh, Message, Sidecar, get, policy
from token_issuer import Issuer

from proxy.authn import KeySet
from proxy.jwks.fetch import Fetcher
from proxy.jwks.target import FetchError

ISSUER = Issuer()
OTHER = Issuer("https://other.example", kid="two")
STRANGER = Issuer("https://stranger.example", kid="three")
FORGER = Issuer(ISSUER.name, kid="forged")

MUST = policy("must", '[{from: [{source: {notRequestPrincipals: ["*"]}}]}]', action="DENY")
ALICE = policy("alice", '[{from: [{source: {requestPrincipals: ["https://issuer.example/alice"]}}]}]')


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


async def ask(mesh: Mesh, to: Sidecar, *requests: bytes) -> list[Message]:
    """Send requests on one connection and give the answers."""
    client = await mesh.client(to)
    answers = []
    for request in requests:
        await client.send(request)
        answers.append(await client.message(to=request.partition(b" ")[0]))
    return answers


async def sidecar(mesh: Mesh, backend: Backend, *policies: str) -> Sidecar:
    return await mesh.sidecar("orders", app=backend, policies="---\n".join(policies))


@pytest.mark.asyncio
async def test_a_valid_token_passes_and_policy_judges_who_it_names(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), ALICE)
    answers = await ask(
        mesh,
        orders,
        get("/a", bearer(ISSUER.token())),
        get("/b", bearer(ISSUER.token(sub="bob"))),
        get("/c"),
        get("/d", bearer(ISSUER.token())),
    )
    assert [answer.status for answer in answers] == [200, 403, 403, 200]
    assert [request.target for request in backend.requests] == [b"/a", b"/d"]
    records = await orders.records(4, kind="request")
    assert [record["decision"] for record in records] == ["allow", "deny", "deny", "allow"]
    assert records[0]["policy"] == "ns[demo]-policy[alice]-rule[0]"
    assert {record["reason"] for record in records[1:3]} == {"denied_by_policy"}
    assert "https://issuer.example/bob" in str(records[1]["nearest_miss"])


@pytest.mark.asyncio
async def test_without_a_token_authentication_passes_and_policy_may_demand_one(mesh: Mesh) -> None:
    backend = await mesh.backend()
    for demand, status in (("", 200), (MUST, 403)):
        orders = await sidecar(mesh, backend, ISSUER.authentication(), ALLOW_ALL, *([demand] if demand else []))
        [without, given] = await ask(mesh, orders, get(), get("/", bearer(ISSUER.token())))
        assert (without.status, given.status) == (status, 200)


def rewritten(token: str, **header: Any) -> str:
    """A token with another header in front of the same payload and signature."""
    first = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([first, *token.split(".")[1:]])


async def _never(self: Fetcher, uri: str, seconds: float) -> KeySet:
    raise FetchError("nobody can be reached")


REFUSED: dict[str, tuple[Callable[[], str], int, bytes]] = {
    "malformed": (functools.partial(str, "a.b"), 401, b"Jwt is not in the form of Header.Payload.Signature"),
    "algorithm_refused": (
        lambda: rewritten(ISSUER.token(), alg="none"),
        401,
        b"Jwt header [alg] is not supported",
    ),
    "issuer_unknown": (STRANGER.token, 401, b"Jwt issuer is not configured"),
    "key_unknown": (FORGER.token, 401, b"Jwks doesn't have key to match kid or alg from Jwt"),
    "signature_invalid": (
        lambda: rewritten(ISSUER.token(), alg="ES256", kid="one", typ="other"),
        401,
        b"Jwt verification fails",
    ),
    "expired": (lambda: ISSUER.token(lives=-1), 401, b"Jwt is expired"),
    "not_yet_valid": (lambda: ISSUER.token(nbf=2_000_000_000 * 2), 401, b"Jwt not yet valid"),
    "audience_refused": (lambda: OTHER.token(aud="elsewhere"), 403, b"Audiences in Jwt are not allowed"),
    "keys_unavailable": (STRANGER.token, 401, b"Jwks remote fetch is failed"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("word", REFUSED)
async def test_a_token_that_does_not_count_is_refused_with_its_reason(
    mesh: Mesh, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fetcher, "fetch", _never)
    make, status, body = REFUSED[word]
    backend = await mesh.backend()
    rules = [ISSUER.authentication(), OTHER.authentication("other", audiences=["orders"])]
    if word == "keys_unavailable":
        rules.append(STRANGER.authentication("stranger", jwksUri="https://unreachable.invalid/keys"))
    orders = await sidecar(mesh, backend, *rules, ALLOW_ALL)
    answer, head, after = await ask(
        mesh,
        orders,
        get("/x?secret=1", bearer(make())),
        get("/x", bearer(make()), method="HEAD"),
        get("/y"),
    )
    assert (answer.status, answer.body, head.status, head.body) == (status, body, status, b"")
    assert answer.get("content-type") == b"text/plain"
    challenge = b'Bearer realm="http://orders/x", error="invalid_token"' if status == 401 else None
    assert answer.get("www-authenticate") == head.get("www-authenticate") == challenge
    assert head.get("content-length") == b"%d" % len(body)
    assert after.status == 200, "the connection goes on"
    assert [request.target for request in backend.requests] == [b"/y"]
    record, *_ = await orders.records(3, kind="request")
    assert (record["decision"], record["reason"], record["policy"]) == ("deny", f"token_{word}", "none")
    assert (record["response_code"], record["bytes_sent"], record["generation"]) == (status, len(body), 1)
    assert record["response_code_details"] == f"jwt_authn_access_denied{{{body.decode().replace(' ', '_')}}}"
    assert record["explanation"]
    assert answer.get("x-request-id") == record["request_id"].encode()


@pytest.mark.asyncio
async def test_two_tokens_are_refused(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), OTHER.authentication("other"), ALLOW_ALL)
    tokens = ISSUER.token(), OTHER.token()
    [answer] = await ask(mesh, orders, get(f"/?access_token={tokens[1]}", bearer(tokens[0])))
    assert (answer.status, answer.body) == (401, b"Jwt verification fails")
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "tokens_conflict"
    assert not backend.requests


@pytest.mark.asyncio
async def test_a_preflight_request_passes_authentication_and_is_judged_by_policy(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), MUST, ALLOW_ALL)
    lines = "Origin: https://shop.example", "Access-Control-Request-Method: PUT"
    [answer] = await ask(mesh, orders, get("/", *lines, bearer("nonsense"), method="OPTIONS"))
    assert (answer.status, answer.body) == (403, b"RBAC: access denied")
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "denied_by_policy"


# --- what the application sees ---


@pytest.mark.asyncio
@pytest.mark.parametrize("forward", [False, True])
async def test_the_token_goes_on_only_where_the_rule_says_so(mesh: Mesh, forward: bool) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(forwardOriginalToken=forward), ALLOW_ALL)
    token = ISSUER.token()
    await ask(mesh, orders, get("/in-header", bearer(token)), get(f"/in-query?a=1&access_token={token}&b=2"))
    in_header, in_query = backend.requests
    assert in_header.get("authorization") == (f"Bearer {token}".encode() if forward else None)
    assert in_query.target == (f"/in-query?a=1&access_token={token}&b=2".encode() if forward else b"/in-query?a=1&b=2")
    if not forward:
        assert token.encode() not in backend.received


@pytest.mark.asyncio
async def test_claims_go_on_in_headers_that_a_client_cannot_write(mesh: Mesh) -> None:
    backend = await mesh.backend()
    rule = ISSUER.authentication(
        outputPayloadToHeader="x-payload",
        outputClaimToHeaders=[{"header": "x-role", "claim": "role"}, {"header": "x-tenant", "claim": "tenant"}],
    )
    orders = await sidecar(mesh, backend, rule, ALLOW_ALL)
    own = "X-Role: admin", "x-payload: forged", "X-TENANT: other"
    token = ISSUER.token(role="reader")
    await ask(mesh, orders, get("/with", *own, bearer(token)), get("/without", *own), get("/neither"))
    with_token, without, neither = backend.requests
    assert with_token.all("x-role") == [b"reader"]
    assert with_token.all("x-payload") == [token.split(".")[1].encode()]
    assert with_token.all("x-tenant") == []
    for request in (without, neither):
        assert not [name for name, _ in request.headers if name in (b"x-role", b"x-payload", b"x-tenant")]


@pytest.mark.asyncio
async def test_a_trailer_cannot_stand_for_a_claim(mesh: Mesh) -> None:
    backend = await mesh.backend()
    rule = ISSUER.authentication(outputClaimToHeaders=[{"header": "x-role", "claim": "role"}])
    orders = await sidecar(mesh, backend, rule, ALLOW_ALL)
    client = await mesh.client(orders)
    await client.send(
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Role: admin\r\nX-Checksum: 7\r\n\r\n"
    )
    assert (await client.message()).status == 200
    assert b"x-checksum: 7" in backend.received.lower()
    assert b"admin" not in backend.received


@pytest.mark.asyncio
async def test_a_token_in_a_query_is_not_on_record(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), ALLOW_ALL)
    good, bad = ISSUER.token(), FORGER.token()
    await ask(mesh, orders, get(f"/a?x=1&access_token={good}&y=2"), get(f"/b?access_token={bad}"))
    records = await orders.records(2, kind="request")
    assert [record["path"] for record in records] == ["/a?x=1&access_token=***&y=2", "/b?access_token=***"]
    log = (orders.directory / "access.log").read_text()
    assert good not in log
    assert bad not in log


@pytest.mark.asyncio
async def test_policy_sees_what_the_application_sees(mesh: Mesh) -> None:
    backend = await mesh.backend()
    rule = ISSUER.authentication(outputClaimToHeaders=[{"header": "x-role", "claim": "role"}])
    admins = policy("admins", '[{when: [{key: "request.headers[x-role]", values: ["admin"]}]}]')
    orders = await sidecar(mesh, backend, rule, admins)
    answers = await ask(
        mesh,
        orders,
        get("/", "x-role: admin"),
        get("/", "x-role: admin", bearer(ISSUER.token(role="reader"))),
        get("/", bearer(ISSUER.token(role="admin"))),
    )
    assert [answer.status for answer in answers] == [403, 403, 200]


@pytest.mark.asyncio
async def test_a_body_follows_the_rewritten_head(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), ALLOW_ALL)
    [answer] = await ask(mesh, orders, get("/", bearer(ISSUER.token()), method="POST", body=b"x" * 100_000))
    assert answer.status == 200
    assert backend.requests[0].body == b"x" * 100_000
    assert backend.requests[0].get("authorization") is None


# --- policy on claims, and the memory of decisions ---


@pytest.mark.asyncio
async def test_policy_looks_into_the_claims(mesh: Mesh) -> None:
    backend = await mesh.backend()
    readers = policy(
        "readers",
        '[{when: [{key: "request.auth.claims[groups]", values: ["readers"]},'
        ' {key: "request.auth.audiences", values: ["orders"]},'
        ' {key: "request.auth.claims[realm][name]", values: ["shop*"]}]}]',
    )
    orders = await sidecar(mesh, backend, ISSUER.authentication(), readers)
    right: dict[str, Any] = {"groups": ["writers", "readers"], "aud": "orders", "realm": {"name": "shop-1"}}
    wrong = [{**right, "groups": ["writers"]}, {**right, "aud": "billing"}, {**right, "realm": {"name": "bank"}}]
    answers = await ask(
        mesh, orders, *(get("/", bearer(ISSUER.token(**claims))) for claims in (right, *wrong, {})), get("/")
    )
    assert [answer.status for answer in answers] == [200, 403, 403, 403, 403, 403]


@pytest.mark.asyncio
async def test_the_memory_of_decisions_confuses_no_two_callers(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await sidecar(mesh, backend, ISSUER.authentication(), MUST, ALLOW_ALL)
    token = bearer(ISSUER.token())
    answers = await ask(mesh, orders, *[get("/same", token), get("/same")] * 3)
    assert [answer.status for answer in answers] == [200, 403] * 3
    nobody = policy("nobody", '[{from: [{source: {requestPrincipals: ["*"]}}]}]', action="DENY")
    orders = await sidecar(mesh, backend, ISSUER.authentication(), nobody, ALLOW_ALL)
    answers = await ask(mesh, orders, *[get("/same"), get("/same", token)] * 3)
    assert [answer.status for answer in answers] == [200, 403] * 3
