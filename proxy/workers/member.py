"""One worker as its supervisor sees it: the process, the channel to it, and what it last said of itself.

A worker is a new program (`python -m remora proxy worker`), not a fork: one that is replaced begins while the
supervisor has threads and an event loop, and a fork would take halves of both along. It inherits one end of a socket
pair; listening sockets come over it. That costs half a second of start and the memory that a fork would share for as
long as nobody counts references in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import proxy
from proxy.telemetry.summing import Part
from proxy.workers.channel import Channel
from proxy.workers.frames import Message
from proxy.workers.sharing import Look, Wanted, look_from_json

_EXIT_WITHIN: Final = 2.0
"""Seconds that a worker which has closed its channel has left to exit."""
_PACKAGES: Final = str(Path(proxy.__file__).parents[1])

_log = logging.getLogger("remora.workers")


class Keeper(Protocol):
    """What a member tells of its life."""

    def member_said(self, member: Member) -> None:
        """It holds other sets than before, or has drained a direction."""

    def member_ended(self, member: Member, code: int) -> None:
        """Its process has ended: the exit code, or minus the signal."""


class Member:
    """One process. Made, it runs; `kill` or its own end ends it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, number: int, keeper: Keeper, part: Part, *, level: str, loop_name: str
    ) -> None:
        """Start it as worker `number`. Raises OSError when no process can be had."""
        self.number = number
        self.holds = 0
        """The revision that it has confirmed."""
        self.drained: set[str] = set()
        self._began_at = self._heard_at = time.monotonic()
        self.look = Look()
        self._loop = loop
        self._keeper = keeper
        self._part = part
        self._asked: dict[int, asyncio.Future[Look]] = {}
        self._asks = 0
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter and our own words
                [
                    *(sys.executable, "-m", "remora", "proxy", "worker"),
                    *("--channel", str(theirs.fileno()), "--number", str(number)),
                    *("--log-level", level, "--loop", loop_name),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": _path()},
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(loop, ours, receive=self._receive, lost=self._went_away)
        loop.add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began_at

    @property
    def silent_for(self) -> float:
        """Seconds since it last said something."""
        return time.monotonic() - self._heard_at

    def tell(self, message: Message, descriptors: list[int] | None = None) -> None:
        """Tell it something, in order with everything told before."""
        self._channel.send(message, descriptors or [])

    def ask(self, wanted: Wanted) -> asyncio.Future[Look]:
        """Ask for a look at it; whoever waits does so with a deadline. Cancelled when it ends."""
        self._asks += 1
        future: asyncio.Future[Look] = self._loop.create_future()
        self._asked[self._asks] = future
        self._channel.send({"do": "look", "id": self._asks, "wanted": wanted.to_json()})
        return future

    def kill(self) -> None:
        """End it now."""
        if self._process.returncode is None:
            self._process.kill()

    def _went_away(self) -> None:
        """It reads nothing any more: it ends by itself, or is ended."""
        self._loop.call_later(_EXIT_WITHIN, self.kill)

    def _receive(self, message: Message, _: list[int]) -> None:
        self._heard_at = time.monotonic()
        try:
            self._understand(message)
        except (KeyError, ValueError, TypeError) as failure:
            _log.error("worker %d said what nobody here understands (%r); it is replaced", self.number, failure)
            self.kill()

    def _understand(self, message: Mapping[str, Any]) -> None:
        if "counted" in message:
            self._part.take(message["counted"])
        if "re" in message:
            self.look = look_from_json(message["look"])
            asked = self._asked.pop(message["re"], None)
            if asked is not None and not asked.done():
                asked.set_result(self.look)
        elif message["told"] == "holds":
            self.holds = int(message["revision"])
            self._keeper.member_said(self)
        elif message["told"] == "drained":
            self.drained.add(message["direction"])
            self._keeper.member_said(self)

    def _ended(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._channel.read_to_end()
        for asked in self._asked.values():
            asked.cancel()
        self._asked.clear()
        self._keeper.member_ended(self, code)


def _path() -> str:
    """Let the new program find these packages, from wherever this one was started."""
    known = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([_PACKAGES, *([known] if known else [])])
