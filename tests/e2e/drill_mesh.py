"""What a rotation drill needs: trust domains with an authority each, steady load, and a prober who must not pass.

    home = Domain(tmp_path / "home", "cluster.local")
    home.begin()                                       # `remora authority init`, then `serve`, as a process
    orders = await mesh.process("orders", publish=False, identity=home.section("orders"))
    async with Load() as load, Prober() as prober:
        load.keep(asking=port, host="orders")          # each failed request is counted, none is sent again
        prober.try_to_pass("the revoked", port, lambda: svid)

What is forbidden to pass is looked at by `prober.passed`, and what failed by `load.failures`, when both have ended.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from authority_process import AuthorityProcess
from cryptography import x509
from mesh import Message, Stream, fetch_page
from mesh_streams import dial
from OpenSSL import SSL

from certs.authority import Svid
from certs.bundle import TrustBundle, parse_bundle
from certs.keys import PrivateKey, generate_key
from certs.profile import sign_leaf
from certs.rotation import RotationState
from certs.rotation_json import state_from_json
from certs.sealed import KeySource
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.state import CERTIFICATES, KEYS, STATE
from certs.state_keys import parse_signer, unseal_key
from proxy.authority.control import order, passphrase_file

PACE = ("--refresh-hint", "3s", "--hints", "3", "--window", "10s", "--margin", "1s")
"""Nine seconds from a new root to its use. No bundle is polled more often than every five seconds, so with five a root
would be used that the other trust domain has not seen yet; more only makes the drill longer."""

BETWEEN_REQUESTS = 0.03
BETWEEN_PROBES = 0.05
HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StolenSigner:
    """An intermediate with its key, as whoever broke into an authority has it."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    def forge(self, spiffe_id: str, key: PrivateKey | None = None) -> Svid:
        """Make a certificate of any name, valid for an hour, that no authority knows of."""
        own = key or generate_key()
        now = datetime.datetime.now(datetime.UTC)
        leaf = sign_leaf(SpiffeId.parse(spiffe_id), own.public_key(), self.certificate, self.key, now, HOUR)
        return Svid(chain=(leaf, self.certificate), key=own)


class Domain(AuthorityProcess):
    """A trust domain: its authority as a process, and what others are told of it."""

    def __init__(self, base: Path, trust_domain: str) -> None:
        base.mkdir()
        super().__init__(base)
        self.trust_domain = trust_domain
        self.bootstrap_file = base / "bootstrap.pem"
        self.federation_port = 0
        self._stolen: StolenSigner | None = None

    def begin(self, *words: str) -> None:
        """Make the authority and serve it."""
        self.order("init", "--trust-domain", self.trust_domain, *PACE)
        self.bootstrap_file.write_text(self.order("export bundle", "--form", "pem"))
        self.bundle_file.write_bytes(self.bootstrap_file.read_bytes())
        federation = ("--federation-listen", "127.0.0.1:0", "--federation-profile", "https_spiffe")
        self.start("--identity-rate", "50:50", *federation, *words)
        self.federation_port = int(re.findall(r"health \d+, federation (\d+)", self.log_file.read_text())[-1])

    def name(self, account: str) -> str:
        """The SPIFFE ID of a ServiceAccount of this domain."""
        return f"spiffe://{self.trust_domain}/ns/demo/sa/{account}"

    def token(self, account: str = "orders") -> str:
        """Make a join token."""
        return self.ask_control("token", identity=self.name(account), lifetime="600", who="a test").strip()

    def ask_control(self, command: str, **arguments: str) -> str:
        """Give the running process a command as the command line does, without the time that Python takes to start."""
        return order(self.directory, None, command, arguments)

    # --- what others are told ---

    def section(self, account: str) -> dict[str, Any]:
        """The section `identity` of a sidecar; its token is made and written."""
        token_file = self.base / f"{account}.token"
        token_file.write_text(self.token(account) + "\n")
        return {
            "authority": {
                "url": f"https://127.0.0.1:{self.port}",
                "token_file": str(token_file),
                "bundle_file": str(self.bootstrap_file),
                "crl": "fail-closed",
            }
        }

    def federated(self) -> list[dict[str, Any]]:
        """The section `federation` of a sidecar that follows this domain."""
        return [
            {
                "trust_domain": self.trust_domain,
                "url": f"https://127.0.0.1:{self.federation_port}/v1/bundle",
                "profile": "https_spiffe",
                "identity": f"spiffe://{self.trust_domain}/ns/remora-system/sa/remora-authority",
                "bundle_file": str(self.bootstrap_file),
            }
        ]

    # --- what stands on its disk ---

    @property
    def state(self) -> RotationState:
        """What it remembers of its rotations."""
        return state_from_json((self.directory / STATE).read_bytes(), STATE)

    def certificate(self, name: str) -> x509.Certificate:
        """A root or an intermediate that it has or had."""
        return parse_signer((self.directory / CERTIFICATES / f"{name}.crt").read_bytes(), name, name)

    def bundle(self) -> TrustBundle:
        """What it publishes now."""
        text = self.ask_control("export", what="bundle", form="jwks")
        return parse_bundle(parse_trust_domain(self.trust_domain), text.encode(), "the bundle")

    def stolen(self) -> StolenSigner:
        """Steal what signs now."""
        name = self.state.active.name
        certificate = self.certificate(name)
        if self._stolen is None or self._stolen.certificate != certificate:
            source = KeySource.parse(f"file:{passphrase_file(self.directory)}")
            sealed = (self.directory / KEYS / f"{name}.key").read_bytes()
            self._stolen = StolenSigner(certificate=certificate, key=unseal_key(source, sealed, certificate, name))
        return self._stolen

    def issued_to(self, *accounts: str) -> int:
        """How many certificates its audit log has for these."""
        names = {self.name(account) for account in accounts}
        return sum(line["event"] == "issued" and line["identity"] in names for line in self.audit())


