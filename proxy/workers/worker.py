"""A worker: a sidecar that is told everything by its supervisor and shows itself to it, and to nobody else.

    begin   what it was started with; then the sidecar is made
    take    sets in force and sockets: judged in a thread, one after the other, taken on the loop, and confirmed
    look    what it has counted and what pages show
    drain   one direction: stop accepting, let what runs end, say when nothing is left
    end     end what is left, say what was counted to the end, and exit

Signals are the supervisor's: it drains all workers together. A worker that has lost its supervisor drains alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from proxy.admin.pages import Readiness
from proxy.adminapi import EXPLAINED, to_explain
from proxy.config import Address, Config
from proxy.errors import ConfigError, LimitExceeded
from proxy.handshake.contexts import TlsGeneration
from proxy.inforce import InForce
from proxy.material import compile_policy, judge_identity
from proxy.policy import PolicySnapshot
from proxy.sidecar import Sidecar
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.decisions_log import Decision
from proxy.telemetry.summing import Counted
from proxy.traffic import Key, Traffic
from proxy.types import Generation
from proxy.view import LocalView
from proxy.workers.channel import Channel
from proxy.workers.frames import FrameError, Message, files_from_json
from proxy.workers.sharing import Sets, Wanted, look_at, read_config

_log = logging.getLogger("remora.workers")

_SUPERVISOR_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_Judged = tuple[Config, TlsGeneration | None, PolicySnapshot | None]


async def run_worker(channel: socket.socket) -> int:
    """Work for the supervisor at the other end of `channel` until told to end; return the exit code."""
    for number in _SUPERVISOR_SIGNALS:  # a terminal or a service manager may send them to the whole group
        signal.signal(number, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
    worker: Worker | None = None

    def receive(message: Message, fds: list[int]) -> None:
        if worker is not None and message["do"] == "look":
            worker.show(message)  # while sets are judged, too
        else:
            inbox.put_nowait((message, fds))

    begun = Channel(loop, channel, receive=receive, lost=lambda: inbox.put_nowait(None))
    try:
        while (item := await inbox.get()) is not None:
            message, fds = item
            if worker is None:
                worker = Worker(loop, begun, message, fds)
            elif await worker.act(message, fds):
                return 0
        if worker is not None:
            await worker.drain_alone()
        return 1
    except (FrameError, ConfigError, OSError) as failure:
        _log.error("this worker cannot go on: %s", failure)
        return 1
    finally:
        if worker is not None:
            await worker.close()
        begun.close()


class Worker:
    """The sidecar of one worker, and its side of the conversation."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel, begin: Message, fds: list[int]) -> None:
        """Make the sidecar that `begin` describes. Raises ConfigError, FrameError, or OSError for the access log."""
        self._loop = loop
        self._channel = channel
        self._file = str(begin["file"])
        self._base = files_from_json({"": begin["config"]})[""]
        self._workers = int(begin["workers"])
        config = read_config(self._base, self._base, self._file, self._workers)
        [turn] = fds
        self._turn = turn
        self.sidecar = Sidecar(config, loop, AccessLog(loop, config.telemetry.access_log, turn))
        self._handed: dict[Key, socket.socket] = {}
        self.traffic = Traffic(self.sidecar, loop, self._exhausted, self._handed_sockets)
        self._in_force = InForce(
            self.sidecar, self.traffic, Readiness(), file=self._file, when_ready=lambda: None, announce=False
        )
        self._view = LocalView(self.sidecar)
        self._counted = Counted(self.sidecar.metrics, {"records_lost": lambda: self.sidecar.access_log.dropped})
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")
        self._closed = False

    async def act(self, message: Message, fds: list[int]) -> bool:
        """Do what a message says, one after the other; say whether it was the last."""
        match message["do"]:
            case "take":
                await self._take(message, fds)
            case "look":
                self.show(message)
            case "drain":
                self._drain(str(message["direction"]))
            case "reopen":
                self.sidecar.access_log.reopen()
            case "loglevel":
                logging.getLogger("remora").setLevel(str(message["level"]).upper())
            case "end":
                await self.close()
                self._channel.send({"told": "ended", "counted": self._counted.news()})
                await self._channel.flush()
                return True
            case other:
                raise FrameError(f"a message that nobody here understands: {other!r}")
        return False

    # --- what is in force ---

    async def _take(self, message: Mapping[str, Any], fds: list[int]) -> None:
        for (direction, listen, purpose), fd in zip(message["sockets"], fds, strict=True):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self._handed[direction, listen, purpose] = sock
        sets = Sets.from_json(message["sets"])
        judged = await self._loop.run_in_executor(self._executor, self._judge, sets)
        config, tls, policy = judged
        if self._handed or not (config == self.sidecar.config or self.sidecar.draining):
            self._in_force.take_config(config, policy)
        elif policy is not None:
            self._in_force.take_policy(policy)
        if tls is not None:
            self._in_force.take_certificates(tls)
        for sock in self._handed.values():
            sock.close()  # of a direction that drains
        self._handed.clear()
        self._channel.send({"told": "holds", "revision": message["revision"]})

    def _judge(self, sets: Sets) -> _Judged:
        """Judge as the supervisor has. Raises ConfigError: then this worker ends, and one that begins anew tries."""
        config = read_config(sets.config, self._base, self._file, self._workers)
        tls = policy = None
        if sets.certificates is not None:
            files, number = sets.certificates
            tls = judge_identity(config, files, Generation(number), time.time())
        if sets.policy is not None:
            files, number = sets.policy
            policy = compile_policy(config, files, Generation(number))
        return config, tls, policy

    def _handed_sockets(self, wanted: Mapping[Key, Address], _: str) -> dict[Key, socket.socket]:
        return {key: self._handed.pop(key) for key in wanted if key in self._handed}

    # --- what is shown ---

    def show(self, message: Mapping[str, Any]) -> None:
        """Answer a `look`."""
        look = look_at(self._view, Wanted(**message["wanted"]), time.time(), _explained_of)
        self._channel.send({"re": message["id"], "counted": self._counted.news(), "look": look})

    def _exhausted(self, failure: LimitExceeded) -> None:
        self.sidecar.metrics.limit(failure.reason)
        _log.warning("%s", failure)

    # --- the end ---

    def _drain(self, direction: str) -> None:
        sidecar = self.sidecar
        sidecar.draining = True
        self.traffic.close(direction)
        sidecar.registry.drain(direction)
        sidecar.registry.when_empty(direction, lambda: self._channel.send({"told": "drained", "direction": direction}))

    async def drain_alone(self) -> None:
        """End what runs without a supervisor, inbound first."""
        sidecar = self.sidecar
        _log.error("the supervisor is gone; draining")
        sidecar.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(sidecar.limits.drain_timeout):
                for direction in ("inbound", "outbound"):
                    self.traffic.close(direction)
                    sidecar.registry.drain(direction)
                    empty = asyncio.Event()
                    sidecar.registry.when_empty(direction, empty.set)
                    await empty.wait()

    async def close(self) -> None:
        """End every connection, finish every record, write out the access log; a second time is no mistake."""
        if self._closed:
            return
        self._closed = True
        await self.traffic.end()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self.sidecar.key_fetcher.close()
        self.sidecar.clock.stop()
        self.sidecar.access_log.close()
        os.close(self._turn)


def _explained_of(found: list[Decision]) -> list[Decision]:
    return [*found[:EXPLAINED], to_explain(found)]
