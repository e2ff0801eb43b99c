"""Keeps a ConfigMap with the trust bundle, for whoever must believe this authority before it has asked it once.

The leader alone writes. A failure is told and disturbs nothing else: sidecars that run get their bundle from here
themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from certs.kube import KubeConflict, KubeError

FILE: Final = "bundle.pem"
CHECK_SECONDS: Final = 30.0
"""Between two looks at a ConfigMap that nobody should have changed."""

_log = logging.getLogger("remora.authority")


class Client(Protocol):
    """The calls of certs.kube.KubeClient that are made here."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...
    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...
    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, object]) -> dict[str, object]: ...


class KubeBundle:
    """One ConfigMap. `keep` blocks: call it from a thread."""

    def __init__(self, client: Client, namespace: str, name: str, leads: Callable[[], bool]) -> None:
        self._client, self._namespace, self._name, self._leads = client, namespace, name, leads
        self._written = b""
        self._looked_at = 0.0
        self.fault = ""
        """Why the last try failed, "" when it did not."""

    def keep(self, pem: bytes, now: float) -> None:
        """Make the ConfigMap hold `pem`; `now` is monotonic, in seconds. A fault is told once, and tried again."""
        if not self._leads():
            self._written, self.fault = b"", ""
            return
        if pem == self._written and not self.fault and now - self._looked_at < CHECK_SECONDS:
            return
        self._looked_at = now
        fault = ""
        try:
            self._put(pem.decode("ascii"))
            self._written = pem
        except KubeConflict:
            self._written = b""  # somebody else wrote: the next look reads it again
        except KubeError as failure:
            fault = str(failure)
        if fault != self.fault:
            self.fault = fault
            if fault:
                _log.warning("the ConfigMap %s does not have the trust bundle: %s", self._name, fault)

    def _put(self, text: str) -> None:
        found = self._client.get("ConfigMap", self._namespace, self._name)
        if found is None:
            metadata = {"name": self._name, "labels": {"app.kubernetes.io/part-of": "remora"}}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {FILE: text}}
            self._client.create("ConfigMap", self._namespace, document)
            _log.info("the ConfigMap %s has the trust bundle", self._name)
        elif found.get("data") != {FILE: text}:
            self._client.update("ConfigMap", self._namespace, self._name, {**found, "data": {FILE: text}})
            _log.info("the ConfigMap %s has the trust bundle again", self._name)
