"""The passphrase of an authority's keys in a Secret: `--key-source secret:NAME`, in the authority's own namespace.

Made by whoever creates it first, with `init`; of two that begin at once one does, and both seal under its passphrase.
It stands beside what it seals, so it keeps a copy of the keys' Secrets alone from being worth anything, and no more:
where the API server's storage is not encrypted, name a KMS by `command:`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Final, Protocol

from certs.kube import KubeConflict, KubeError
from certs.sealed import SealError

KEY: Final = "passphrase"
MAX_NAME: Final = 253


class Client(Protocol):
    """The calls of certs.kube.KubeClient that are made here."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...
    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...


def passphrase_of(client: Client, namespace: str, name: str, *, makes: bool) -> bytes:
    """Read the passphrase; with `makes` it is made if there is none. Raises SealError and KubeError."""
    found = client.get("Secret", namespace, name)
    if found is None and makes:
        data = {KEY: base64.b64encode(secrets.token_hex(32).encode()).decode("ascii")}
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "Opaque",
            "data": data,
        }
        try:
            found = client.create("Secret", namespace, document)
        except KubeConflict:  # another one begins too, and its passphrase is the one
            found = client.get("Secret", namespace, name)
        except KubeError as failure:
            if failure.status != 0 and failure.status < 500:
                raise
            found = client.get("Secret", namespace, name)  # the answer was lost: it may have been made
            if found is None:
                raise
    if found is None:
        raise SealError(f"there is no Secret {name} in {namespace}; make an authority with `remora authority init`")
    held = found.get("data")
    value = held.get(KEY) if isinstance(held, dict) else None
    try:
        passphrase = base64.b64decode(str(value or ""), validate=True).strip()
    except (binascii.Error, ValueError):
        passphrase = b""
    if not passphrase:
        raise SealError(f"the Secret {name} holds no {KEY}; restore it: without it the keys do not open")
    return passphrase
