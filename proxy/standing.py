"""How one inbound connection stands with what is in force: asked when it comes, and again whenever that changes."""

from __future__ import annotations

from proxy.errors import Reason
from proxy.sidecar import Sidecar
from proxy.telemetry.record import Record
from proxy.types import ConnectionAttributes, Denial, Permit


class Standing:
    """How one inbound connection stands with the trust and the policy in force; asked again when either changes.

    `opaque` says that nobody looks into the connection, so that it is permitted itself. A peer without identity stands
    on policy alone.
    """

    __slots__ = ("_attributes", "_record", "_sidecar", "opaque", "permit")

    def __init__(self, sidecar: Sidecar, attributes: ConnectionAttributes, record: Record) -> None:
        self._sidecar = sidecar
        self._attributes = attributes
        self._record = record
        self.opaque = False
        self.permit: Permit | None = None

    def fault(self) -> Reason | None:
        """Say why the connection must end; None while it may stay. An opaque one gets, or keeps, its Permit."""
        sidecar, attributes = self._sidecar, self._attributes
        tls, policy, peer = sidecar.tls, sidecar.policy, attributes.peer
        if tls is None or policy is None:
            return Reason.NOT_READY
        if peer is not None and not tls.trust.vouches_for(peer):
            return tls.trust.reason_against(peer)
        verdict = policy.connection(attributes) if self.opaque else policy.admits_connection(attributes)
        if verdict is None:
            return None
        if self.permit is None or isinstance(verdict, Denial):
            self._record.judged(verdict)
        if isinstance(verdict, Denial):
            return verdict.reason
        self.permit = verdict
        return None
