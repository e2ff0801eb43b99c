"""Lets callers in at a port: TLS first, by which certificate and for whom the material says, then pages."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from certs.rates import source_of
from certs.service import Connection
from proxy.errors import HandshakeError, Reason
from proxy.handshake.contexts import Material
from proxy.handshake.drive import perform
from proxy.handshake.engine import Session
from proxy.https.config import HANDSHAKE_SECONDS, HANDSHAKES, SHARES
from proxy.https.counts import DoorCounts
from proxy.runtime.pages import PageServer
from proxy.runtime.tasks import TaskSpawner
from proxy.types import ConnectionAttributes, Protocol

_log = logging.getLogger("remora.https")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of a connection: for the service, and for policy; `source` names who shares its address."""

    source: str
    connection: Connection
    attributes: ConnectionAttributes


class Door:
    """Does the handshake of each accepted socket, and gives it to the pages with its Origin."""

    def __init__(
        self,
        pages: PageServer,
        material: Callable[[], Material | None],
        tasks: TaskSpawner,
        counts: DoorCounts,
        *,
        listener: str,
        handshakes: int = HANDSHAKES,
        shares: int = SHARES,
    ) -> None:
        """`material` is asked at each connection, and gives None while there is no certificate of our own.

        `listener` names the port in metrics, `handshakes` is how many may be under way. One address may have one of
        `shares` parts of them and of what is open.
        """
        self._pages = pages
        self._material = material
        self._tasks = tasks
        self._counts = counts
        self._listener = listener
        self._most = handshakes
        self._shares = shares
        self._handshaking: Counter[str] = Counter()

    def admit(self, sock: socket.socket) -> None:
        """Take an accepted socket, unless too many are open already, or too many of one address begin."""
        material = self._material()
        try:
            source = source_of(_address(sock.getpeername()))
        except OSError:  # it has gone already
            sock.close()
            return
        if self._pages.is_full or material is None or self._is_crowded_by(source) or self._has_its_share(source):
            self._counts.turned_away += 1
            sock.close()
            return
        self._handshaking[source] += 1
        self._tasks.spawn(self._open(sock, material, source), f"a connection to the {self._listener} port")

    def _is_crowded_by(self, source: str) -> bool:
        # Whoever connects and says nothing holds a place for ten seconds; it must not have them all.
        return self._handshaking.total() >= self._most or self._handshaking[source] >= max(
            1, self._most // self._shares
        )

    def _has_its_share(self, source: str) -> bool:
        # The same for what is open: idle ones stay for half a minute.
        held = sum(isinstance(origin, Origin) and origin.source == source for origin in self._pages.origins)
        return held >= max(1, self._pages.most // self._shares)

    async def _open(self, sock: socket.socket, material: Material, source: str) -> None:
        session: Session | None = None
        try:
            session, origin = await self._handshake(sock, material)
        except HandshakeError as failure:
            reason = failure.reason
            self._counts.handshake(self._listener, reason)
            _log.log(reason.consequence.level, "refused a connection: %s", failure)
            return
        except (OSError, ValueError) as failure:
            self._counts.handshake(self._listener, Reason.HANDSHAKE_PEER_CLOSED)
            _log.info("a connection ended before it began: %s", failure)
            return
        finally:
            self._handshaking[source] -= 1
            if not self._handshaking[source]:
                del self._handshaking[source]
            if session is None:
                sock.close()
        self._counts.handshake(self._listener, Reason.OK)
        self._pages.admit(sock, session, origin)

    async def _handshake(self, sock: socket.socket, material: Material) -> tuple[Session, Origin]:
        """Prove who both sides are. Raises HandshakeError, OSError and ValueError; the session is released then."""
        remote, local = sock.getpeername(), sock.getsockname()
        session = Session(material, sock, server_side=True, protocol=Protocol.HTTP)
        try:
            await perform(session, sock, timeout=HANDSHAKE_SECONDS)
            der = session.peer_certificate()
            leaf = None if der is None else x509.load_der_x509_certificate(der)
        except BaseException:
            session.release()
            raise
        return session, Origin(
            source=source_of(_address(remote)),
            connection=Connection(remote_address=_address(remote), leaf=leaf),
            attributes=ConnectionAttributes(
                peer=session.maybe_peer,
                source_ip=_ip(remote),
                destination_ip=_ip(local),
                destination_port=int(local[1]),
                sni=session.sni.lower(),
            ),
        )


def _address(name: Any) -> str:
    host = _ip(name)
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


def _ip(name: Any) -> str:
    return str(name[0]).removeprefix("::ffff:").split("%", 1)[0]
