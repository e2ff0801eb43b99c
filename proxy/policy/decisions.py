"""Remembers what a snapshot permitted, where the answer depends on nothing but the key.

Denials are not remembered: they are rare, and their explanation speaks of one request. Neither is what was permitted
with a token: it ends with the token, and another token may say something else.
"""

from __future__ import annotations

from typing import Final

from proxy.policy.kept import sent_as
from proxy.policy.snapshot import PolicySnapshot
from proxy.protocol.headers import header_attributes
from proxy.protocol.stream import RequestHead
from proxy.types import ConnectionAttributes, Denial, Permit, RequestAttributes, VerifiedToken

DECISIONS: Final = 4_096
"""Permits remembered per snapshot. Paths are chosen by attackers, so the memory is bounded and, when full, dropped
whole: an order of eviction would cost more than the decisions that it saves."""


class Decisions:
    """Judges requests, by memory where the snapshot allows that."""

    __slots__ = ("_known", "_snapshot")

    def __init__(self) -> None:
        self._snapshot: PolicySnapshot | None = None
        self._known: dict[tuple[str, bytes, bytes, bytes, int], Permit] = {}

    def judge(
        self,
        snapshot: PolicySnapshot,
        attributes: ConnectionAttributes,
        head: RequestHead,
        token: VerifiedToken | None = None,
    ) -> Permit | Denial:
        """Judge a request with its verified token; a snapshot other than the last one empties the memory."""
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._known.clear()
        key = None
        if snapshot.cacheable and token is None:
            # The certificate and not the identity: a Permit carries the peer's certificate dates.
            peer = attributes.peer
            fingerprint = peer.fingerprint if peer is not None else ""
            key = (fingerprint, head.method, head.path, head.authority, attributes.destination_port)
            known = self._known.get(key)
            if known is not None:
                return known
        verdict = snapshot.request(
            attributes,
            RequestAttributes(
                method=head.method.decode("latin-1"),
                path=head.path.decode("latin-1"),
                host=head.authority.decode("latin-1"),
                headers=header_attributes(head),
                token=token,
            ),
        )
        if isinstance(verdict, Denial):
            return sent_as(verdict, head.target)
        if key is not None:
            if len(self._known) >= DECISIONS:
                self._known.clear()
            self._known[key] = verdict
        return verdict
