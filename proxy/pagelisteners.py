"""The listeners for probes, scrapers and people, by the configuration: the same for a supervisor as for one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator, Mapping

from proxy.accept.listener import Listener, open_listener, open_unix_listener
from proxy.admin import pages
from proxy.admin.pages import Readiness
from proxy.adminapi import guard_of
from proxy.application.service import ApplicationPages, origin_of
from proxy.config import Config, UnixSocket
from proxy.errors import LimitExceeded
from proxy.interfaces import Clock
from proxy.runtime.pages import Page, PageMaker, PageRequest, PageServer


def metrics_page(parts: Iterator[bytes]) -> Page:
    """Answer a scrape."""
    return Page(content_type=pages.METRICS_TYPE, parts=parts)


class PageListeners:
    """Health and admin, each where the configuration wants it. `open`, then `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        readiness: Readiness,
        *,
        metrics: PageMaker,
        application: ApplicationPages,
        admin_pages: Mapping[str, PageMaker],
        admin_actions: Mapping[str, PageMaker],
        on_exhausted: Callable[[LimitExceeded], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._admin_pages = admin_pages
        self._admin_actions = admin_actions
        self._on_exhausted = on_exhausted
        self._pages = {
            "/livez": _page(pages.livez),
            "/readyz": _page(lambda: pages.readyz(readiness, detail=False)),
            "/metrics": metrics,
        }
        self._health_pages = {**self._pages, **application.pages(), "/metrics": application.metrics(metrics)}
        self._health_actions = application.actions()
        self._listeners: list[Listener] = []
        self._servers: list[PageServer] = []
        self._unix_path = ""

    @property
    def ports(self) -> list[int]:
        """The ports that they have; 0 for a unix socket."""
        return [listener.port for listener in self._listeners]

    def open(self, config: Config) -> None:
        """Open what `config` names. Raises OSError when an address cannot be had."""
        for listen, name in ((config.health, "health"), (config.admin, "admin")):
            if listen is None:
                continue
            at = listen.listen
            server = self._server(name, unix=isinstance(at, UnixSocket))
            self._servers.append(server)
            if isinstance(at, UnixSocket):
                self._unix_path = at.path
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._unix_path)  # of a process that was killed
                sock = open_unix_listener(self._unix_path)
            else:
                sock = open_listener(at.host, at.port)
            self._listeners.append(
                Listener(
                    self._loop,
                    sock,
                    functools.partial(_admit, server),
                    name=name,
                    back_off=config.limits.accept_backoff,
                    on_exhausted=self._on_exhausted,
                )
            )

    def stop(self) -> None:
        """Take no new connection."""
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """Close everything."""
        self.stop()
        for server in self._servers:
            server.close()
        if self._unix_path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unix_path)

    def _server(self, name: str, *, unix: bool) -> PageServer:
        if name == "health":
            return PageServer(self._loop, self._clock, self._health_pages, actions=self._health_actions)
        return PageServer(
            self._loop,
            self._clock,
            {**self._pages, **self._admin_pages},
            actions=self._admin_actions,
            guard=guard_of(unix=unix),
        )


def _admit(server: PageServer, sock: socket.socket) -> None:
    server.admit(sock, origin=origin_of(sock))


def _page(make: Callable[[], pages.PageText]) -> PageMaker:
    def answer(_: PageRequest) -> Page:
        text = make()
        return Page(status=text.status, content_type=text.content_type, body=text.body)

    return answer
