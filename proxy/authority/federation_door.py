"""Publishes the bundle to other trust domains, at a listener of its own (SPIFFE Federation section 5).

    accept -> handshake, TLS 1.2 or 1.3, no certificate asked for -> GET /v1/bundle or GET / -> policy -> certs.service

By which certificate the listener is known is its profile:

    https_web      a pair of the ordinary web, from two files (`proxy/https/web_certificate.py`)
    https_spiffe   the authority's own SVID, as it is renewed

What holds:

1. Nothing is signed here, and nobody is known: the only page is the bundle, which is for anybody.
2. It cannot crowd the signing port out: connections and handshakes are counted and bounded by themselves.
3. It never redirects; the tag of the bundle makes a poll that finds nothing new an answer without a body.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
from typing import Protocol

from proxy.accept.listener import open_listener
from proxy.admin.pages import Readiness
from proxy.authority.config import FEDERATION_CONNECTIONS, FEDERATION_HANDSHAKES, FederationListen
from proxy.authority.counts import Counts
from proxy.authority.own_identity import OwnIdentity
from proxy.authority.replies import Replies
from proxy.handshake.contexts import PublicMaterial
from proxy.https.door import Door
from proxy.https.web_certificate import WebCertificate
from proxy.interfaces import Clock
from proxy.runtime.pages import PageServer
from proxy.runtime.tasks import TaskSpawner

LISTENER = "federation"


class Shown(Protocol):
    """The certificate that the listener is known by."""

    @property
    def material(self) -> PublicMaterial | None:
        """What handshakes are made with; None while there is nothing."""

    @property
    def not_after(self) -> datetime.datetime:
        """When it ends."""

    def standing(self) -> str:
        """Say it for a person."""


class OwnSvid:
    """The authority's own SVID, without its demand for the certificates of callers."""

    def __init__(self, own: OwnIdentity) -> None:
        self._own = own
        self._made: PublicMaterial | None = None

    @property
    def material(self) -> PublicMaterial | None:
        tls = self._own.tls
        if tls is None:
            return None
        # Made on the loop, in less than a millisecond, at the first connection after a renewal.
        if self._made is None or self._made.generation != tls.generation:
            self._made = PublicMaterial(tls.identity_set.chain, tls.identity_set.key, tls.generation)
        return self._made

    @property
    def not_after(self) -> datetime.datetime:
        return self._own.not_after

    def standing(self) -> str:
        return f"https_spiffe as {self._own.spiffe_id}, until {self._own.not_after:%Y-%m-%d %H:%M:%S} UTC"


class FederationDoor:
    """The listener's side of the service. `begin`, then `admit` sockets, then `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        config: FederationListen,
        own: OwnIdentity,
        replies: Replies,
        tasks: TaskSpawner,
        counts: Counts,
        readiness: Readiness,
        *,
        interval: float,
    ) -> None:
        """`interval` is in seconds, between two looks at the files of a certificate of the web."""
        self._listen = config.listen
        self._tasks = tasks
        self._web = (
            None
            if config.web is None
            else WebCertificate(
                loop, config.web, readiness, counts, interval, listener=LISTENER, callers="other trust domains"
            )
        )
        self._shown: Shown = OwnSvid(own) if self._web is None else self._web
        self._pages = PageServer(
            loop,
            clock,
            # Other trust domains are told a URL, and the shortest is a host alone.
            {"/": replies.bundle, "/v1/bundle": replies.bundle},
            max_body=0,
            connections=FEDERATION_CONNECTIONS,
        )
        self._door = Door(
            self._pages,
            lambda: self._shown.material,
            tasks,
            counts,
            listener=LISTENER,
            handshakes=FEDERATION_HANDSHAKES,
        )
        readiness.standing[LISTENER] = self._shown.standing

    @property
    def not_after(self) -> datetime.datetime:
        """When the certificate that is shown ends."""
        return self._shown.not_after

    def begin(self) -> socket.socket:
        """Read the certificate, follow its files and listen. Raises ConfigError with every fault, and OSError."""
        if self._web is not None:
            self._web.begin()
            self._tasks.spawn(self._web.follow(), "the federation certificate")
        return open_listener(self._listen.host, self._listen.port)

    def admit(self, sock: socket.socket) -> None:
        """Take an accepted socket, unless too many are open already."""
        self._door.admit(sock)

    def close(self) -> None:
        """Close every connection; the tasks are ended before."""
        self._pages.close()
        if self._web is not None:
            self._web.close()
