"""Serves the mutating webhook: API servers show pods, and get patches.

    webhook port   accept -> TLS -> POST /inject -> one thread: review -> audit line -> answer
    health port    /livez /readyz /metrics

What holds:

1. The loop reads, writes and tells the time; reviews are worked on in one thread, so that a large one holds up no
   health page and no handshake. More threads would not be faster: Python runs one at a time.
2. A review that cannot be answered in the time that its API server waits is not begun, or not told: HTTP 503, which is
   a failed call, and `failurePolicy` decides.
3. Whatever is wrong inside is an answer of no and a line in the log: the next review finds everything as it was.
4. Told to end, it says so at /readyz first and goes on answering for a while: an API server learns later than we that
   this replica goes. Each answer then ends its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from certs.state_store import StateError
from injector import names
from injector.doors import World
from injector.review import MAX_BODY, Answered, Verdict, broken, failed, review
from injector.webhook_metrics import Counts, families
from injector.webhook_mounts import Mounts
from proxy.accept.listener import Listener, open_listener
from proxy.admin import pages as texts
from proxy.authority.audit_log import AuditLog
from proxy.config_text import TextError, parse_duration
from proxy.config_values import Address
from proxy.errors import ConfigError, LimitExceeded
from proxy.https.config import WebFiles
from proxy.https.door import Door
from proxy.https.web_certificate import WebCertificate
from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageMaker, PageRequest, PageServer
from proxy.runtime.tasks import TaskSpawner

LISTENER: Final = "webhook"
JSON: Final = "application/json"

CONNECTIONS: Final = 512
"""Open at once. An API server keeps one for each review that it has had under way at the same time."""
SHARES: Final = 2
"""One address may have half: behind a tunnel into the cluster all API servers have one address."""
IDLE_SECONDS: Final = 120.0
"""Longer than the 90 s after which Go's client closes: were we the first, a review that is just being sent would
fail."""
REVIEW_SECONDS: Final = 10.0
"""From the last byte of a review to its answer, where the API server does not say how long it waits."""
MARGIN: Final = 0.9
"""The part of the API server's own limit that is ours; the rest is for the way."""
TICK: Final = 1.0
"""Seconds between two looks at mounted files."""
DRAIN_SECONDS: Final = 5.0
"""From SIGTERM to the end of the listener: endpoints are taken from API servers' proxies within a second or two."""
GRACE_SECONDS: Final = 5.0
"""For reviews that are under way then."""

_ACCEPT_BACKOFF: Final = 0.1
_log = logging.getLogger("remora.injector")


