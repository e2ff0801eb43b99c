"""Takes part in the election of the replica that may write: reads the Lease, decides (certs.lease), writes it.

The clock that decides is monotonic and our own. It is read before a write begins and after a read has ended, so that
each delay of the network shortens our own time as the leader, and lengthens what we grant to another.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from certs.kube import KubeConflict
from certs.lease import (
    Acquire,
    Decision,
    Lost,
    Renew,
    Terms,
    View,
    decide,
    leads,
    observe,
    released,
    renewed,
    stepped_down,
)

_KIND: Final = "Lease"


class Client(Protocol):
    """The calls of certs.kube.KubeClient that are used here."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...

    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...

    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, object]) -> dict[str, object]: ...


class Election:
    """One replica's part in it. Call `step` each `Terms.retry_period` from one thread; any thread may ask `leads`."""

    def __init__(
        self, client: Client, namespace: str, name: str, terms: Terms, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._namespace, self._name = client, namespace, name
        self._terms, self._clock = terms, clock
        self._view = View()

    def leads(self) -> bool:
        """Tells whether this replica may write, at this moment and without a question to the network."""
        return leads(self._view, self._terms, self._clock())

    @property
    def holder(self) -> str:
        """Who led when the Lease was last read; "" when nobody did, or it was never read."""
        holder = (self._view.spec or {}).get("holderIdentity")
        return holder if isinstance(holder, str) else ""

    def step(self, now: datetime.datetime) -> Decision:
        """Reads the Lease and does what has to be done; returns what that was. `now` is only written.

        Raises KubeError when the API server cannot be asked: whoever leads then leads until `renew_deadline`.
        """
        lease = self._client.get(_KIND, self._namespace, self._name)
        local = self._clock()
        self._view = observe(self._view, lease, local)
        decision = decide(lease, self._view, self._terms, now, local)
        if isinstance(decision, Lost):
            self._view = stepped_down(self._view)
        elif isinstance(decision, Acquire | Renew):
            self._write(decision.document)
        return decision

    def release(self, now: datetime.datetime) -> None:
        """Gives the Lease up when this replica ends in order; nothing when it does not lead. Raises KubeError."""
        if not self.leads():
            return
        # First, so that nothing is written any more while the next one may already begin.
        self._view = stepped_down(self._view)
        lease = self._client.get(_KIND, self._namespace, self._name)
        if lease is None or self._holder_of(lease) != self._terms.me:
            return
        try:
            self._client.update(_KIND, self._namespace, self._name, released(lease, self._terms, now))
        except KubeConflict:
            return  # somebody else has it already

    def _write(self, document: Mapping[str, object]) -> None:
        metadata = document.get("metadata")
        is_new = not isinstance(metadata, dict) or not metadata.get("resourceVersion")
        began = self._clock()
        try:
            if is_new:
                named = {**document, "metadata": {"name": self._name, "namespace": self._namespace}}
                stored = self._client.create(_KIND, self._namespace, named)
            else:
                stored = self._client.update(_KIND, self._namespace, self._name, document)
        except KubeConflict:
            return  # the next step sees who was faster
        self._view = renewed(self._view, stored, began)

    def _holder_of(self, lease: Mapping[str, object]) -> object:
        spec = lease.get("spec")
        return spec.get("holderIdentity") if isinstance(spec, dict) else None
