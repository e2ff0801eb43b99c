"""The small listener for pages, over real sockets: methods, unknown pages, pipelining, faults, too many callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from mesh import eventually

from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageMaker, PageRequest, PageServer

WAIT = 5.0


def broken(_: PageRequest) -> Page:
    raise ZeroDivisionError


def echo(request: PageRequest) -> Page:
    return Page(body=repr((request.method, dict(request.query), request.headers.get("x-word"), request.body)).encode())


class Caller:
    """A client of the pages."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def ask(self, request: bytes) -> None:
        async with asyncio.timeout(WAIT):
            await asyncio.get_running_loop().sock_sendall(self.sock, request)

    async def hear(self, until: bytes = b"") -> bytes:
        """Read until the answer ends in `until`, or until the end."""
        found = b""
        async with asyncio.timeout(WAIT):
            while not (until and found.endswith(until)):
                data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
                if not data:
                    return found
                found += data
        return found


class House:
    """A page server and its callers."""

    def __init__(self, pages: Mapping[str, PageMaker] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.clock = CoarseClock(loop)
        self.pages = PageServer(
            loop,
            self.clock,
            pages
            or {
                "/livez": lambda _: Page(body=b"ok\n"),
                "/broken": broken,
                "/big": lambda _: Page(body=b"x" * 300_000),
                "/echo": echo,
            },
            actions={"/echo": echo, "/do": echo},
            guard=lambda request: Page(status=403, body=b"no\n") if "x-forbidden" in request.headers else None,
        )
        self.callers: list[Caller] = []

    def call(self) -> Caller:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.callers.append(Caller(theirs))
        self.pages.admit(ours)
        return self.callers[-1]

    def close(self) -> None:
        self.pages.close()
        self.clock.stop()
        for caller in self.callers:
            caller.sock.close()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    made.close()


def get(path: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: a\r\n%b\r\n" % (method, path, b"".join(field + b"\r\n" for field in fields))


@pytest.mark.asyncio
async def test_a_page_is_answered_and_the_connection_kept(house: House) -> None:
    caller = house.call()
    for _ in range(3):
        await caller.ask(get(b"/livez"))
        answer = await caller.hear(until=b"ok\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: 3\r\n" in answer
        assert b"connection: close" not in answer


@pytest.mark.asyncio
async def test_a_query_does_not_change_the_page(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/livez?verbose"))
    assert (await caller.hear(until=b"ok\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio
async def test_head_has_a_length_and_no_body(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/livez", b"connection: close", method=b"HEAD"))
    answer = await caller.hear()
    assert b"content-length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get(b"/nowhere"), b"404"),
        (get(b"/livez", method=b"DELETE"), b"405"),
        (b"POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", b"405"),
        (get(b"/broken"), b"500"),
    ],
)
async def test_what_is_no_page_is_said_so_and_the_connection_kept(
    house: House, request_bytes: bytes, status: bytes
) -> None:
    caller = house.call()
    await caller.ask(request_bytes)
    assert (await caller.hear(until=b"\n")).startswith(b"HTTP/1.1 " + status)
    await caller.ask(get(b"/livez"))
    assert (await caller.hear(until=b"ok\n")).endswith(b"ok\n")


@pytest.mark.asyncio
async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/livez") + get(b"/nowhere") + get(b"/livez", b"connection: close"))
    answer = await caller.hear()
    assert [answer.find(status) for status in (b"200", b"404")] == sorted([answer.find(b"200"), answer.find(b"404")])
    assert answer.count(b"HTTP/1.1 ") == 3


@pytest.mark.asyncio
async def test_a_malformed_request_is_answered_once_and_closed(house: House) -> None:
    caller = house.call()
    await caller.ask(b"NONSENSE\r\n\r\n")
    assert (await caller.hear()).startswith(b"HTTP/1.1 400 ")
    await caller.ask(b"MORE NONSENSE\r\n\r\n" + get(b"/livez"))
    await asyncio.sleep(0.05)
    assert len(house.pages._connections) == 1, "it waits for the caller's end and has nothing more to say"
    caller.sock.shutdown(socket.SHUT_WR)
    assert await caller.hear() == b""


@pytest.mark.asyncio
async def test_a_big_page_arrives_whole(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/big", b"connection: close"))
    await asyncio.sleep(0.05)
    assert (await caller.hear()).endswith(b"x" * 300_000)


@pytest.mark.asyncio
async def test_a_caller_too_many_is_closed_and_a_later_one_served(house: House) -> None:
    callers = [house.call() for _ in range(64)]
    assert await house.call().hear() == b""
    callers[0].sock.close()
    async with asyncio.timeout(WAIT):
        while len(house.pages._connections) == 64:  # noqa: ASYNC110 - the server does not tell
            await asyncio.sleep(0.01)
    caller = house.call()
    await caller.ask(get(b"/livez"))
    assert (await caller.hear(until=b"ok\n")).endswith(b"ok\n")


@pytest.mark.asyncio
async def test_a_page_sees_query_headers_and_body(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/echo?a=1&b=&c=%3Cx%3E", b"X-Word: hello"))
    answer = await caller.hear(until=b")")
    assert answer.endswith(b"('GET', {'a': '1', 'b': '', 'c': '<x>'}, 'hello', b'')")
    await caller.ask(get(b"/do", b"content-length: 4", method=b"POST") + b"word")
    assert (await caller.hear(until=b")")).endswith(b"('POST', {}, None, b'word')")


@pytest.mark.asyncio
async def test_every_answer_tells_browsers_to_keep_their_hands_off(house: House) -> None:
    for path in (b"/livez", b"/nowhere", b"/broken"):
        caller = house.call()
        await caller.ask(get(path, b"connection: close"))
        answer = await caller.hear()
        for line in (
            b"x-content-type-options: nosniff",
            b"cache-control: no-store",
            b"cross-origin-resource-policy: same-origin",
        ):
            assert b"\r\n" + line + b"\r\n" in answer


@pytest.mark.asyncio
async def test_the_wrong_method_is_told_the_right_one(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/do"))
    answer = await caller.hear(until=b"\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"allow: POST\r\n" in answer
    await caller.ask(get(b"/big", b"content-length: 0", method=b"POST"))
    assert b"allow: GET, HEAD\r\n" in await caller.hear(until=b"GET\n")


@pytest.mark.asyncio
async def test_the_guard_is_asked_first(house: House) -> None:
    for request in (
        get(b"/livez", b"x-forbidden: 1"),
        get(b"/do", b"x-forbidden: 1", method=b"POST"),
        get(b"/x", b"x-forbidden: 1"),
    ):
        caller = house.call()
        await caller.ask(request)
        assert (await caller.hear(until=b"no\n")).startswith(b"HTTP/1.1 403 ")


@pytest.mark.asyncio
async def test_a_body_is_bounded(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/do", b"content-length: 4096", method=b"POST") + b"x" * 4096)
    assert (await caller.hear(until=b")")).startswith(b"HTTP/1.1 200 ")
    await caller.ask(get(b"/do", b"content-length: 1000000", method=b"POST") + b"x" * 4097)
    answer = await caller.hear()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in answer


@pytest.mark.asyncio
async def test_a_query_of_too_many_parts_is_refused(house: House) -> None:
    caller = house.call()
    await caller.ask(get(b"/livez?" + b"&".join([b"a=1"] * 17), b"connection: close"))
    assert (await caller.hear()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.asyncio
async def test_a_page_that_takes_time_is_waited_for_and_what_is_behind_it_too() -> None:
    loop = asyncio.get_running_loop()
    asked: list[asyncio.Future[Page]] = []

    def later(_: PageRequest) -> asyncio.Future[Page]:
        asked.append(loop.create_future())
        return asked[-1]

    house = House({"/later": later, "/livez": lambda _: Page(body=b"ok\n")})
    try:
        caller = house.call()
        await caller.ask(get(b"/later") + get(b"/later") + get(b"/livez"))
        await eventually(lambda: asked)
        await asyncio.sleep(0.05)
        assert len(asked) == 1, "one after the other"
        asked[0].set_result(Page(parts=iter([b"in ", b"parts"])))
        assert (await caller.hear(until=b"0\r\n\r\n")).endswith(b"3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n")
        asked[1].set_exception(ZeroDivisionError())
        answers = await caller.hear(until=b"ok\n")
        assert answers.startswith(b"HTTP/1.1 500 ")
        assert answers.count(b"HTTP/1.1 ") == 2
    finally:
        house.close()


@pytest.mark.asyncio
async def test_a_page_that_nobody_waits_for_any_more_is_not_made() -> None:
    making: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
    house = House({"/later": lambda _: making})
    try:
        caller = house.call()
        await caller.ask(get(b"/later"))
        await asyncio.sleep(0.05)
        house.pages.close()
        assert await caller.hear() == b""
        assert making.cancelled()
    finally:
        house.close()
