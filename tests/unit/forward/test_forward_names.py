"""Names of endpoints: what is told, when, and what a failed lookup changes."""

from __future__ import annotations

import socket
import types
from collections.abc import Coroutine, Generator
from typing import Any, cast

import pytest

from proxy.config import Address
from proxy.forward.names import LOOKUP_INTERVAL, RETRY_INTERVAL, Names


@types.coroutine
def _park(what: Any) -> Generator[Any, Any, Any]:
    return (yield what)


class Lookup:
    """The task that looks one name up: it asks, or sleeps, and goes on when the test says so."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.work = work
        self.at = work.send(None)
        self.cancelled = False

    def answer(self, *hosts: str) -> None:
        assert isinstance(self.at, tuple)
        port = self.at[1]
        self.at = self.work.send([(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts])

    def fail(self, why: str = "Name or service not known") -> None:
        assert isinstance(self.at, tuple)
        self.at = self.work.throw(socket.gaierror(socket.EAI_NONAME, why))

    def wake(self) -> None:
        assert isinstance(self.at, float)
        self.at = self.work.send(None)

    def cancel(self) -> None:
        self.cancelled = True
        self.work.close()


class Book:
    """Names with what they told."""

    def __init__(self) -> None:
        self.lookups: list[Lookup] = []
        self.told: list[list[str] | str] = []
        self.names = Names(
            resolve=lambda host, port: _park((host, port)),
            spawn=self._spawn,
            found=lambda addresses: self.told.append([str(address) for address in addresses]),
            failed=self.told.append,
            sleep=_park,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> Any:
        self.lookups.append(Lookup(work))
        return self.lookups[-1]

    def follow(self, *texts: str) -> None:
        self.names.follow(Address(host=text.rpartition(":")[0], port=int(text.rpartition(":")[2])) for text in texts)


@pytest.fixture
def book() -> Any:
    made = Book()
    yield made
    made.names.close()
    assert all(lookup.cancelled for lookup in made.lookups)


def test_addresses_need_no_lookup(book: Book) -> None:
    book.follow("10.0.0.1:80", "::1:80", "fe80::1%lo:80")
    assert book.lookups == []
    assert book.told == [["10.0.0.1:80", "[::1]:80", "[fe80::1%lo]:80"]]


def test_each_address_of_an_answer_is_an_endpoint(book: Book) -> None:
    book.follow("orders:15443", "10.0.0.9:80")
    [lookup] = book.lookups
    assert lookup.at == ("orders", 15443)
    assert book.told[-1] == ["10.0.0.9:80"]
    lookup.answer("10.0.0.1", "10.0.0.2", "10.0.0.1", "::1")
    assert book.told[-1] == ["10.0.0.1:15443", "10.0.0.2:15443", "[::1]:15443", "10.0.0.9:80"]
    assert lookup.at == LOOKUP_INTERVAL


def test_a_later_answer_replaces_the_earlier_one(book: Book) -> None:
    book.follow("orders:80")
    [lookup] = book.lookups
    lookup.answer("10.0.0.1", "10.0.0.2")
    lookup.wake()
    lookup.answer("10.0.0.3", "10.0.0.2")
    assert set(book.told[-1]) == {"10.0.0.2:80", "10.0.0.3:80"}


def test_a_failed_lookup_keeps_the_last_answer(book: Book) -> None:
    book.follow("orders:80")
    [lookup] = book.lookups
    lookup.answer("10.0.0.1")
    lookup.wake()
    lookup.fail()
    assert book.told[-1] == ["10.0.0.1:80"]
    assert lookup.at == RETRY_INTERVAL
    lookup.wake()
    lookup.answer("10.0.0.2")
    assert book.told[-1] == ["10.0.0.2:80"]


def test_a_name_that_never_resolved_is_told_when_nothing_else_is_there(book: Book) -> None:
    book.follow("one:80", "two:80")
    one, two = book.lookups
    one.fail()
    assert book.told[-1] == [], "two may still resolve"
    two.fail("Temporary failure in name resolution")
    assert cast(str, book.told[-1]).count("does not resolve") == 2
    assert "Temporary failure" in book.told[-1]
    one.wake()
    one.answer("10.0.0.1")
    assert book.told[-1] == ["10.0.0.1:80"]


def test_names_that_stay_keep_their_answers_and_names_that_go_are_dropped(book: Book) -> None:
    book.follow("one:80", "two:80")
    one, two = book.lookups
    one.answer("10.0.0.1")
    two.answer("10.0.0.2")
    book.follow("two:80", "three:80")
    assert one.cancelled
    assert not two.cancelled
    assert book.told[-1] == ["10.0.0.2:80"]
    book.lookups[2].answer("10.0.0.3")
    assert book.told[-1] == ["10.0.0.2:80", "10.0.0.3:80"]
    book.follow("one:80")
    assert book.told[-1] == [], "what it was is not remembered"
    book.lookups[3].fail()
    assert "one does not resolve" in book.told[-1]
