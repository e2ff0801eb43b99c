"""Key sets in the background: when they are fetched, what a failure changes, what is told and when."""

from __future__ import annotations

import logging
import types
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from proxy.authn.keys import KeySet
from proxy.jwks.store import FIRST_RETRY, KEPT_FOR, LONGEST_RETRY, REFRESH_INTERVAL, KeyStore
from proxy.jwks.target import FetchError

URI = "https://issuer.example/keys"
OTHER = "https://other.example/keys"


def key_set(digest: str) -> KeySet:
    return KeySet(keys=(), digest=digest)


@types.coroutine
def _park(what: Any) -> Generator[Any, Any, Any]:
    return (yield what)


class Work:
    """The task that fetches one URI: it fetches, or sleeps, and goes on when the test says so."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.work = work
        self.at = work.send(None)
        self.cancelled = False

    def answer(self, digest: str) -> None:
        assert isinstance(self.at, tuple)
        self.at = self.work.send(key_set(digest))

    def fail(self, why: str = "it answered 503") -> None:
        assert isinstance(self.at, tuple)
        self.at = self.work.throw(FetchError(why))

    def wake(self) -> None:
        assert isinstance(self.at, float)
        self.at = self.work.send(None)

    def cancel(self) -> None:
        self.cancelled = True
        self.work.close()


class Shelf:
    """A store on a clock that moves when told; `changes` counts what it told."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.changes = 0
        self.now = 0.0
        self.store = KeyStore(
            fetch=lambda uri, seconds: _park((uri, seconds)),
            spawn=self._spawn,
            changed=self._changed,
            now=lambda: self.now,
            sleep=_park,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> Any:
        self.works.append(Work(work))
        return self.works[-1]

    def _changed(self) -> None:
        self.changes += 1

    def digest(self, uri: str = URI) -> str | None:
        keys = self.store.keys(uri)
        return None if keys is None else keys.digest


@pytest.fixture
def shelf() -> Any:
    shelf = Shelf()
    yield shelf
    shelf.store.follow({})
    assert all(work.cancelled for work in shelf.works)


def test_a_uri_is_fetched_at_once_and_again_after_five_minutes(shelf: Shelf) -> None:
    shelf.store.follow({URI: 2.0})
    [work] = shelf.works
    assert work.at == (URI, 2.0)
    assert shelf.digest() is None
    work.answer("a")
    assert (shelf.digest(), shelf.changes, work.at) == ("a", 1, REFRESH_INTERVAL)
    work.wake()
    assert work.at == (URI, 2.0)


def test_only_other_keys_are_a_change(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    for digest, changes in (("a", 1), ("a", 1), ("b", 2)):
        work.answer(digest)
        work.wake()
        assert (shelf.digest(), shelf.changes) == (digest, changes)


def test_a_failure_is_tried_again_soon_then_seldom_then_as_before(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    waits = []
    for _ in range(7):
        work.fail()
        waits.append(work.at)
        work.wake()
    assert waits == [FIRST_RETRY, 2.0, 4.0, 8.0, 16.0, LONGEST_RETRY, LONGEST_RETRY]
    work.answer("a")
    work.wake()
    work.fail()
    assert work.at == FIRST_RETRY


def test_a_failure_keeps_the_last_keys_for_an_hour_and_no_longer(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    work.answer("a")
    work.wake()
    shelf.now = KEPT_FOR - 1
    work.fail()
    assert (shelf.digest(), shelf.changes) == ("a", 1)
    work.wake()
    shelf.now = KEPT_FOR
    work.fail()
    assert (shelf.digest(), shelf.changes) == (None, 2)
    work.wake()
    work.fail()
    assert shelf.changes == 2
    work.wake()
    work.answer("a")
    assert (shelf.digest(), shelf.changes) == ("a", 3)


def test_the_hour_begins_with_the_last_success(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    work.answer("a")
    work.wake()
    shelf.now = KEPT_FOR - 1
    work.answer("a")
    work.wake()
    shelf.now = KEPT_FOR + 1
    work.fail()
    assert shelf.digest() == "a"


def test_before_there_are_keys_a_failure_leads_to_none(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0, OTHER: 5.0})
    shelf.works[1].answer("other's")
    shelf.works[0].fail()
    assert shelf.digest() is None
    assert shelf.store.up() == {(URI,): 0.0, (OTHER,): 1.0}


def test_what_policy_names_no_more_is_forgotten(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0, OTHER: 5.0})
    for work in shelf.works:
        work.answer("a")
    shelf.store.follow({OTHER: 5.0})
    assert shelf.works[0].cancelled
    assert not shelf.works[1].cancelled
    assert (shelf.digest(URI), shelf.digest(OTHER)) == (None, "a")
    assert shelf.store.up() == {(OTHER,): 1.0}
    shelf.store.follow({URI: 5.0, OTHER: 5.0})
    assert len(shelf.works) == 3
    assert shelf.digest(URI) is None


def test_a_changed_timeout_holds_from_the_next_fetch(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    work.answer("a")
    shelf.store.follow({URI: 7.0})
    work.wake()
    assert (work.at, len(shelf.works)) == ((URI, 7.0), 1)


def test_up_follows_the_last_fetch(shelf: Shelf) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    seen = [shelf.store.up()[URI,]]
    work.answer("a")
    seen.append(shelf.store.up()[URI,])
    work.wake()
    work.fail()
    seen.append(shelf.store.up()[URI,])
    work.wake()
    work.answer("a")
    seen.append(shelf.store.up()[URI,])
    assert seen == [0.0, 1.0, 0.0, 1.0]


def test_keys_that_are_left_out_are_told_when_they_come(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    for _ in range(2):
        work.at = work.work.send(KeySet(keys=(), digest="a", skipped=("key 0 is too short",)))
        work.wake()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [f"the key set {URI}: key 0 is too short"]


def test_a_failure_is_told_once(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "remora.jwks")
    shelf.store.follow({URI: 5.0})
    [work] = shelf.works
    for why in ("it answered 503", "it answered 503", "it answered 302"):
        work.fail(why)
        work.wake()
    work.answer("a")
    work.wake()
    work.answer("a")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "WARNING", "INFO", "INFO"]
    assert "its tokens are refused: it answered 503" in told[0][1]
    assert "it answered 302" in told[1][1]
    assert "again" in told[2][1]
    work.wake()
    work.fail()
    assert "its last keys still count" in caplog.records[-1].getMessage()
