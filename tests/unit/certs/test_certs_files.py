"""Publication of a set of files in one moment, and reading it back in one piece."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from certs import files as files_module
from certs.files import MAX_FILE_BYTES, StoreError, digest, key_file_warnings, publish, read_files, replace_file

OLD = {"tls.crt": b"old crt", "tls.key": b"old key", "bundles/old.example.json": b"{}"}
NEW = {"tls.crt": b"new crt", "tls.key": b"new key", "bundles/new.example.json": b"{}", "ca.crt": b"ca"}


def test_published_files_hang_on_one_link(tmp_path: Path) -> None:
    publish(tmp_path, NEW)
    generation = os.readlink(tmp_path / "..data")
    assert generation.startswith("..2")
    assert "/" not in generation
    links = {path.name: os.readlink(path) for path in tmp_path.iterdir() if path.is_symlink()}
    assert links == {
        "..data": generation,
        "tls.crt": "..data/tls.crt",
        "tls.key": "..data/tls.key",
        "ca.crt": "..data/ca.crt",
        "bundles": "..data/bundles",
    }
    assert (tmp_path / "bundles" / "new.example.json").read_bytes() == b"{}"


def test_published_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        publish(tmp_path / "made", NEW)
    finally:
        os.umask(before)
    for parent, directories, names in os.walk(tmp_path / "made"):
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(parent, name)).st_mode) == 0o600
        for name in directories:
            assert stat.S_IMODE(os.stat(os.path.join(parent, name)).st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


def test_a_new_set_replaces_the_old_one_and_nothing_is_left(tmp_path: Path) -> None:
    publish(tmp_path, {**OLD, "gone.txt": b""})
    publish(tmp_path, NEW)
    assert dict(read_files(tmp_path)) == NEW
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(["..data", os.readlink(tmp_path / "..data"), "tls.crt", "tls.key", "ca.crt", "bundles"])


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    (tmp_path / "..2001_01_01_00_00_00.abcdefgh").mkdir()
    (tmp_path / "..tmp-..data").symlink_to("nowhere")
    publish(tmp_path, NEW)
    assert not [path for path in tmp_path.iterdir() if "2001" in path.name or "tmp" in path.name]


def test_files_are_synced_before_the_link_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, OLD)
    synced: list[str] = []
    seen_at_move: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    move = files_module._move_link

    def watched_move(link: Path, target: str) -> None:
        if link.name == "..data":
            seen_at_move.extend([*synced, target])
        move(link, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(files_module, "_move_link", watched_move)
    publish(tmp_path, NEW)
    generation = seen_at_move.pop()
    assert {*seen_at_move} >= {"tls.crt", "tls.key", "ca.crt", "new.example.json", "bundles", generation, tmp_path.name}
    assert synced[-1] == tmp_path.name


def test_a_failure_while_writing_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, OLD)
    before = sorted(os.listdir(tmp_path))

    def full(path: Path, content: bytes) -> None:
        if path.name == "tls.key":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr(files_module, "write_private_file", full)
    with pytest.raises(StoreError, match="No space left"):
        publish(tmp_path, NEW)
    assert dict(read_files(tmp_path)) == OLD
    assert sorted(os.listdir(tmp_path)) == before


def test_a_plain_file_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_bytes(b"mine")
    with pytest.raises(StoreError, match="move it away"):
        publish(tmp_path, NEW)
    assert os.listdir(tmp_path) == ["tls.crt"]


@pytest.mark.parametrize("name", ["", ".", "/a", "../a", "a/../b", "..data", "a//b", "./a", "a/", "a\0", "a/..b"])
def test_names_that_could_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name"):
        publish(tmp_path, {"good": b"", name: b""})
    assert os.listdir(tmp_path) == []


def test_one_generation_is_read_even_when_the_link_moves_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, OLD)
    read = files_module._read_file
    moved: list[Path] = []

    def read_and_move(path: Path) -> bytes:
        content = read(path)
        if not moved:
            moved.append(path)
            publish(tmp_path, NEW)
        return content

    monkeypatch.setattr(files_module, "_read_file", read_and_move)
    assert dict(read_files(tmp_path)) == NEW
    assert moved


def test_plain_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_bytes(b"crt")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "a.json").write_bytes(b"{}")
    assert dict(read_files(tmp_path)) == {"tls.crt": b"crt", "bundles/a.json": b"{}"}


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it is not there"):
        read_files(tmp_path / "nowhere")
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(StoreError, match="leads nowhere"):
        read_files(tmp_path)
    (tmp_path / "dangling").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="no plain file"):
        read_files(tmp_path)
    (tmp_path / "pipe").unlink()
    (tmp_path / "big").write_bytes(b"0" * (MAX_FILE_BYTES + 1))
    with pytest.raises(StoreError, match="larger than"):
        read_files(tmp_path)


def test_digest_knows_names_from_contents() -> None:
    assert digest({"a": b"b"}) != digest({"ab": b""}) != digest({})
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_key_that_everybody_may_read_is_warned_of(tmp_path: Path, mode: int, warns: bool) -> None:
    publish(tmp_path, OLD)
    (tmp_path / "tls.key").chmod(mode)
    warnings = key_file_warnings(tmp_path)
    assert bool(warnings) is warns
    assert all(f"{mode:04o}" in warning and "old key" not in warning for warning in warnings)


def test_no_key_file_gives_no_warning(tmp_path: Path) -> None:
    assert key_file_warnings(tmp_path) == []


def test_replace_file_syncs_and_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.json").write_bytes(b"old")
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").read_bytes()))
    replace_file(tmp_path / "b.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("b.json", b"new")]
    assert synced == [b"new"]
