"""Both ends of a TLS connection for tests: a session of ours, and a plain peer that tells which alert it saw."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from OpenSSL import SSL, crypto

from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain
from certs.store import IdentitySet
from certs.testing import MemoryAuthority
from proxy.handshake.binding import Calls
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.engine import Session
from proxy.identity.verify import Trust
from proxy.types import Generation, Protocol

_Result = TypeVar("_Result")

TIMEOUT = 5.0


@functools.cache
def authority() -> MemoryAuthority:
    """The authority of cluster.local that all tests here share; its keys are made once."""
    return MemoryAuthority("cluster.local")


def identity_set(svid: Svid, bundles: Mapping[TrustDomain, TrustBundle]) -> IdentitySet:
    """A set that nobody judged, so that broken certificates can be presented too."""
    return IdentitySet(
        spiffe_id=authority().svid("demo", "orders").spiffe_id,
        chain=svid.chain,
        key=svid.key,
        bundles=bundles,
        not_after=svid.leaf.not_valid_after_utc.timestamp(),
        serial=f"{svid.leaf.serial_number:x}",
        source_digest="",
    )


def generation(
    svid: Svid | None = None,
    *,
    bundles: Mapping[TrustDomain, TrustBundle] | None = None,
    aliases: Sequence[TrustDomain] = (),
    number: int = 1,
    allow_tls12: bool = False,
    calls: Calls | None = None,
) -> TlsGeneration:
    """One generation of ours: by default demo/orders, trusting cluster.local and its neighbour."""
    trusted = authority().bundles if bundles is None else bundles
    return TlsGeneration(
        identity_set(svid or authority().svid("demo", "orders"), trusted),
        Trust.of(authority().trust_domain, trusted, aliases),
        Generation(number),
        allow_tls12=allow_tls12,
        calls=calls,
    )


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected, non-blocking TCP sockets on loopback: the accepted one and the dialling one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with accepted, dialled:
        for end in (accepted, dialled):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield accepted, dialled


@contextmanager
def session(
    material: TlsGeneration,
    sock: socket.socket,
    *,
    server_side: bool,
    protocol: Protocol = Protocol.HTTP,
    **more: object,
) -> Iterator[Session]:
    """A session of ours that is released at the end."""
    made = Session(material, sock, server_side=server_side, protocol=protocol, **more)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.release()


async def readable(sock: socket.socket) -> None:
    """Waits until the socket can be read."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _settle, ready)
    try:
        await asyncio.wait_for(ready, TIMEOUT)
    finally:
        loop.remove_reader(sock.fileno())


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def read_some(end: Session, sock: socket.socket) -> bytes:
    """Reads from a session of ours until there is something: bytes, or b"" at the end."""
    while (data := end.read()) is None:
        await readable(sock)
    return data


class AlertSeen(Exception):
    """The peer received this fatal alert."""


class Peer:
    """A plain pyOpenSSL end without any rule of ours: it believes everybody and presents what it is given."""

    def __init__(
        self,
        sock: socket.socket,
        svid: Svid | None = None,
        *,
        server_side: bool = False,
        alpn: Sequence[bytes] = (),
        configure: Callable[[SSL.Context], None] = lambda context: None,
    ) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"DEFAULT@SECLEVEL=0")  # so that weak keys can be presented
        if svid is not None:
            context.use_certificate(svid.chain[0])
            for certificate in svid.chain[1:]:
                context.add_extra_chain_cert(certificate)
            context.use_privatekey(svid.key)
        if server_side:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
            context.set_alpn_select_callback(lambda _, names: names[0])
        elif alpn:
            context.set_alpn_protos(list(alpn))
        configure(context)
        self.sock = sock
        self.tls = SSL.Connection(context, sock)
        if server_side:
            self.tls.set_accept_state()
        else:
            self.tls.set_connect_state()

    async def handshake(self) -> None:
        """Completes the handshake as this end sees it."""
        await self._do(self.tls.do_handshake)

    async def receive(self) -> bytes:
        """Reads some bytes; b"" is close_notify. Raises AlertSeen, or ConnectionResetError for an end without it."""
        try:
            return await self._do(lambda: self.tls.recv(16_384))
        except SSL.ZeroReturnError:
            return b""

    async def send(self, data: bytes) -> None:
        """Writes everything."""
        await self._do(lambda: self.tls.sendall(data))

    async def alert(self) -> str:
        """Does the handshake, reads on, and tells which fatal alert came: "" for a clean end, "reset" for none."""
        try:
            await self.handshake()
            while await self.receive():
                continue
        except AlertSeen as seen:
            return str(seen)
        except ConnectionResetError:
            return "reset"
        finally:
            self.sock.shutdown(socket.SHUT_WR)
        return ""

    async def _do(self, call: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return call()
            except SSL.WantReadError:
                await readable(self.sock)
            except SSL.SysCallError as error:
                raise ConnectionResetError(str(error)) from None
            except SSL.ZeroReturnError:
                raise
            except SSL.Error as error:
                text = error.args[0][-1][2] if error.args and error.args[0] else ""
                raise AlertSeen(text.rpartition("alert ")[2].replace(" ", "_")) from None


def believes(context: SSL.Context, bundle: TrustBundle) -> None:
    """Lets a peer's context verify against a bundle, as OpenSSL does by itself."""
    store = context.get_cert_store()
    if store is not None:
        for root in bundle.certificates:
            store.add_cert(crypto.X509.from_cryptography(root))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
