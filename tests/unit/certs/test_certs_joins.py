"""A join token makes one certificate, once, in time; the book of them holds no token."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from certs.joins import MAX_TOKENS, JoinBook, JoinBookError, is_join_token, new_token, token_hash
from certs.refusals import Refusal, Refused
from certs.spiffe import SpiffeId

LAPTOP = SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
TOKEN = "remora-join-" + "A" * 43
NOW = 1_900_000_000.0


@pytest.fixture
def book() -> JoinBook:
    return JoinBook().create(TOKEN, LAPTOP, made_by="alice", now=NOW)


def reason_of(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refused) as caught:
        call()
    assert TOKEN not in str(caught.value)
    return caught.value.reason


def test_a_token_is_good_once(book: JoinBook) -> None:
    used, spiffe_id = book.redeem(TOKEN, NOW + 1)
    assert spiffe_id == LAPTOP
    assert reason_of(lambda: used.redeem(TOKEN, NOW + 2)) is Refusal.JOIN_TOKEN_USED
    assert used.entries[token_hash(TOKEN)].used_at == NOW + 1


def test_the_book_from_before_is_untouched(book: JoinBook) -> None:
    book.redeem(TOKEN, NOW)
    assert book.entries[token_hash(TOKEN)].used_at is None


def test_a_token_ends_after_ten_minutes(book: JoinBook) -> None:
    assert book.redeem(TOKEN, NOW + 599.9)[1] == LAPTOP
    assert reason_of(lambda: book.redeem(TOKEN, NOW + 600)) is Refusal.JOIN_TOKEN_EXPIRED


@pytest.mark.parametrize("token", ["", "\ud800", TOKEN[:-1], TOKEN + "A", TOKEN.lower(), "remora-join-" + "B" * 43])
def test_another_text_is_unknown(book: JoinBook, token: str) -> None:
    with pytest.raises(Refused) as caught:
        book.redeem(token, NOW)
    assert caught.value.reason is Refusal.JOIN_TOKEN_UNKNOWN


def test_a_used_token_is_remembered_until_it_would_have_expired(book: JoinBook) -> None:
    used, _ = book.redeem(TOKEN, NOW)
    assert reason_of(lambda: used.pruned(NOW + 599).redeem(TOKEN, NOW + 599)) is Refusal.JOIN_TOKEN_USED
    assert reason_of(lambda: used.redeem(TOKEN, NOW + 601)) is Refusal.JOIN_TOKEN_USED
    assert used.pruned(NOW + 600) == JoinBook()


def test_a_clock_that_went_forth_and_back_does_not_revive_a_used_token(book: JoinBook) -> None:
    used, _ = book.redeem(TOKEN, NOW)
    assert reason_of(lambda: used.pruned(NOW + 3600).redeem(TOKEN, NOW)) is Refusal.JOIN_TOKEN_UNKNOWN


def test_what_is_stored_holds_no_token_and_comes_back_whole(book: JoinBook) -> None:
    used, _ = book.redeem(TOKEN, NOW + 1)
    stored = used.to_json()
    assert TOKEN.encode() not in stored
    assert b"A" * 43 not in stored
    assert JoinBook.from_json(stored, "joins.json") == used
    assert TOKEN not in repr(used)


def test_tokens_differ_and_are_recognised() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(map(is_join_token, tokens))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": "secret"}, "use `new_token`"),
        ({"spiffe_id": SpiffeId.parse("spiffe://cluster.local")}, "names no workload"),
        ({"lifetime": 0.0}, "between 1 and 86400"),
        ({"lifetime": 86401.0}, "between 1 and 86400"),
        ({"lifetime": float("nan")}, "between 1 and 86400"),
        ({"made_by": ""}, "name who makes"),
        ({"made_by": "a" * 129}, "name who makes"),
    ],
)
def test_a_token_that_cannot_be_made(changes: dict[str, object], words: str) -> None:
    arguments = {"token": TOKEN, "spiffe_id": LAPTOP, "made_by": "alice", "now": NOW, **changes}
    with pytest.raises(JoinBookError, match=words) as caught:
        JoinBook().create(**arguments)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_the_same_token_is_not_entered_twice(book: JoinBook) -> None:
    with pytest.raises(JoinBookError, match="already"):
        book.create(TOKEN, LAPTOP, made_by="mallory", now=NOW)


def test_the_book_is_bounded_and_makes_room_as_tokens_expire() -> None:
    entry = JoinBook().create(TOKEN, LAPTOP, made_by="alice", now=NOW).entries[token_hash(TOKEN)]
    full = JoinBook(entries={f"{number:064x}": entry for number in range(MAX_TOKENS)})
    with pytest.raises(JoinBookError, match="wait until"):
        full.create(TOKEN, LAPTOP, made_by="alice", now=NOW)
    assert len(full.create(TOKEN, LAPTOP, made_by="alice", now=NOW + 600).entries) == 1
    assert len(full.to_json()) < 512 * 1024


def _changed(**changes: object) -> bytes:
    entry = {"spiffe_id": str(LAPTOP), "made_by": "alice", "made_at": NOW, "expires_at": NOW + 600, "used_at": None}
    return json.dumps({"version": 1, "tokens": {"0" * 64: {**entry, **changes}}}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no object"),
        (b'{"version": 1}', '"tokens" is missing'),
        (b'{"version": 2, "tokens": {}}', "another release"),
        (b'{"version": true, "tokens": {}}', "another release"),
        (b'{"version": 1, "tokens": []}', '"tokens" is no object'),
        (b'{"version": 1, "tokens": {}, "more": 1}', "'more' is not known"),
        (b'{"version": 1, "version": 1, "tokens": {}}', "twice"),
        (b'{"version": 1, "tokens": {"remora-join-AAAA": {}}}', "token 1 is not named by a SHA-256"),
        (_changed(spiffe_id="spiffe://Cluster.local/a"), '"spiffe_id"'),
        (_changed(spiffe_id="spiffe://cluster.local"), "names no workload"),
        (_changed(spiffe_id=7), '"spiffe_id"'),
        (_changed(made_by=None), '"made_by"'),
        (_changed(made_at="now"), '"made_at"'),
        (_changed(made_at=True), '"made_at"'),
        (_changed(made_at=-1), '"made_at"'),
        (_changed(expires_at=10**400), '"expires_at"'),
        (_changed(expires_at=float("nan")), "no JSON"),
        (_changed(expires_at=NOW), '"expires_at" does not lie'),
        (_changed(expires_at=NOW + 86401), '"expires_at" does not lie'),
        (_changed(used_at=False), '"used_at"'),
        (_changed(secret="x"), "'secret' is not known"),
    ],
)
def test_a_book_that_cannot_be_read_says_where_and_how_to_mend_it(data: bytes, words: str) -> None:
    with pytest.raises(JoinBookError, match=words) as caught:
        JoinBook.from_json(data, "state/joins.json")
    assert str(caught.value).startswith("state/joins.json: ")
    assert "restore it from a backup" in str(caught.value)
    assert "remora-join-AAAA" not in str(caught.value)
