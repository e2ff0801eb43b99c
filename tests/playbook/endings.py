"""Every place at which a connection may stand, and every way in which it may end there."""

from __future__ import annotations

import math
from collections.abc import Callable

from stage import Client, Stage, denial, get, ok, post

from proxy.errors import Reason

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
LIFE = 5.0
"""Seconds after which the client's certificate ends, where a play says that it does."""


def idle(stage: Stage, client: Client) -> None:
    """Nothing was sent yet."""


def in_head(stage: Stage, client: Client) -> None:
    client >> get()[:20]


def dialling(stage: Stage, client: Client) -> None:
    stage.dials_at_once = False
    client >> get()


def in_full_pool(stage: Stage, client: Client) -> None:
    while stage.pool.total < 4:
        stage.client() >> get()
    client >> get()


def asked(stage: Stage, client: Client) -> None:
    client >> get()


def in_body(stage: Stage, client: Client) -> None:
    client >> post(b"abc", length=6)


def held_body(stage: Stage, client: Client) -> None:
    stage.room_of_new_apps = 0
    client >> post(b"x" * 70_000, length=200_000)


def interim(stage: Stage, client: Client) -> None:
    client >> post(b"", b"expect: 100-continue", length=3)
    stage.app >> b"HTTP/1.1 100 Continue\r\n\r\n"


def in_answer(stage: Stage, client: Client) -> None:
    client >> get()
    stage.app >> ok(b"abc", length=6)


def in_answer_and_body(stage: Stage, client: Client) -> None:
    client >> post(b"abc", length=6)
    stage.app >> ok(b"abc", length=6)


def congested(stage: Stage, client: Client) -> None:
    client.wire.room = 0
    client >> get()
    stage.app >> ok(b"x" * 70_000, length=100_000)


def early(stage: Stage, client: Client) -> None:
    client >> post(b"abc", length=6)
    stage.app >> ok(b"early")


def denied_in_body(stage: Stage, client: Client) -> None:
    client.route.verdict = denial()
    client >> post(b"abc", length=6)


def kept(stage: Stage, client: Client) -> None:
    client >> get()
    stage.app >> ok()


def pipelined(stage: Stage, client: Client) -> None:
    client >> get() + get() + get()


def lingering(stage: Stage, client: Client) -> None:
    client >> get(b"/", b"connection: close")
    stage.app >> ok()


def lingering_held(stage: Stage, client: Client) -> None:
    client.wire.room = 0
    client >> get(b"/", b"connection: close")
    stage.app >> ok(b"x" * 1_000)


def upgrading(stage: Stage, client: Client) -> None:
    client >> get(b"/", b"connection: upgrade", b"upgrade: websocket")


def upgraded(stage: Stage, client: Client) -> None:
    upgrading(stage, client)
    stage.app >> SWITCH


PLACES: tuple[Callable[[Stage, Client], None], ...] = (
    idle,
    in_head,
    dialling,
    in_full_pool,
    asked,
    in_body,
    held_body,
    interim,
    in_answer,
    in_answer_and_body,
    congested,
    early,
    denied_in_body,
    kept,
    pipelined,
    lingering,
    lingering_held,
    upgrading,
    upgraded,
)


def client_resets(stage: Stage, client: Client) -> None:
    client.resets()


def client_ends(stage: Stage, client: Client) -> None:
    client.ends()


def app_resets(stage: Stage, client: Client) -> None:
    for app in list(stage.apps):
        app.resets()


def app_ends(stage: Stage, client: Client) -> None:
    for app in list(stage.apps):
        app.say(b"")
    stage.run()


def dial_fails(stage: Stage, client: Client) -> None:
    while stage.dials:
        stage.refuse()
    stage.run()


def drain(stage: Stage, client: Client) -> None:
    client.pump.drain()
    stage.run()


def drain_deadline(stage: Stage, client: Client) -> None:
    drain(stage, client)
    client.pump.break_off(Reason.DRAIN_DEADLINE)
    stage.run()


def break_off(stage: Stage, client: Client) -> None:
    client.pump.break_off(Reason.INTERNAL_ERROR)
    stage.run()


def pool_closes(stage: Stage, client: Client) -> None:
    stage.pool.close()
    stage.run()


def certificate_ends(stage: Stage, client: Client) -> None:
    stage.wait(max(LIFE - (stage.clock.now - 1_000.0), 0.0))


def silence(stage: Stage, client: Client) -> None:
    """Nothing more happens: each deadline must find its way."""


ENDINGS: tuple[Callable[[Stage, Client], None], ...] = (
    client_resets,
    client_ends,
    app_resets,
    app_ends,
    dial_fails,
    drain,
    drain_deadline,
    break_off,
    pool_closes,
    certificate_ends,
    silence,
)


def play(place: Callable[[Stage, Client], None], ending: Callable[[Stage, Client], None]) -> tuple[Stage, Client]:
    """Bring a client to a place, end it there, and let all the time go by that anybody may wait for."""
    stage = Stage()
    client = stage.client(ends_at=stage.clock.now + LIFE if ending is certificate_ends else math.inf)
    place(stage, client)
    ending(stage, client)
    stage.wait(200)
    stage.wait(200)
    return stage, client


def outcome(client: Client) -> str:
    """Write down how it ended: reset or closed, the connection's Reason, each request's with the status it saw."""
    words = ["reset" if client.wire.aborted else "closed", client.end.word if client.end is not None else "open"]
    for record in client.route.records:
        words.append(f"{record.reason.word if record.reason is not None else 'unfinished'}/{record.response_code}")
    return " ".join(words)