class StartError(Exception):
    """A webhook that cannot start, with a sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """What `remora injector serve` is told. `health` None: no health listener; `defaults` None: the built-in ones."""

    listen: Address
    tls_directory: Path
    health: Address | None = None
    defaults: Path | None = None
    trust_bundle: Path | None = None
    namespace: str = names.NAMESPACE
    audit_log: str = "stdout"
    drain: float = DRAIN_SECONDS
    tick: float = TICK


class Webhook:
    """One running webhook. `start`, then `run_until_stopped`, which returns when everything is closed."""

    def __init__(self, config: WebhookConfig, loop: asyncio.AbstractEventLoop) -> None:
        """Raises StartError when the audit log cannot be opened."""
        self._config = config
        self._loop = loop
        try:
            self._audit_log = AuditLog(config.audit_log)
        except StateError as failure:
            raise StartError(str(failure)) from failure
        self._clock = CoarseClock(loop)
        self._tasks = TaskSpawner(loop)
        self.counts = Counts()
        self.readiness = texts.Readiness()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._under_way: set[asyncio.Task[Page]] = set()
        self._listeners: list[Listener] = []
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="reviews")
        self._mounts = Mounts(
            loop,
            config.defaults,
            config.trust_bundle,
            config.namespace,
            self.readiness,
            self.counts,
            config.tick,
        )
        files = WebFiles(certificate=config.tls_directory / "tls.crt", key=config.tls_directory / "tls.key")
        self._certificate = WebCertificate(
            loop, files, self.readiness, self.counts, config.tick, listener=LISTENER, callers="API servers"
        )
        self._pages = PageServer(
            loop,
            self._clock,
            {},
            actions={names.INJECTOR_PATH: self._inject},
            oversize=self._oversize,
            max_body=MAX_BODY,
            connections=CONNECTIONS,
            idle=IDLE_SECONDS,
        )
        self._door = Door(
            self._pages,
            lambda: self._certificate.material,
            self._tasks,
            self.counts,
            listener=LISTENER,
            shares=SHARES,
        )
        self._health = PageServer(loop, self._clock, self._health_pages())
        self.readiness.missing[LISTENER] = ["the webhook's port is not open yet"]
        self.readiness.standing[LISTENER] = self._certificate.standing

    # --- life ---

    def start_health(self) -> None:
        """Open the health listener and read what is mounted. Raises StartError."""
        health = self._config.health
        if health is not None:
            self._listen(health, self._health.admit, "health")
            _log.info("the health port is %d", self.ports()["health"])
        self._mounts.begin()
        self._tasks.spawn(self._mounts.follow(), "what is mounted")

    def start_serving(self) -> None:
        """Read the certificate and open the webhook's port. Raises StartError."""
        try:
            self._certificate.begin()
        except ConfigError as failure:
            raise StartError(str(failure)) from failure
        self._tasks.spawn(self._certificate.follow(), "the certificate")
        self._listen(self._config.listen, self._door.admit, LISTENER)
        self.readiness.missing.pop(LISTENER, None)
        ports = ", ".join(f"{listener.name} {listener.port}" for listener in self._listeners)
        _log.info("serving; ports: %s; %s", ports, self._certificate.standing())

    def ports(self) -> dict[str, int]:
        """Tell the ports that the kernel gave, by the names of the listeners."""
        return {listener.name: listener.port for listener in self._listeners}

    def stop(self) -> None:
        """Begin to end; a second time: end at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def wait_for(self, work: Coroutine[Any, Any, None], name: str) -> bool:
        """Do something before serving, unless told to end meanwhile; say whether it is done."""
        doing = self._tasks.spawn(work, name)
        ending = self._tasks.spawn(self._stopping.wait(), "the order to end")
        await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        return doing.done()

    def keep_doing(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something for as long as the webhook runs."""
        self._tasks.spawn(work, name)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the webhook, and SIGUSR1 open the audit log anew."""
        acts = ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGUSR1, self._reopen_audit_log))
        handled = []
        for number, act in acts:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                self._loop.add_signal_handler(number, act)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                self._loop.remove_signal_handler(number)

    async def run_until_stopped(self) -> None:
        """Serve until told to end, then go on for the drain time, not ready."""
        await self._stopping.wait()
        self.readiness.missing["end"] = ["it was told to end"]
        _log.info("told to end: not ready any more, closed in %g s", self._config.drain)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain):
                await self._hurry.wait()

    async def close(self) -> None:
        """Close everything; reviews under way are finished first, within `GRACE_SECONDS`."""
        for listener in self._listeners:
            listener.close()
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=GRACE_SECONDS)
            await asyncio.sleep(0)  # what was answered last is written by callbacks of the tasks
        await self._tasks.cancel_all()
        self._pages.close()
        self._health.close()
        self._clock.stop()
        self._desk.shutdown(wait=True, cancel_futures=True)
        self._mounts.close()
        self._certificate.close()
        self._audit_log.close()

    def _listen(self, address: Address, admit: Callable[[socket.socket], None], name: str) -> None:
        try:
            sock = open_listener(address.host, address.port)
        except OSError as failure:
            raise StartError(failure.strerror or str(failure)) from failure
        self._listeners.append(
            Listener(self._loop, sock, admit, name=name, back_off=_ACCEPT_BACKOFF, on_exhausted=self._exhausted)
        )

    def _exhausted(self, failure: LimitExceeded) -> None:
        self.counts.turned_away += 1
        _log.warning("%s", failure)

    def _reopen_audit_log(self) -> None:
        try:
            self._audit_log.reopen()
        except StateError as error:
            _log.error("%s", error)

    # --- reviews ---

    def _inject(self, request: PageRequest) -> Page | asyncio.Future[Page]:
        began = time.monotonic()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            self.counts.unanswered["bad_request"] += 1
            return self._page(415, f"a review is {JSON}, and this is {media_type or 'of no type'}\n".encode("latin-1"))
        world = self._mounts.world
        if world is None:
            self.counts.unanswered["not_ready"] += 1
            return self._page(503, b"not ready: what is mounted was not read yet; /readyz says more\n")
        # Shielded: whoever goes away in the middle leaves an audit line all the same.
        task = self._tasks.spawn(self._reviewed(request, world, began), "a review")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return asyncio.shield(task)

    async def _reviewed(self, request: PageRequest, world: World, began: float) -> Page:
        limit = review_seconds(request.query.get("timeout"))
        try:
            async with asyncio.timeout(limit):
                answered = await self._loop.run_in_executor(self._desk, _review, request.body, world)
        except TimeoutError:
            self.counts.unanswered["too_late"] += 1
            _log.error("a review of %d bytes was not answered within %.1f s", len(request.body), limit)
            return self._page(503, f"the review was not done within {limit:.1f} s\n".encode())
        return self._answer(answered, began)

    def _oversize(self, request: PageRequest) -> Page:
        if request.path != names.INJECTOR_PATH:
            return Page(status=413, body=b"nothing here takes so much\n")
        return self._answer(failed(f"a review has at most {MAX_BODY} bytes", status=413), time.monotonic())

    def _answer(self, answered: Answered, began: float) -> Page:
        seconds = time.monotonic() - began
        self.counts.review(answered.audit, seconds)
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            **answered.audit.as_document(),
            "duration_us": round(seconds * 1e6),
        }
        try:
            self._audit_log.write(json.dumps(line))
        except StateError as error:
            # A full disk must not keep pods from starting: what was decided is in their annotations too.
            self.counts.audit_faults += 1
            _log.error("%s", error)
        if answered.audit.verdict is Verdict.ERROR:
            _log.warning("review %s: %s", answered.audit.uid or "without uid", answered.audit.reason)
        return self._page(answered.status, answered.body, JSON)

    def _page(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> Page:
        headers = {"connection": "close"} if self._stopping.is_set() else {}
        return Page(status=status, content_type=content_type, body=body, headers=headers)

    # --- health ---

    def _health_pages(self) -> dict[str, PageMaker]:
        return {
            "/livez": lambda _: _text(texts.livez()),
            "/readyz": lambda _: _text(texts.readyz(self.readiness, detail=True)),
            "/metrics": lambda _: Page(content_type=texts.METRICS_TYPE, parts=self._metrics()),
        }

    def _metrics(self) -> Iterator[bytes]:
        from proxy.telemetry import collector  # 2.4 MiB of a process that nobody scrapes

        end = None if self._certificate.material is None else self._certificate.not_after
        now = datetime.datetime.now(datetime.UTC)
        for family in families(
            self.counts,
            under_way=len(self._under_way),
            is_ready=self.readiness.is_ready,
            certificate_end=end,
            now=now,
        ):
            yield collector.text(family)


def review_seconds(asked: str | None) -> float:
    """Say how long a review may take, by the `timeout` that API servers put into their query (Go's notation).

    >>> review_seconds("5s"), review_seconds("forever"), review_seconds(None)
    (4.5, 10.0, 10.0)
    """
    if asked is None:
        return REVIEW_SECONDS
    try:
        seconds = parse_duration(asked)
    except TextError:
        return REVIEW_SECONDS
    return min(seconds * MARGIN, REVIEW_SECONDS) if seconds > 0 else REVIEW_SECONDS


def _review(data: bytes, world: World) -> Answered:
    try:
        return review(data, world)
    except Exception:
        answered = broken(data)
        _log.exception("a fault of our own in review %s", answered.audit.uid or "without uid")
        return answered


def _text(text: texts.PageText) -> Page:
    return Page(status=text.status, content_type=text.content_type, body=text.body)