class Load:
    """Callers that ask at a steady pace. A request that is not answered by 200 is a failure, and is not sent again.

    Lasts from `keep` to the end of the block (`async with`); each caller ends its request first.
    """

    def __init__(self) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._began = time.monotonic()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, *, asking: int, host: str, callers: int = 3) -> None:
        """Ask `host` by the outbound port of a sidecar: some callers keep their connection, one more has new ones."""
        for number in range(callers + 1):
            self._tasks.append(asyncio.ensure_future(self._ask(asking, host, is_fresh=number == callers)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, port: int, host: str, *, is_fresh: bool) -> None:
        stream: Stream | None = None
        # Not idempotent: a sidecar must not send it twice either.
        request = f"POST /drill HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello".encode()
        try:
            while not self._stopping:
                try:
                    stream = stream or Stream(dial(port))
                    await stream.send(request)
                    answer = await stream.message()
                except (OSError, EOFError) as failure:  # TimeoutError is an OSError
                    self._fail(host, repr(failure))
                    must_close = True
                else:
                    must_close = is_fresh or answer.get("connection") == b"close"
                    if answer.status == 200:
                        self.answered[host] += 1
                    else:
                        self._fail(host, f"{answer.status} {answer.body!r}")
                    stream.forget()
                if must_close and stream is not None:
                    stream.close()
                    stream = None
                await asyncio.sleep(BETWEEN_REQUESTS)
        finally:
            if stream is not None:
                stream.close()

    def _fail(self, host: str, why: str) -> None:
        self.failures.append(f"{time.monotonic() - self._began:.1f} s, {host}: {why}")


class Probe:
    """One way of trying to be let in by a sidecar. `passed` and `refused` count attempts since it was last told."""

    def __init__(self, what: str, port: int, shows: Callable[[], Svid]) -> None:
        self.what = what
        self.port = port
        self.shows = shows
        self.passed = self.refused = 0
        self.is_forbidden = False

    def forbid(self) -> None:
        """From now on it must not pass."""
        self.passed = self.refused = 0
        self.is_forbidden = True

    async def attempt(self) -> None:
        """Try once, by a new connection."""
        was_forbidden = self.is_forbidden
        has_passed = await passes(self.port, self.shows())
        if was_forbidden is not self.is_forbidden:
            return  # what was begun before does not count for what holds since
        self.passed += has_passed
        self.refused += not has_passed


class Prober:
    """Tries every way in, one after the other, all the time, until its block (`async with`) ends.

    An attempt that went wrong by itself is raised at the end of the block; `is_at_work` tells of it before.
    """

    def __init__(self) -> None:
        self.probes: list[Probe] = []
        self._stopping = False
        self._task = asyncio.ensure_future(self._run())

    @property
    def is_at_work(self) -> bool:
        """Tell whether it goes on trying."""
        return not self._task.done()

    @property
    def passed(self) -> dict[str, int]:
        """How often each way led in that is forbidden; nothing for one that never did."""
        return {probe.what: probe.passed for probe in self.probes if probe.is_forbidden and probe.passed}

    def try_to_pass(self, what: str, port: int, shows: Callable[[], Svid], *, forbidden: bool = True) -> Probe:
        """Try this as well from now on."""
        probe = Probe(what, port, shows)
        probe.is_forbidden = forbidden
        self.probes.append(probe)
        return probe

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._task

    async def _run(self) -> None:
        while not self._stopping:
            for probe in list(self.probes):
                await probe.attempt()
                await asyncio.sleep(BETWEEN_PROBES)
            await asyncio.sleep(0)


def calling(port: int, svid: Svid | None) -> Stream:
    """Begin mutual TLS as somebody who believes any server."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_alpn_protos([b"istio-http/1.1"])
    if svid is not None:
        context.use_certificate(svid.chain[0])
        for certificate in svid.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(svid.key)
    sock = dial(port)
    connection = SSL.Connection(context, sock)
    connection.set_connect_state()
    return Stream(sock, connection)


async def asks(stream: Stream) -> Message:
    """Ask once by a connection."""
    await stream.send(b"GET /probe HTTP/1.1\r\nHost: drill\r\n\r\n")
    return await stream.message()


async def passes(port: int, svid: Svid) -> bool:
    """Say whether a caller with this certificate is served. A handshake that is refused breaks the connection."""
    stream = calling(port, svid)
    try:
        return (await asks(stream)).status == 200
    except (ConnectionError, EOFError):
        return False
    finally:
        stream.close()


async def presented_by(port: int) -> x509.Certificate:
    """The intermediate that stands behind the certificate which a sidecar shows to new callers."""
    stream = calling(port, None)
    try:
        # Nobody who shows no certificate is served; the server's own has come before that is said.
        with contextlib.suppress(ConnectionError, EOFError):
            await asks(stream)
        chain = stream.tls.get_peer_cert_chain(as_cryptography=True) if stream.tls is not None else None
    finally:
        stream.close()
    assert chain is not None
    return chain[1]


async def metric(port: int, name: str) -> float:
    """A number that a sidecar shows on its health port; `name` with its labels."""
    page = (await fetch_page(port, "/metrics")).body.decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found is not None, f"{name} is not among the metrics"
    return float(found[1])
