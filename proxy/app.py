"""The composition root: builds a sidecar from its configuration, runs it, and ends it in order.

start     access log, health and admin pages, then listeners, then what is mounted; ready when all stand
run       what is mounted is followed: a valid change is taken, a broken one keeps what is in force
SIGTERM   inbound stops accepting and drains; outbound goes on until inbound is empty, then drains too;
          at the deadline what is left is cut; a second signal ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time

from proxy.admin.pages import Readiness
from proxy.adminapi import AdminApi
from proxy.application.service import ApplicationPages
from proxy.config import Config
from proxy.errors import ConfigError, LimitExceeded
from proxy.mounts import Mounts
from proxy.observe import publish
from proxy.overview import brief_ports
from proxy.pagelisteners import PageListeners, metrics_page
from proxy.sidecar import Sidecar
from proxy.traffic import Traffic
from proxy.view import LocalView

_log = logging.getLogger("remora")


class StartError(Exception):
    """A sidecar that cannot start, with a sentence for a person."""


class App:
    """One running sidecar. `start`, then `run_until_stopped`, which returns when everything is closed."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, file: str = "") -> None:
        """Follow `file`, where `config` came from ("" for none). Raises StartError: the access log cannot be opened."""
        self._file = file
        self._loop = loop
        try:
            self.sidecar = Sidecar(config, loop)
        except OSError as failure:
            raise StartError(f"cannot open the access log {failure.filename}: {failure.strerror}") from failure
        self.readiness = Readiness()
        self.traffic = Traffic(self.sidecar, loop, self._exhausted)
        self.mounts = Mounts(self.sidecar, self.traffic, self.readiness, file=file, when_ready=self._say_ready)
        view = LocalView(self.sidecar)
        api = AdminApi(
            self.sidecar, self.readiness, view=view, started_at=time.time(), drain=self.begin_drain, end=self.stop
        )
        self._pages = PageListeners(
            loop,
            self.sidecar.clock,
            self.readiness,
            metrics=lambda _: metrics_page(self.sidecar.metrics.exposition_parts()),
            application=ApplicationPages(self.sidecar.tasks, config.health, self.stop),
            admin_pages=api.pages(),
            admin_actions=api.actions(),
            on_exhausted=self._exhausted,
        )
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()
        publish(self.sidecar, view)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.sidecar.config

    # --- start ---

    def start(self) -> None:
        """Open every listener and load what is there. Raises StartError when an address cannot be had."""
        try:
            self._pages.open(self.config)
            self.traffic.apply(self.config, self._file or "the configuration")
        except OSError as failure:
            raise StartError(failure.strerror or str(failure)) from failure
        except ConfigError as failure:
            raise StartError("; ".join(fault.message for fault in failure.faults)) from failure
        self.mounts.look_now()
        self.sidecar.tasks.spawn(self.mounts.follow(), "follow what is mounted")

    def bound_ports(self) -> dict[str, list[int]]:
        """Tell the ports that the kernel gave to listeners on port 0, in the order of the configuration."""
        traffic = {direction: self.traffic.ports(direction) for direction in ("inbound", "outbound")}
        return {**traffic, "pages": self._pages.ports}

    def _exhausted(self, failure: LimitExceeded) -> None:
        self.sidecar.metrics.limit(failure.reason)
        _log.warning("%s", failure)

    def _say_ready(self) -> None:
        _log.info("ready as %s; inbound %s; outbound %s", self.sidecar.identity, *brief_ports(self.config))

    # --- the end ---

    def stop(self) -> None:
        """Begin to drain; asked a second time, end at once."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()

    def begin_drain(self) -> None:
        """Take no new connection of a peer and let those that stand end after what runs; the application goes on."""
        if self.sidecar.draining:
            return
        self.sidecar.draining = True
        self.readiness.missing["drain"] = ["it was asked for; the application may still call out"]
        _log.info("draining %d inbound connections", self.sidecar.registry.count("inbound"))
        self.traffic.close("inbound")
        self.sidecar.registry.drain("inbound")

    def reopen_access_log(self) -> None:
        """Open the access log anew: whoever rotates logs has moved the file away."""
        self.sidecar.access_log.reopen()

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and close everything."""
        handled = []
        for number, act in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGUSR1, self.reopen_access_log),
        ):
            with contextlib.suppress(NotImplementedError, RuntimeError):
                self._loop.add_signal_handler(number, act)
                handled.append(number)
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                if number in handled:
                    self._loop.remove_signal_handler(number)
            await self.close()
            if signal.SIGUSR1 in handled:  # it would end a process that has no handler, and lose the last records
                self._loop.remove_signal_handler(signal.SIGUSR1)

    async def _drain(self) -> None:
        sidecar = self.sidecar
        sidecar.draining = True
        self.readiness.missing["drain"] = ["the process was asked to end"]
        count = sidecar.registry.count("inbound") + sidecar.registry.count("outbound")
        _log.info("draining %d connections, %g s at most", count, self.config.limits.drain_timeout)
        deadline = self._loop.time() + self.config.limits.drain_timeout
        for direction in ("inbound", "outbound"):
            self.traffic.close(direction)
            sidecar.registry.drain(direction)
            if not await self._empty(direction, deadline):
                left = sum(1 for _ in sidecar.registry)
                _log.warning("cutting %d connections that did not end in time", left)
                return
        _log.info("drained")

    async def _empty(self, direction: str, deadline: float) -> bool:
        """Wait until no connection of `direction` is open: False at the deadline, or when told to end at once."""
        empty = asyncio.Event()
        self.sidecar.registry.when_empty(direction, empty.set)
        waiting = [
            self.sidecar.tasks.spawn(empty.wait(), f"drain {direction}"),
            self.sidecar.tasks.spawn(self._stop_now.wait(), "second signal"),
        ]
        try:
            await asyncio.wait(
                waiting, timeout=max(deadline - self._loop.time(), 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in waiting:
                task.cancel()
        return empty.is_set()

    async def close(self) -> None:
        """Close everything that is open, finish every record, write out the access log."""
        sidecar = self.sidecar
        self._pages.stop()
        await self.traffic.end()
        self.mounts.close()
        sidecar.key_fetcher.close()
        self._pages.close()
        sidecar.clock.stop()
        sidecar.access_log.close()


async def run(config: Config, file: str) -> None:
    """Run a sidecar on the running loop until it is told to end, following `file`. Raises StartError."""
    app = App(config, asyncio.get_running_loop(), file)
    try:
        app.start()
    except StartError:
        await app.close()
        raise
    await app.run_until_stopped()
