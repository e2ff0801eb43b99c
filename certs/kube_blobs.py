"""Keeps a document of any size in Kubernetes, where one Secret holds a megabyte, and replaces it in one moment.

    Secret <name>                        what stands: the digest and either the content or the number of its parts
    Secret <name>.<digest>.<number>      one part each, of a content that is too large for one Secret

Content is compressed (a list of 20,000 revocations has 5 MB of text, and 1.4 MB of it are random). The parts of a
content are named by its digest, so they are written beside those of the last one and never over them. Then the Secret
<name> is replaced under its resourceVersion, which is the moment of the change, and the parts of the last content go.

A reader that finds a part gone has read the Secret <name> from before a change, and begins again. A writer that dies
before the change leaves parts that nobody names; they are harmless, and named after what they belong to.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from certs.kube import KubeConflict, KubeError

PART_BYTES: Final = 512 * 1024
"""Half of what a Secret holds: a third more in base64 on the way, and etcd takes requests of 1.5 MB at most."""

MAX_PARTS: Final = 32
MAX_BYTES: Final = 64 * 1024 * 1024
"""Uncompressed. A content that claims more would cost the authority its memory."""

_READS: Final = 5


class BlobError(ValueError):
    """A document that is damaged; the message names the object and the mend."""


class Client(Protocol):
    """The calls of certs.kube.KubeClient that are used here."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...

    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...

    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, object]) -> dict[str, object]: ...

    def delete(self, kind: str, namespace: str, name: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A document that was read: its content, and the Secret of its name, which `write_blob` is to replace."""

    content: bytes = field(repr=False)
    head: Mapping[str, object] = field(repr=False)


def read_blob(client: Client, namespace: str, name: str) -> Blob | None:
    """Reads a document; None when there is none. Raises KubeError, and BlobError when it is damaged."""
    for _ in range(_READS):
        head = client.get("Secret", namespace, name)
        if head is None:
            return None
        digest, count = _described(head, name)
        parts = [secret_value(head, "content", name)] if count == 0 else []
        for number in range(count):
            part = client.get("Secret", namespace, _part(name, digest, number))
            if part is None:
                break  # it was replaced meanwhile
            parts.append(secret_value(part, "content", name))
        if len(parts) == max(count, 1):
            return Blob(content=unpack(parts, digest, name), head=head)
    raise BlobError(f"Secret {name}: its parts are missing; restore it and its parts from a copy")


def write_blob(
    client: Client, namespace: str, name: str, content: bytes, before: Mapping[str, object] | None
) -> Mapping[str, object]:
    """Puts a document in the place of the one that was read as `before` (None: there was none); returns the new head.

    Raises KubeConflict, and the old one stands, when somebody else has written meanwhile; KubeError when the API
    server cannot be asked, and then the new one may stand.
    """
    parts = pack(content)
    digest = _digest(parts)
    count = len(parts) if len(parts) > 1 else 0
    for number in range(count):
        part = secret(_part(name, digest, number), {"content": parts[number]})
        try:
            client.create("Secret", namespace, part)
        except KubeConflict:
            continue  # of an attempt that failed later: the name says what is in it, and a reader checks
    values = {"digest": digest.encode(), "parts": str(count).encode(), "content": b"" if count else parts[0]}
    if before is None:
        return client.create("Secret", namespace, secret(name, values))
    after = client.update("Secret", namespace, name, {**before, **secret(name, values, before)})
    old, old_count = _described(before, name)
    if old != digest:
        _delete_parts(client, namespace, name, old, old_count)
    return after


def delete_blob(client: Client, namespace: str, name: str) -> None:
    """Removes a document and its parts; nothing when there is none. Raises KubeError and BlobError."""
    head = client.get("Secret", namespace, name)
    if head is not None:
        digest, count = _described(head, name)
        client.delete("Secret", namespace, name)
        _delete_parts(client, namespace, name, digest, count)


def pack(content: bytes) -> list[bytes]:
    """Compresses a content and cuts it into parts of PART_BYTES; raises BlobError when it is too large.

    >>> parts = pack(b"a" * 1000)
    >>> len(parts), unpack(parts, hashlib.sha256(parts[0]).hexdigest(), "x") == b"a" * 1000
    (1, True)
    """
    if len(content) > MAX_BYTES:
        raise _too_large(content)
    packed = zlib.compress(content, 6)
    parts = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
    if len(parts) > MAX_PARTS:
        raise _too_large(content)
    return parts


def unpack(parts: Sequence[bytes], digest: str, name: str) -> bytes:
    """Joins parts and uncompresses them; raises BlobError naming `name` unless they have this digest."""
    if _digest(parts) != digest:
        raise BlobError(f"Secret {name}: its content is not the one that it names; restore it from a copy")
    expander = zlib.decompressobj()
    try:
        content = expander.decompress(b"".join(parts), MAX_BYTES + 1)
    except zlib.error:
        raise BlobError(f"Secret {name}: its content is not compressed; restore it from a copy") from None
    if not expander.eof or len(content) > MAX_BYTES:
        raise BlobError(f"Secret {name}: its content is cut off or too large; restore it from a copy")
    return content


def secret(name: str, values: Mapping[str, bytes], before: Mapping[str, object] | None = None) -> dict[str, object]:
    """Makes a Secret of these values; with `before` it is to replace that one, and carries its resourceVersion.

    >>> secret("a", {"key": b"x"})["data"]
    {'key': 'eA=='}
    """
    metadata = {"name": name} if before is None else before["metadata"]
    data = {key: base64.b64encode(value).decode("ascii") for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}


def secret_value(document: Mapping[str, object], key: str, name: str) -> bytes:
    """Takes one value out of a Secret; raises BlobError naming `name` when it is not there.

    >>> secret_value(secret("a", {"key": b"x"}), "key", "a")
    b'x'
    """
    data = document.get("data")
    value = data.get(key) if isinstance(data, dict) else None
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise BlobError(f"Secret {name}: it has no readable {key!r}; restore it from a copy")


def _described(head: Mapping[str, object], name: str) -> tuple[str, int]:
    digest, count = secret_value(head, "digest", name), secret_value(head, "parts", name)
    if len(digest) != 64 or not digest.isalnum() or not count.isdigit() or int(count) > MAX_PARTS:
        raise BlobError(f"Secret {name}: it does not say what it holds; restore it from a copy")
    return digest.decode("ascii"), int(count)


def _delete_parts(client: Client, namespace: str, name: str, digest: str, count: int) -> None:
    for number in range(count):
        # The change has been made; a part that stays costs room and nothing else.
        with contextlib.suppress(KubeError):
            client.delete("Secret", namespace, _part(name, digest, number))


def _too_large(content: bytes) -> BlobError:
    return BlobError(f"{len(content)} bytes are too many for Kubernetes; keep the authority in a directory")


def _digest(parts: Sequence[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def _part(name: str, digest: str, number: int) -> str:
    return f"{name}.{digest[:32]}.{number}"
