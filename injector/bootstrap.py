"""Keeps the webhook's certificate in a cluster: a Secret for all replicas, the caBundle, two files for our listener.

Each look does what is due and nothing else. No lease: the API server takes a change of the Secret only from whoever
read it last, so of several replicas one takes a step, and the others read what it made. The caBundle is written before
our files: a certificate is not shown before the API server can believe it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from certs.files import replace_file, write_private_file
from certs.kube import KubeConflict, KubeError
from injector.certificate import CHAIN, KEY, Files, advance, ca_bundle, dns_names, not_after
from injector.values import Document, mapping, mappings

TRIES: Final = 5
"""Of a change that others make too. Each failure means that somebody else's succeeded."""

WEBHOOK: Final = "MutatingWebhookConfiguration"


class Client(Protocol):
    """The calls that are made: `certs.kube.KubeClient`, or a cluster in memory."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...
    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...
    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, object]) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look has done, in words, and when the certificate ends."""

    did: tuple[str, ...]
    not_after: datetime.datetime


class Bootstrap:
    """Looks after one webhook's certificate. Blocks: call it from a thread."""

    def __init__(
        self, client: Client, *, namespace: str, secret: str, webhook: str, service: str, directory: Path
    ) -> None:
        """`directory` is where the listener reads tls.crt and tls.key."""
        self._client = client
        self._namespace = namespace
        self._secret = secret
        self._webhook = webhook
        self._names = dns_names(service, namespace)
        self._directory = directory

    def look(self, now: datetime.datetime) -> Looked:
        """Do what is due. Raises KubeError, or OSError when a file cannot be written; the next look does the rest."""
        files, did = self._hold(now)
        if self._publish(ca_bundle(files)):
            did = (*did, f"the caBundle of {self._webhook} was written")
        self._show(files)
        return Looked(did=did, not_after=not_after(files))

    def _hold(self, now: datetime.datetime) -> tuple[Files, tuple[str, ...]]:
        """Give what the Secret holds after every step that is due."""
        did: tuple[str, ...] = ()
        for _ in range(TRIES):
            found = self._client.get("Secret", self._namespace, self._secret)
            files = {} if found is None else _files(found)
            step = advance(files, self._names, now)
            if step is None:
                return files, did
            try:
                if found is None:
                    self._client.create("Secret", self._namespace, self._document(step.files, None))
                else:
                    self._client.update("Secret", self._namespace, self._secret, self._document(step.files, found))
            except KubeConflict:
                continue
            did = (*did, step.what)
        raise KubeError(
            0,
            "Conflict",
            f"the Secret {self._secret} changed {TRIES} times while it was to be written",
            "look who writes it",
        )

    def _publish(self, bundle: bytes) -> bool:
        """Write the caBundle into every webhook of the configuration where it is another; say whether one was."""
        wanted = base64.b64encode(bundle).decode("ascii")
        for _ in range(TRIES):
            found = self._client.get(WEBHOOK, "", self._webhook)
            if found is None:
                raise KubeError(
                    404, "NotFound", f"there is no {WEBHOOK} {self._webhook}", "apply what `remora install` prints"
                )
            entries = mappings(found.get("webhooks"))
            if all(mapping(entry.get("clientConfig")).get("caBundle") == wanted for entry in entries):
                return False
            made = [{**e, "clientConfig": {**mapping(e.get("clientConfig")), "caBundle": wanted}} for e in entries]
            try:
                self._client.update(WEBHOOK, "", self._webhook, {**found, "webhooks": made})
            except KubeConflict:
                continue
            return True
        raise KubeError(
            0,
            "Conflict",
            f"{WEBHOOK} {self._webhook} changed {TRIES} times meanwhile",
            "look who else writes its caBundle",
        )

    def _show(self, files: Files) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The key first: a listener that reads in between sees a pair that does not fit, and keeps the one that it has.
        for name in (KEY, CHAIN):
            path = self._directory / name
            try:
                if path.read_bytes() == files[name]:
                    continue
            except OSError:
                pass
            if name == KEY:
                fresh = self._directory / f".{name}.new"
                fresh.unlink(missing_ok=True)
                write_private_file(fresh, files[name])
                fresh.replace(path)
            else:
                replace_file(path, files[name])

    def _document(self, files: Files, found: Mapping[str, object] | None) -> Document:
        data = {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}
        if found is not None:
            return {**found, "data": data}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._secret, "namespace": self._namespace},
            "type": "Opaque",
            "data": data,
        }


def _files(secret: Mapping[str, object]) -> dict[str, bytes]:
    """Read the data of a Secret; what is no base64 counts as not there."""
    made = {}
    for name, value in mapping(secret.get("data")).items():
        try:
            made[name] = base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            continue
    return made
