"""The supervisor of several workers: a sidecar without traffic, which is all workers to whoever asks.

                     +-- judges what is mounted, once --> hands the bytes over, with generations
    files, pages --> |   holds the listening sockets  --> hands copies of the descriptors over      --> workers 1..N
                     +-- sums counters, merges pages  <-- asks, with a deadline

start     sockets, pages, what is mounted, workers; ready when every worker holds what is in force
SIGTERM   all workers drain inbound; when none has any left, outbound; at the deadline what is left is cut
SIGUSR1   every worker opens the access log anew
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from proxy.admin import pages
from proxy.admin.words import Data
from proxy.adminapi import LEVELS, AdminApi
from proxy.app import StartError
from proxy.application.service import ApplicationPages
from proxy.config import Config
from proxy.errors import ConfigError, LimitExceeded
from proxy.mounts import Mounts, Taken
from proxy.observe import publish
from proxy.overview import GLANCE, brief_ports
from proxy.pagelisteners import PageListeners, metrics_page
from proxy.runtime.pages import Page, PageMaker, PageRequest
from proxy.sidecar import Sidecar
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.label_sets import MAX_LABEL_SETS, LabelSets
from proxy.telemetry.summing import Sum
from proxy.workers.fleet import Fleet
from proxy.workers.sharing import Gathered, Look, Sets, Wanted
from proxy.workers.sockets import Sockets

_END_WITHIN: Final = 5.0
"""Seconds that workers get to write out records and exit, beyond the deadline of the drain."""

_WANTED: Final = {
    "/": Wanted(connections=True, decisions=GLANCE),
    "/connections": Wanted(connections=True),
    "/decisions": Wanted(decisions=None),
}
"""What pages need of the workers, where it is more than the numbers of the moment."""

_log = logging.getLogger("remora")


class Supervisor:
    """`runtime.workers` workers as one sidecar. `start`, then `run_until_stopped`."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, file: str, data: bytes) -> None:
        """Follow `file`, whose content `data` made `config`. Raises StartError: the access log cannot be opened."""
        self._loop = loop
        self._started_at = time.time()
        try:
            AccessLog(loop, config.telemetry.access_log).close()  # seen here, where it can still be told
        except OSError as failure:
            raise StartError(f"cannot open the access log {failure.filename}: {failure.strerror}") from failure
        workers = config.runtime.workers
        self.sidecar = Sidecar(config, loop, AccessLog(loop, "off"))
        self.sidecar.metrics.label_sets = LabelSets(MAX_LABEL_SETS * workers)
        self.readiness = pages.Readiness()
        self.sockets = Sockets(workers)
        self._sets = Sets(data)
        self._sum = Sum(self.sidecar.metrics)
        self.fleet = Fleet(
            loop,
            workers,
            sets=self._sets,
            sockets=self.sockets,
            file=file,
            counted=self._sum,
            loop_name=config.runtime.loop,
            changed=self._judge_readiness,
        )
        self._file = file
        self._mounts = Mounts(
            self.sidecar,
            self.sockets,
            self.readiness,
            file=file,
            when_ready=lambda: None,
            when_taken=self._hand_over,
        )
        self._said_ready = False
        api = self._api(self._gathered(self.fleet.last_looks, {}))
        self._pages = PageListeners(
            loop,
            self.sidecar.clock,
            self.readiness,
            metrics=self._metrics,
            application=ApplicationPages(self.sidecar.tasks, config.health, self.stop),
            admin_pages={path: self._page(path) for path in api.pages()},
            admin_actions={path: self._action(path) for path in api.actions()},
            on_exhausted=self._exhausted,
        )
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._publish()

    # --- start ---

    def start(self) -> None:
        """Open every listener, load what is there and begin the workers. Raises StartError."""
        try:
            self._pages.open(self.sidecar.config)
            self.sockets.apply(self.sidecar.config, self._file)
            self.readiness.missing["workers"] = self.fleet.faults()
            self._mounts.look_now()
            self.fleet.begin()
        except OSError as failure:
            raise StartError(failure.strerror or str(failure)) from failure
        except ConfigError as failure:
            raise StartError("; ".join(fault.message for fault in failure.faults)) from failure
        self.sockets.settle()
        self.sidecar.tasks.spawn(self._mounts.follow(), "follow what is mounted")
        self.sidecar.tasks.spawn(self.fleet.pulse(), "look at the workers")

    def _hand_over(self, taken: Taken) -> None:
        sidecar = self.sidecar
        news = self._sets.take(
            taken, tls_generation=sidecar.tls_generation, policy_generation=sidecar.policy_generation
        )
        self.fleet.hand_over(news)

    def _judge_readiness(self) -> None:
        faults = self.fleet.faults()
        if not faults:
            self.readiness.missing.pop("workers", None)
        elif faults != self.readiness.missing.get("workers"):
            self.readiness.missing["workers"] = faults
        if self.readiness.is_ready and self.sidecar.ready and not self._said_ready:
            self._said_ready = True
            ports, _ = brief_ports(self.sidecar.config)
            _log.info("ready as %s with %d workers; inbound %s", self.sidecar.identity, self.fleet.count, ports)

    def _exhausted(self, failure: LimitExceeded) -> None:
        self.sidecar.metrics.limit(failure.reason)
        _log.warning("%s", failure)

    # --- what is shown ---

    def _ready(self) -> bool:
        return self.sidecar.ready and self.readiness.is_ready

    def _lost(self) -> int:
        return self._sum.others.get("records_lost", 0)

    def _gathered(self, looks: Callable[[], Mapping[int, Look]], facts: Data) -> Gathered:
        return Gathered(looks, ready=self._ready, lost=self._lost, facts=facts)

    def _publish(self) -> None:
        metrics, fleet = self.sidecar.metrics, self.fleet
        publish(self.sidecar, self._gathered(fleet.last_looks, {}))
        metrics.gauge("remora_workers", "Workers that run.", lambda: float(len(fleet.pids())))
        metrics.gauges(
            "remora_worker_numbers_age_seconds",
            "How old the numbers of a worker are that are in the sums.",
            ("worker",),
            fleet.ages,
        )
        metrics.counter("remora_workers_replaced", "Workers that ended and were replaced.", lambda: fleet.replaced)

    def _metrics(self, _: PageRequest) -> asyncio.Future[Page]:
        async def scraped() -> Page:
            await self.fleet.looks(Wanted())
            return metrics_page(self.sidecar.metrics.exposition_parts())

        return self._made(scraped(), "/metrics")

    def _api(self, view: Gathered) -> AdminApi:
        return AdminApi(
            self.sidecar, self.readiness, view=view, started_at=self._started_at, drain=self.begin_drain, end=self.stop
        )

    def _page(self, path: str) -> PageMaker:
        def make(request: PageRequest) -> asyncio.Future[Page]:
            return self._made(self._answer(path, request), path)

        return make

    async def _answer(self, path: str, request: PageRequest) -> Page:
        wanted = _WANTED.get(path, Wanted())
        if (request_id := request.query.get("request_id")) is not None:
            wanted = Wanted(request_id=request_id)
        return self._api(await self._view(wanted)).pages()[path](request)

    async def _view(self, wanted: Wanted) -> Gathered:
        looks, silent = await self.fleet.looks(wanted)
        facts: Data = {"workers": len(self.fleet.pids()), "worker_processes": list(self.fleet.pids().values())}
        if silent:
            facts["workers_without_answer"] = silent
            last = self.fleet.last_looks()
            looks |= {number: last[number] for number in silent if number in last}
        return self._gathered(lambda: looks, facts)

    def _action(self, path: str) -> PageMaker:
        def act(request: PageRequest) -> asyncio.Future[Page]:
            return self._made(self._act(path, request), path)

        return act

    async def _act(self, path: str, request: PageRequest) -> Page:
        page = self._api(await self._view(Wanted())).actions()[path](request)
        if path == "/loglevel":
            level = logging.getLevelName(logging.getLogger("remora").getEffectiveLevel()).lower()
            if level in LEVELS:
                self.fleet.tell_all(do="loglevel", level=level)
        return page

    def _made(self, work: Coroutine[Any, Any, Page], path: str) -> asyncio.Future[Page]:
        return self.sidecar.tasks.spawn(work, f"page {path}")

    # --- the end ---

    def stop(self) -> None:
        """Begin to drain; asked a second time, end at once."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()

    def begin_drain(self) -> None:
        """Let all workers take no new connection of a peer; the application goes on."""
        if self.sidecar.draining:
            return
        self.sidecar.draining = True
        self.readiness.missing["drain"] = ["it was asked for; the application may still call out"]
        _log.info("draining inbound connections of %d workers", self.fleet.count)
        self.fleet.drain("inbound")

    def reopen_access_log(self) -> None:
        """Let every worker open the access log anew."""
        self.fleet.tell_all(do="reopen")

    async def run_until_stopped(self) -> None:
        """Supervise until SIGTERM or SIGINT, then drain and end every worker."""
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGUSR1: self.reopen_access_log,
        }
        for number, act in handlers.items():
            self._loop.add_signal_handler(number, act)
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            await self.close()
            for number in handlers:
                self._loop.remove_signal_handler(number)

    async def _drain(self) -> None:
        fleet = self.fleet
        self.sidecar.draining = True
        self.readiness.missing["drain"] = ["the process was asked to end"]
        fleet.replace_no_more()
        within = self.sidecar.config.limits.drain_timeout
        _log.info("draining %d workers, %g s at most", len(fleet.pids()), within)
        deadline = self._loop.time() + within
        for direction in ("inbound", "outbound"):
            fleet.drain(direction)
            if not await self._until(functools.partial(fleet.drained, direction), deadline):
                _log.warning("cutting the %s connections that did not end in time", direction)
                return
        _log.info("drained")

    async def _until(self, holds: Callable[[], bool], deadline: float) -> bool:
        """Wait until `holds` is true of the workers: False at the deadline, or when told to end at once."""
        waiting = [
            self.sidecar.tasks.spawn(self.fleet.until(holds), "workers drain"),
            self.sidecar.tasks.spawn(self._stop_now.wait(), "second signal"),
        ]
        try:
            await asyncio.wait(
                waiting, timeout=max(deadline - self._loop.time(), 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in waiting:
                task.cancel()
        return holds()

    async def close(self) -> None:
        """End every worker, then close everything that is open here."""
        sidecar, fleet = self.sidecar, self.fleet
        self._pages.stop()
        for direction in ("inbound", "outbound"):
            self.sockets.close(direction)
        fleet.end_in_order()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_WITHIN):
                await fleet.until(fleet.nobody_left)
        if not fleet.nobody_left():
            _log.error("workers that did not end in time are killed: %s", fleet.pids())
            fleet.kill()
            await fleet.until(fleet.nobody_left)
        fleet.close()
        await sidecar.tasks.cancel_all()
        self._mounts.close()
        sidecar.key_fetcher.close()
        self._pages.close()
        sidecar.clock.stop()
        sidecar.access_log.close()


async def supervise(config: Config, file: str, data: bytes) -> None:
    """Run several workers on the running loop until told to end. Raises StartError."""
    supervisor = Supervisor(config, asyncio.get_running_loop(), file, data)
    try:
        supervisor.start()
    except StartError:
        await supervisor.close()
        raise
    await supervisor.run_until_stopped()
