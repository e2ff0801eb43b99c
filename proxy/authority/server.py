"""THE page of the service: listeners, TLS, pages, and what is due by the clock.

    signing port      accept -> handshake (a certificate is asked for, not demanded) -> page -> policy -> certs.service
    federation port   the bundle, for other trust domains: see federation_door.py
    health port       /livez /readyz /metrics
    control.sock      in the directory, for the commands of whoever owns it

One event loop carries the connections. One thread, the office, reads and writes the store, signs, and takes the steps
of a rotation: a disk that syncs slowly holds up no page, and no two decisions meet. Questions to the Kubernetes API
have threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from certs.authority import AuthorityError
from certs.callers.oidc import KeySetError
from certs.crl_extension import CrlError
from certs.held import HeldError
from certs.keeper import Keeper
from certs.kube import KubeError
from certs.requests import MAX_BODY_BYTES
from certs.rotation import Action, Do, RotationError
from certs.service import Service, no_authenticator
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.state_store import StateError
from certs.store import SetError
from proxy.accept.listener import Listener, open_listener, open_unix_listener
from proxy.admin import pages as texts
from proxy.admin.guard import refusal
from proxy.authority.audit_log import AuditLog
from proxy.authority.commands import CommandFailed, run_command
from proxy.authority.config import FederationListen, ServeConfig
from proxy.authority.control import CONTROL_SOCKET
from proxy.authority.counts import Counts, families
from proxy.authority.federation_door import LISTENER, FederationDoor
from proxy.authority.gatekeeper import Gatekeeper, compile_policies, read_policies
from proxy.authority.kube_bundle import KubeBundle
from proxy.authority.office import Office
from proxy.authority.own_identity import OwnIdentity
from proxy.authority.replica import Campaign
from proxy.authority.replies import SIGN, Replies, text_page
from proxy.authority.tokens import authenticator
from proxy.constants import MAX_UNIX_PATH
from proxy.errors import ConfigError, LimitExceeded
from proxy.https.door import Door
from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageMaker, PageRequest, PageServer
from proxy.runtime.tasks import TaskSpawner

CONTROL_BODY: Final = 1024 * 1024
"""Bytes of a command: `rotate --force` may name thousands of sidecars."""

GRACE_SECONDS: Final = 5.0
"""For requests that wait for the Kubernetes API when the service is told to end."""

_ACCEPT_BACKOFF: Final = 0.1
_FAULTS = (StateError, RotationError, CrlError, HeldError, AuthorityError, SetError)

_Made = TypeVar("_Made")

_log = logging.getLogger("remora.authority")


class StartError(Exception):
    """A service that cannot start, with a sentence for a person."""


class AuthorityServer:
    """One running authority. `start`, then `run_until_stopped`, which returns when everything is closed.

    The keeper is closed with it; `campaign` is for one of several replicas, `bundle` for who wants the trust bundle in
    a ConfigMap. Raises StartError when what it is told
    makes no service.
    """

    def __init__(
        self,
        config: ServeConfig,
        keeper: Keeper,
        loop: asyncio.AbstractEventLoop,
        campaign: Campaign | None = None,
        bundle: KubeBundle | None = None,
    ) -> None:
        self._config = config
        self._keeper = keeper
        keeper.on_action = _tell  # an operator's orders too, and what follows from a report
        self._campaign = campaign
        self._bundle = bundle
        self._loop = loop
        try:
            own = SpiffeId.for_service_account(keeper.trust_domain, config.namespace, config.service_account)
            gatekeeper = Gatekeeper(compile_policies(read_policies(config.policy), own))
            self._audit_log = AuditLog(config.audit_log)
            self._tokens = None if config.tokens is None else authenticator(config.tokens, keeper.trust_domain)
        except OSError as failure:
            raise StartError(f"{failure.filename}: it cannot be read ({failure.strerror})") from failure
        except (ConfigError, KubeError, KeySetError, SpiffeIdError, StateError) as failure:
            raise StartError(str(failure)) from failure
        self._clock = CoarseClock(loop)
        self._tasks = TaskSpawner(loop)
        self._counts = Counts()
        self._readiness = texts.Readiness()
        self._stopping = asyncio.Event()
        self._signing_now: set[asyncio.Task[Page]] = set()
        self._listeners: list[Listener] = []
        self._own = OwnIdentity(
            keeper, own, lifetime=config.own_lifetime, replica=config.replica, audit=self._audit_log.write
        )
        self._office = Office(keeper, self._audit_log)
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="office")
        self._service = Service(
            self._office,
            replica=config.replica,
            authenticate=no_authenticator if self._tokens is None else self._tokens.authenticate,
            run=self._run,
            lifetimes=config.lifetimes,
            is_certificate_enough=config.is_certificate_enough,
            identity_rate=config.identity_rate,
            address_rate=config.address_rate,
        )
        self._replies = Replies(self._service, gatekeeper)
        self._signing = PageServer(
            loop,
            self._clock,
            {"/v1/bundle": self._replies.bundle, "/v1/crl": self._replies.crl},
            actions={SIGN: self._sign},
            oversize=self._replies.oversize,
            max_body=MAX_BODY_BYTES,
            connections=config.connections,
        )
        self._door = Door(self._signing, lambda: self._own.tls, self._tasks, self._counts, listener="signing")
        self._federation = None if config.federation is None else self._make_federation(config.federation)
        self._health = PageServer(loop, self._clock, self._health_pages())
        self._control = PageServer(
            loop, self._clock, {}, actions={"/do": self._command}, guard=_control_guard, max_body=CONTROL_BODY
        )

    # --- life ---

    def start(self) -> None:
        """Issue our own certificate and open every listener. Raises StartError."""
        if not self._look():
            raise StartError("; ".join(self._readiness.missing.get("authority", ["the authority cannot begin"])))
        path = self._config.directory / CONTROL_SOCKET
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise StartError(f"{path}: a socket has {MAX_UNIX_PATH} bytes at most; choose a shorter --directory")
        try:
            self._listen(open_listener(self._config.listen.host, self._config.listen.port), self._door.admit, "signing")
            if self._config.health is not None:
                health = self._config.health
                self._listen(open_listener(health.host, health.port), self._health.admit, "health")
            if self._federation is not None:
                self._listen(self._federation.begin(), self._federation.admit, LISTENER)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # of a process that was killed: a directory has one process, a pod its own
            self._listen(open_unix_listener(str(path)), self._control.admit, "control")
        except OSError as failure:
            raise StartError(failure.strerror or str(failure)) from failure
        except ConfigError as failure:
            raise StartError(str(failure)) from failure
        self._tasks.spawn(self._keep(), "what is due")
        if self._campaign is not None:
            self._tasks.spawn(self._campaign.run(), "the election")
        ports = ", ".join(f"{listener.name} {listener.port}" for listener in self._listeners if listener.port)
        _log.info("serving as %s for %s; ports: %s", self._own.spiffe_id, self._keeper.trust_domain, ports)

    def ports(self) -> dict[str, int]:
        """Tell the ports that the kernel gave, by the names of the listeners."""
        return {listener.name: listener.port for listener in self._listeners}

    def stop(self) -> None:
        """Begin to end."""
        self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT, then close everything. SIGUSR1 opens the audit log anew."""
        handled = []
        for number, act in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGUSR1, self._reopen_audit_log),
        ):
            with contextlib.suppress(NotImplementedError, RuntimeError):
                self._loop.add_signal_handler(number, act)
                handled.append(number)
        try:
            await self._stopping.wait()
        finally:
            await self.close()
            for number in handled:
                self._loop.remove_signal_handler(number)

    async def close(self) -> None:
        """Close everything; what is being signed is finished first, within `GRACE_SECONDS`."""
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(OSError):
            (self._config.directory / CONTROL_SOCKET).unlink(missing_ok=True)
        if self._signing_now:
            await asyncio.wait(set(self._signing_now), timeout=GRACE_SECONDS)
        await self._tasks.cancel_all()
        if self._campaign is not None:
            await self._campaign.release()
        for server in (self._signing, self._health, self._control, self._federation):
            if server is not None:
                server.close()
        self._clock.stop()
        self._desk.shutdown(wait=True)
        if self._tokens is not None:
            await self._loop.run_in_executor(None, self._tokens.close)
        try:
            self._office.settle()
            self._keeper.close(_now(), time.monotonic())
        except _FAULTS as error:
            _log.error("the last reports of sidecars are lost: %s", error)
        self._audit_log.close()

    def _make_federation(self, config: FederationListen) -> FederationDoor:
        return FederationDoor(
            self._loop,
            self._clock,
            config,
            self._own,
            self._replies,
            self._tasks,
            self._counts,
            self._readiness,
            interval=self._config.tick,
        )

    def _listen(self, sock: socket.socket, admit: Any, name: str) -> None:
        self._listeners.append(
            Listener(self._loop, sock, admit, name=name, back_off=_ACCEPT_BACKOFF, on_exhausted=self._exhausted)
        )

    def _exhausted(self, failure: LimitExceeded) -> None:
        self._counts.turned_away += 1
        _log.warning("%s", failure)

    def _reopen_audit_log(self) -> None:
        try:
            self._audit_log.reopen()
        except StateError as error:
            _log.error("%s", error)

    # --- what is due ---

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._config.tick)
            try:
                await self._run(self._look)
            except Exception as fault:  # what is due later must not wait for a restart
                _log.exception("a fault of our own; what was due is tried again")
                self._readiness.missing["authority"] = [f"a fault of our own: {fault!r}"]

    def _look(self) -> bool:
        """Take every step that is due; tell whether all went well. What failed is tried again the next time."""
        now = _now()
        try:
            self._office.settle()
            self._keeper.advance(now, time.monotonic())
            self._keeper.refresh(now)
            if self._own.renew_if_due(now):
                _log.info("our own certificate is valid until %s", self._own.not_after.isoformat(timespec="seconds"))
        except _FAULTS as error:
            self._counts.store_faults += 1
            if self._readiness.missing.get("authority") != [str(error)]:
                _log.error("%s", error)
            self._readiness.missing["authority"] = [str(error)]
            return False
        finally:
            if news := self._keeper.clock.news():
                _log.warning("%s; certificates and lists of before keep the times that are in them", news)
        if self._readiness.missing.pop("authority", None) is not None:
            _log.info("it works again")
        self._publish_bundle()
        return True

    def _publish_bundle(self) -> None:
        """Keep the ConfigMap; whether it can be had or not, the signing port serves."""
        if self._bundle is None:
            return
        self._bundle.keep(self._keeper.held.bundle.to_pem(), time.monotonic())
        if self._bundle.fault:
            self._readiness.rejected["trust bundle"] = [self._bundle.fault]
        else:
            self._readiness.rejected.pop("trust bundle", None)

    # --- the signing port ---

    def _sign(self, request: PageRequest) -> asyncio.Future[Page]:
        # Shielded: whoever goes away in the middle leaves an audit line all the same.
        task = self._tasks.spawn(self._replies.sign(request), "sign")
        self._signing_now.add(task)
        task.add_done_callback(self._signing_now.discard)
        return asyncio.shield(task)

    # --- health and control ---

    def _health_pages(self) -> dict[str, PageMaker]:
        return {
            "/livez": lambda _: text_page(texts.livez()),
            "/readyz": lambda _: text_page(texts.readyz(self._readiness, detail=False)),
            "/metrics": lambda _: Page(content_type=texts.METRICS_TYPE, parts=self._metrics()),
        }

    def _metrics(self) -> Iterator[bytes]:
        from proxy.telemetry import collector  # 2.4 MiB of a process that nobody scrapes

        ends = {"own": self._own.not_after}
        if self._federation is not None:
            ends[LISTENER] = self._federation.not_after
        for family in families(
            self._counts,
            issued=self._service.issued,
            refused=self._service.refused,
            held=self._keeper.held,
            ends=ends,
            now=_now(),
        ):
            yield collector.text(family)

    def _command(self, request: PageRequest) -> asyncio.Future[Page]:
        return self._tasks.spawn(self._run(lambda: self._carry_out(request.body)), "a command")

    def _carry_out(self, body: bytes) -> Page:
        try:
            asked = json.loads(body)
            self._office.settle()
            text = run_command(self._keeper, asked["command"], asked["arguments"], _now(), time.monotonic())
        except CommandFailed as failure:
            return Page(status=409, body=f"{failure}\n".encode())
        except (ValueError, KeyError, TypeError):
            return Page(status=400, body=b"this is no command; use `remora authority` of the same release\n")
        # A rotation or a revocation holds from here on, and not from the next look at the clock.
        self._look()
        # How the process stands is no matter of its store, and so not known to the command.
        standing = texts.readyz(self._readiness, detail=True).body if asked["command"] == "status" else b""
        return Page(body=text.encode() + standing)

    async def _run(self, work: Callable[[], _Made]) -> _Made:
        """Carry out a step in the one thread that reads and writes the store."""
        return await self._loop.run_in_executor(self._desk, work)


def _tell(action: Action) -> None:
    if action.do is not Do.AWAIT_IMPORT:
        _log.info("rotation: %s", f"{action.do.value} {action.signer[:12]}".rstrip())


def _control_guard(request: PageRequest) -> Page | None:
    refused = refusal(method=request.method, headers=request.headers, unix=True)
    return None if refused is None else text_page(refused)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
