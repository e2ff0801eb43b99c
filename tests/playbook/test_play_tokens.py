"""What tokens change on the way of a request: the head that goes out, answers of our own, how long a tunnel stands."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import dataclasses

import pytest
from stage import Stage, denial, get, ok, permit

from proxy.errors import Reason
from proxy.forward.answer import challenge
from proxy.protocol.stream import Field, Kind, RequestHead
from proxy.types import Denial, Permit

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
UPGRADE = get(b"/chat", b"connection: upgrade", b"upgrade: websocket")
TOKEN_REASONS = [reason for reason in Reason if reason.word.startswith("token")]


def without_authorization(head: RequestHead) -> RequestHead:
    kept = [field for field in head.fields if field.name != b"authorization"]
    added = Field(b"x-user", b"alice", b"x-user: alice\r\n", Kind.FORWARD)
    return dataclasses.replace(head, query=b"?a=1", fields=[*kept, added])


def until(expires_at: float) -> Permit:
    return dataclasses.replace(permit(), expires_at=expires_at)


# --- the head that goes out ---


def test_the_head_goes_out_rewritten_and_is_judged_again_as_it_came(stage: Stage) -> None:
    client = stage.client()
    seen: list[RequestHead] = []

    def judge(head: RequestHead) -> Permit:
        seen.append(head)
        return permit()

    client.route.verdict, client.route.rewrite = judge, without_authorization
    client >> get(b"/?access_token=t&a=1", b"authorization: Bearer t", b"accept: */*")
    assert stage.app << b"GET /?a=1 HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-user: alice\r\n\r\n"
    client.pump.judge_again()
    assert len(seen) == 2
    assert seen[0] is seen[1]
    assert (b"authorization", b"Bearer t") in [field[:2] for field in seen[0].fields]
    stage.app >> ok(b"fine")
    assert client.heard().endswith(b"fine")


def test_a_retry_sends_the_same_rewritten_head(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok()
    client.heard()
    first = stage.app
    first.heard()
    client.route.rewrite = without_authorization
    client >> get(b"/", b"authorization: Bearer t")
    sent = first.heard()
    first.resets()
    assert stage.app is not first
    assert stage.app << sent
    assert b"x-user: alice" in sent
    assert b"Bearer" not in sent


# --- answers of our own ---


@pytest.mark.parametrize("reason", TOKEN_REASONS, ids=lambda reason: reason.word)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_refused_token_is_answered_by_its_reason_and_no_more(stage: Stage, reason: Reason, method: bytes) -> None:
    client = stage.client()
    client.route.verdict = denial(reason)
    client >> get(b"/private?access_token=t").replace(b"GET", method)
    heard = client.heard()
    head, _, body = heard.partition(b"\r\n\r\n")
    consequence = reason.consequence
    assert head.startswith(b"HTTP/1.1 %d " % consequence.status)
    assert b"content-length: %d\r\n" % len(consequence.body) in head
    assert body == (b"" if method == b"HEAD" else consequence.body)
    assert b"no rule allows it" not in heard
    told = b'www-authenticate: Bearer realm="http://a/private", error="invalid_token"' in head
    assert told is (consequence.status == 401)
    assert b"access_token" not in heard
    (record,) = client.route.records
    assert (record.reason, record.response_code) == (reason, consequence.status)
    assert record.bytes_sent == len(body)
    client.route.verdict = permit()
    client >> get()
    assert stage.app.heard(), "the connection goes on"


@pytest.mark.parametrize("reason", TOKEN_REASONS, ids=lambda reason: reason.word)
def test_the_record_has_envoys_words_for_it(reason: Reason) -> None:
    words = reason.consequence.body.decode().replace(" ", "_")
    verdict: Denial = denial(reason)
    assert verdict.details == f"jwt_authn_access_denied{{{words}}}"
    assert denial().details == "rbac_access_denied_matched_policy[none]"


def head_for(authority: bytes, path: bytes) -> RequestHead:
    return RequestHead(
        stream=1,
        method=b"GET",
        target=path,
        path=path,
        query=b"",
        authority=authority,
        version=b"1.1",
        fields=[],
        content_length=0,
        has_length=False,
        keep_alive=True,
        expects_continue=False,
        upgrade=b"",
    )


@pytest.mark.parametrize(
    ("authority", "path", "expected"),
    [
        (b"orders:8080", b"/a", b'Bearer realm="http://orders:8080/a", error="invalid_token"'),
        (b"", b"/a", b'Bearer error="invalid_token"'),
        (b"a", b'/"x\\', b'Bearer realm="http://a/\\"x\\\\", error="invalid_token"'),
        (b"a", b"/\r\nx\xff\x00", b'Bearer realm="http://a/x", error="invalid_token"'),
        (b"a", b"/" * 1000, b'Bearer realm="http://a%b", error="invalid_token"' % (b"/" * 248)),
    ],
)
def test_a_challenge_is_one_quoted_string_whatever_was_asked(authority: bytes, path: bytes, expected: bytes) -> None:
    assert challenge(head_for(authority, path)) == expected


# --- tunnels ---


def test_a_tunnel_ends_with_its_token(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = until(stage.clock.now + 20)
    client >> UPGRADE
    stage.app >> SWITCH
    stage.wait(19)
    client >> b"busy"
    assert client.end is None
    stage.wait(1)
    assert client.end is Reason.TOKEN_EXPIRED
    assert client.route.records[0].reasons == [Reason.TOKEN_EXPIRED]
    assert client.wire.aborted
    assert stage.app.closed


@pytest.mark.parametrize(
    ("certificate", "token", "reason"),
    [(10, 20, Reason.PEER_CERTIFICATE_ENDED), (20, 10, Reason.TOKEN_EXPIRED)],
)
def test_whichever_ends_first_is_the_reason(stage: Stage, certificate: int, token: int, reason: Reason) -> None:
    client = stage.client(ends_at=stage.clock.now + certificate)
    client.route.verdict = until(stage.clock.now + token)
    client >> UPGRADE
    stage.app >> SWITCH
    stage.wait(10)
    assert client.end is reason


def test_a_token_that_ends_while_an_answer_runs_ends_nothing(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = until(stage.clock.now + 1)
    client >> get()
    stage.app >> ok(b"one", length=6)
    stage.wait(5)
    stage.app >> b"two"
    assert client.heard().endswith(b"onetwo")
    assert client.end is None


def test_what_is_denied_before_the_101_never_becomes_a_tunnel(stage: Stage) -> None:
    client = stage.client()
    client >> UPGRADE
    client.route.verdict = denial(Reason.TOKEN_EXPIRED)
    stage.app >> SWITCH + b"secret"
    heard = client.heard()
    assert heard.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in heard
    assert b"secret" not in heard
    assert stage.app.closed
    (record,) = client.route.records
    assert (record.reason, record.response_code) == (Reason.TOKEN_EXPIRED, 401)
    assert isinstance(record.verdicts[-1], Denial)
    client.ends()
    assert client.end is not None


def test_a_tunnel_stands_on_the_newest_permit(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = until(stage.clock.now + 500)
    client >> UPGRADE
    client.route.verdict = until(stage.clock.now + 5)
    stage.app >> SWITCH
    stage.wait(5)
    assert client.end is Reason.TOKEN_EXPIRED
