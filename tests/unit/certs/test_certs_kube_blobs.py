"""How a document becomes Secrets, and which of them are not believed."""

from __future__ import annotations

import hashlib
import random

import pytest

from certs.kube_blobs import (
    MAX_BYTES,
    PART_BYTES,
    BlobError,
    pack,
    secret,
    secret_value,
    unpack,
)


def noise(count: int) -> bytes:
    return random.Random(1).randbytes(count)


def digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{}", noise(PART_BYTES * 2), b"a" * (PART_BYTES * 3)])
def test_what_was_packed_is_unpacked(content: bytes) -> None:
    parts = pack(content)
    assert all(0 < len(part) <= PART_BYTES for part in parts)
    assert unpack(parts, digest(parts), "x") == content


def test_noise_takes_several_parts_and_text_one() -> None:
    assert len(pack(noise(PART_BYTES * 2))) == 3
    assert len(pack(b"a" * (PART_BYTES * 3))) == 1


def test_a_changed_part_or_order_is_found() -> None:
    parts = pack(noise(PART_BYTES * 2))
    for damaged in (parts[:-1], parts[::-1], [parts[0][:-1] + b"x", *parts[1:]]):
        with pytest.raises(BlobError, match="Secret x: its content is not the one that it names"):
            unpack(damaged, digest(parts), "x")


@pytest.mark.parametrize("packed", [b"", b"no zlib", pack(b"a" * 1000)[0][:-3]])
def test_what_is_not_packed_is_named(packed: bytes) -> None:
    with pytest.raises(BlobError, match="Secret x: its content is"):
        unpack([packed], digest([packed]), "x")


def test_too_much_is_refused_both_ways() -> None:
    with pytest.raises(BlobError, match="too many for Kubernetes"):
        pack(b"a" * (MAX_BYTES + 1))


def test_a_secret_without_the_value_is_named() -> None:
    whole = secret("x", {"content": b"1"})
    assert secret_value(whole, "content", "x") == b"1"
    for damaged in ({}, {"data": None}, {"data": {"content": 1}}, {"data": {"content": "!"}}):
        with pytest.raises(BlobError, match="Secret x: it has no readable 'content'"):
            secret_value(damaged, "content", "x")


def test_a_replacement_carries_the_version_of_what_it_replaces() -> None:
    held = {**secret("x", {"content": b"1"}), "metadata": {"name": "x", "resourceVersion": "7"}}
    assert secret("x", {"content": b"2"}, held)["metadata"] == {"name": "x", "resourceVersion": "7"}
