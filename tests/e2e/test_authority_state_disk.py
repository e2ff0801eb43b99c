"""A disk that is full or read-only, in earnest: a tmpfs of a few hundred kilobytes, which only root may mount."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_steps import SOURCE

from certs.authority import Authority
from certs.rotation import Confirmation, Rotate, RotationState, Wanted, advance, begin
from certs.signers import intermediate_made, root_made
from certs.spiffe import parse_trust_domain
from certs.state import DirectoryStore
from certs.state_store import JOINS, IssuedEntry, StateError

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
AT = NOW.timestamp()


def mount(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *options], capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(place))
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], timeout=20, check=True)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(directory, SOURCE)
    try:
        yield store
    finally:
        store.close()


def founded(store: DirectoryStore) -> RotationState:
    made = Authority.create(parse_trust_domain("cluster.local"), NOW)
    store.add_signer(made.root, made.root_key)
    store.add_signer(made.intermediate, made.intermediate_key)
    store.save(begin(root_made(made.root), intermediate_made(made.intermediate, made.root), AT))
    return store.load()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def record_until_refused(store: DirectoryStore, issuer: str) -> list[str]:
    """Record until the disk is full: a page that was begun before has room for some lines."""
    given_out: list[str] = []
    for number in range(1000):
        entry = IssuedEntry(serial=f"{number:x}", identity="i" * 100, key="k", not_after=AT + 9, issuer=issuer)
        try:
            store.record(entry)
        except StateError as error:
            if "No space left on device" not in str(error):
                raise
            return given_out
        given_out.append(entry.serial)
    pytest.fail("the disk was never full")


@pytest.mark.debian
def test_a_full_disk_loses_nothing_and_gives_out_nothing(disk: Path) -> None:
    with opened(disk / "authority") as store:
        before = founded(store)
        fill(disk / "filler")
        after = advance(before, AT, [Rotate(what=Wanted.ROOT)])[-1][0]
        with pytest.raises(StateError, match=r"No space left on device.*Make room"):
            store.save(after)
        many = {f"sidecar{number}": Confirmation(sequence=1, seen_at=AT) for number in range(1000)}
        with pytest.raises(StateError, match="No space left on device"):
            store.save(dataclasses.replace(before, confirmations=many))
        with pytest.raises(StateError, match="No space left on device"):
            store.replace_document(JOINS, None, b"x" * 8192)
        given_out = record_until_refused(store, before.active.name)
        assert [entry.serial for entry in store.issued] == given_out
    (disk / "filler").unlink()
    with opened(disk / "authority") as store:
        assert [entry.serial for entry in store.issued] == given_out
        assert dataclasses.replace(store.load(), intermediates=before.intermediates) == before
        store.record(IssuedEntry(serial="aaaa", identity="i", key="k", not_after=AT + 9, issuer=before.active.name))
        store.save(after)


@pytest.mark.debian
def test_a_disk_that_is_read_only_is_named(disk: Path) -> None:
    with opened(disk / "authority") as store:
        before = founded(store)
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    with pytest.raises(StateError, match=r"authority.*Read-only file system.*make the directory writable"):
        DirectoryStore(disk / "authority", SOURCE)
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    with opened(disk / "authority") as store:
        assert store.load() == before


def test_a_directory_without_write_permission_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes where nobody may; the read-only disk above stands for it")
    with opened(tmp_path / "authority") as store:
        before = founded(store)
    (tmp_path / "authority").chmod(0o500)
    (tmp_path / "authority" / "lock").chmod(0o400)
    with pytest.raises(StateError, match=r"Permission denied.*make the directory writable"):
        DirectoryStore(tmp_path / "authority", SOURCE)
    (tmp_path / "authority").chmod(0o700)
    (tmp_path / "authority" / "lock").chmod(0o600)
    with opened(tmp_path / "authority") as store:
        assert store.load() == before
