"""An authority in this process, in a thread of its own: for what is counted inside, and for limits that are set short.

    authority = AuthorityInside(tmp_path)
    authority.init()
    authority.serve(connections=4)      # members of ServeConfig
    authority.sign(token=authority.token())
    authority.stop()

Callers are those of AuthorityProcess: over TLS, from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from authority_process import DOMAIN, END, START, AuthorityProcess, identity

from certs.authority import Authority, Svid
from certs.founding import found
from certs.joins import DEFAULT_LIFETIME
from certs.keeper import Keeper
from certs.rates import Rate
from certs.rotation import Pace
from certs.sealed import KeySource
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.state import DirectoryStore
from proxy.authority.config import ServeConfig
from proxy.authority.control import open_keeper, order
from proxy.authority.server import AuthorityServer
from proxy.config_values import Address

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
_Made = TypeVar("_Made")
UNLIMITED = Rate(per_second=10_000.0, burst=10_000)


class AuthorityInside(AuthorityProcess):
    """One directory, and the thread that serves it between `serve` and `stop`. `source` is where callers come from."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.source = "127.0.0.1"
        self.server: AuthorityServer | None = None
        self._ends = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- life ---

    def init(self, *words: str) -> None:
        """Make the authority, here and now; it takes no words."""
        (self.base / "ca.passphrase").write_text("correct horse battery staple\n")
        now = datetime.datetime.now(datetime.UTC)
        made = Authority.create(parse_trust_domain(DOMAIN), now)
        store = DirectoryStore(self.directory, self._key_source())
        try:
            found(store, made, now, pace=Pace(), refresh_hint=300, root_offline=False)
        finally:
            store.close()
        self.bundle_file.write_bytes(made.bundle.to_pem())

    def serve(self, loop: str = "uvloop", **members: Any) -> None:
        """Serve on a port that the kernel chooses; nobody is limited in rate unless `members` say so."""
        config = ServeConfig(
            **{
                "directory": self.directory,
                "listen": Address(host="127.0.0.1", port=0),
                "audit_log": str(self.audit_file),
                "identity_rate": UNLIMITED,
                "address_rate": UNLIMITED,
                **members,
            }
        )
        started: Future[int] = Future()

        async def live() -> None:
            self._ends = asyncio.Event()
            try:
                keeper = open_keeper(self.directory, self._key_source())
                self._loop = asyncio.get_running_loop()
                self.server = AuthorityServer(config, keeper, self._loop)
                self.server.start()
                started.set_result(self.server.ports()["signing"])
            except BaseException as fault:
                started.set_exception(fault)
                raise
            await self._ends.wait()
            await self.server.close()  # `run_until_stopped` is for the main thread, which alone gets signals

        def run() -> None:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(live())

        self._thread = threading.Thread(target=run, name="authority")
        self._thread.start()
        self.port = started.result(START)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._ends.set)
            thread.join(END)
            assert not thread.is_alive(), "the authority did not end"
        return 0

    # --- what is inside ---

    def order(self, command: str, *words: str) -> str:
        """Have a command without arguments carried out, over the socket that commands use."""
        return order(self.directory, None, command, {})

    def token(self, account: str = "orders") -> str:
        """Make a join token."""
        arguments = {"identity": identity(account), "lifetime": str(DEFAULT_LIFETIME), "who": "alice"}
        return order(self.directory, None, "token", arguments).strip()

    def old_token(self, account: str = "orders") -> str:
        """Make a join token that expired a minute ago. The next one that is made forgets it."""
        made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=DEFAULT_LIFETIME + 60)
        spiffe_id, keeper = SpiffeId.parse(identity(account)), self.keeper
        return self.inside(lambda: keeper.make_token(spiffe_id, made, made_by="alice", lifetime=DEFAULT_LIFETIME))

    @property
    def keeper(self) -> Keeper:
        """The keeper; it is for `inside`."""
        assert self.server is not None
        return self.server._keeper

    def inside(self, work: Callable[[], _Made]) -> _Made:
        """Carry something out in the thread of the office."""
        assert self.server is not None
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self.server._run(work), self._loop).result(START)

    @property
    def turned_away(self) -> int:
        """How many connections were closed at once."""
        assert self.server is not None
        return self.server._counts.turned_away

    @contextlib.contextmanager
    def connection(self, svid: Svid | None = None) -> Iterator[http.client.HTTPSConnection]:
        """A connection from `source`."""
        with super().connection(svid) as connection:
            connection.source_address = (self.source, 0)  # type: ignore[attr-defined]
            yield connection

    def _key_source(self) -> KeySource:
        return KeySource.parse(f"file:{self.base / 'ca.passphrase'}")
