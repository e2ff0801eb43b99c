"""The pages and actions of the health listener that ask the application."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from proxy.application.ask import SERVING, AskError, ask_grpc, ask_http, ask_tcp
from proxy.application.metrics_text import beside_ours, up
from proxy.config_values import ApplicationMetrics, GrpcProbe, HealthConfig, HttpGet, Probe
from proxy.runtime.pages import Page, PageMaker, PageRequest
from proxy.runtime.tasks import TaskSpawner

METRICS_SECONDS: Final = 5.0
"""Half of a scraper's usual ten seconds: an application that hangs must not take our own numbers along."""
MAX_METRICS: Final = 8 * 1024 * 1024
"""Of the application's text. What is larger is left out whole: half of it would look like counters that vanish."""
QUIT: Final = "/quitquitquit"

_log = logging.getLogger("remora.application")


class ApplicationPages:
    """What is asked of the application by way of the health listener."""

    def __init__(self, tasks: TaskSpawner, health: HealthConfig | None, end: Callable[[], None]) -> None:
        """`end` ends the sidecar, for who may ask that from loopback."""
        self._tasks = tasks
        self._health = health
        self._end = end
        self._metrics_fault = ""

    def pages(self) -> Mapping[str, PageMaker]:
        """Give a page for each probe."""
        return {probe.path: self._page(probe) for probe in (self._health.probes if self._health else ())}

    def actions(self) -> Mapping[str, PageMaker]:
        """Give what may be asked for by POST."""
        return {QUIT: self._quit} if self._health is not None and self._health.quits_for_loopback else {}

    def metrics(self, ours: PageMaker) -> PageMaker:
        """Give the page of metrics: ours, and the application's if it has any."""
        theirs = self._health.application_metrics if self._health is not None else None
        if theirs is None:
            return ours
        place = theirs

        def scraped(request: PageRequest) -> asyncio.Future[Page]:
            return self._spawn(self._scrape(place, ours, request), "/metrics")

        return scraped

    # --- probes ---

    def _page(self, probe: Probe) -> PageMaker:
        def asked(request: PageRequest) -> asyncio.Future[Page]:
            return self._spawn(self._perform(probe, request.headers.get("user-agent", "remora-probe")), probe.path)

        return asked

    async def _perform(self, probe: Probe, agent: str) -> Page:
        try:
            async with asyncio.timeout(probe.timeout):
                said = await _ask(probe, agent)
        except TimeoutError:
            return _failed(f"no answer within {probe.timeout:g} s")
        except AskError as fault:
            return _failed(str(fault))
        return Page(body=f"{said}\n".encode()) if not said.startswith("!") else _failed(said[1:])

    # --- metrics ---

    async def _scrape(self, place: ApplicationMetrics, ours: PageMaker, request: PageRequest) -> Page:
        text, fault = b"", ""
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                answer = await ask_http(
                    place.port,
                    place.path,
                    is_tls=place.is_tls,
                    # Not OpenMetrics: its end and its exemplars have no place in a text that goes on.
                    headers=[("accept", "text/plain;version=0.0.4"), ("user-agent", "remora")],
                    most=MAX_METRICS,
                )
            if answer.status != 200:
                fault = f"it answers {answer.status}"
            elif answer.is_cut:
                fault = f"its text is longer than {MAX_METRICS} bytes"
            else:
                text = beside_ours(answer.body)
        except TimeoutError:
            fault = f"no answer within {METRICS_SECONDS:g} s"
        except AskError as failure:
            fault = str(failure)
        if fault != self._metrics_fault:
            self._metrics_fault = fault
            if fault:
                _log.warning("the application's metrics at port %d%s are left out: %s", place.port, place.path, fault)
        page = ours(request)
        page = page if isinstance(page, Page) else await page
        more = up(not fault) + text
        if page.parts is not None:
            return Page(status=page.status, content_type=page.content_type, parts=itertools.chain(page.parts, [more]))
        return Page(status=page.status, content_type=page.content_type, body=page.body + more)

    # --- the end of a Job ---

    def _quit(self, request: PageRequest) -> Page:
        if request.origin != LOOPBACK:
            return Page(status=403, body=b"only who is in this pod may end its sidecar\n")
        self._end()
        return Page(body=b"ending\n")

    def _spawn(self, work: Coroutine[Any, Any, Page], name: str) -> asyncio.Future[Page]:
        return self._tasks.spawn(work, f"page {name}")


LOOPBACK: Final = "loopback"


def origin_of(sock: socket.socket) -> str:
    """Say "loopback" of a connection that comes from this pod by loopback, "" of any other."""
    try:
        name = sock.getpeername()
        host = str(name[0]).removeprefix("::ffff:").partition("%")[0]
        return LOOPBACK if ipaddress.ip_address(host).is_loopback else ""
    except (OSError, ValueError, IndexError):
        return ""


async def _ask(probe: Probe, agent: str) -> str:
    """Ask the application; what begins with "!" is an answer that says no."""
    action = probe.action
    if isinstance(action, HttpGet):
        named = {name.lower() for name, _ in action.headers}
        headers = action.headers if "user-agent" in named else (("user-agent", agent), *action.headers)
        answer = await ask_http(action.port, action.path, is_tls=action.is_tls, headers=headers)
        return f"{'' if 200 <= answer.status < 400 else '!'}the application answers {answer.status}"
    if isinstance(action, GrpcProbe):
        status = await ask_grpc(action.port, action.service)
        return "the application is serving" if status == SERVING else f"!the application says status {status}"
    await ask_tcp(action.port)
    return "the application takes connections"


def _failed(why: str) -> Page:
    return Page(status=503, body=f"{why}\n".encode("utf-8", "replace"))
