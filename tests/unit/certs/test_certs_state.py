"""The directory of an authority: one writer, whole or unchanged, and every fault with its file."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from certs.authority import Authority
from certs.joins import JoinBook, new_token
from certs.keys import generate_key, write_key
from certs.refusals import Refusal, Refused
from certs.revocations import Revocations
from certs.revocations_json import revocations_to_json
from certs.rotation import (
    Confirmation,
    ConfirmedMany,
    Do,
    IntermediateMade,
    Rotate,
    RotationState,
    Wanted,
    advance,
    begin,
)
from certs.sealed import KeySource
from certs.signers import intermediate_made, root_made, signer_name
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.state import DirectoryStore
from certs.state_store import JOINS, REVOCATIONS, IssuedEntry, StateError, StateInDoubt, StateStore

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
AT = NOW.timestamp()
MADE = Authority.create(parse_trust_domain("cluster.local"), NOW)
OTHER = Authority.create(parse_trust_domain("cluster.local"), NOW)
SOURCE = "env:REMORA_TEST_SECRET"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectoryStore]:
    monkeypatch.setenv("REMORA_TEST_SECRET", "a passphrase")
    made = DirectoryStore(tmp_path / "d", KeySource.parse(SOURCE))
    made.save(first_state(made))
    yield made
    made.close()


def first_state(store: DirectoryStore) -> RotationState:
    store.add_signer(MADE.root, MADE.root_key)
    store.add_signer(MADE.intermediate, MADE.intermediate_key)
    return begin(root_made(MADE.root), intermediate_made(MADE.intermediate, MADE.root), AT)


def replaced(store: DirectoryStore) -> RotationState:
    """A state in which MADE.intermediate is removed, and another one under the same root signs."""
    state = advance(store.load(), AT, [Rotate(what=Wanted.INTERMEDIATE)])[-1][0]
    made = IntermediateMade(name=signer_name(OTHER.intermediate), root=signer_name(MADE.root), not_after=AT * 2)
    state = advance(state, AT, [made])[-1][0]
    steps = advance(state, AT + state.pace.margin)
    assert [action.do for _, action in steps] == [Do.DESTROY_KEY]
    return steps[-1][0]


def entry(store: DirectoryStore, serial: str, not_after: float = AT + 60) -> IssuedEntry:
    return IssuedEntry(serial=serial, identity="i", key="k", not_after=not_after, issuer=store.load().active.name)


def reopened(store: DirectoryStore, tmp_path: Path) -> DirectoryStore:
    store.close()
    return DirectoryStore(tmp_path / "d", KeySource.parse(SOURCE))


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only(*_: object) -> int:
    raise OSError(errno.EROFS, "Read-only file system")


def test_what_was_saved_is_loaded_and_no_key_lies_open(store: StateStore, tmp_path: Path) -> None:
    state = store.load()
    assert write_key(store.key(state.active.name)) == write_key(MADE.intermediate_key)
    for path in (tmp_path / "d").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.is_dir() or b"BEGIN PRIVATE KEY" not in path.read_bytes()


def test_a_second_writer_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="another authority holds it"):
        DirectoryStore(tmp_path / "d", KeySource.parse(SOURCE))


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMORA_TEST_SECRET", "a passphrase")
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "d").chmod(0o755)
    with pytest.raises(StateError, match="give it mode 0700"):
        DirectoryStore(tmp_path / "d", KeySource.parse(SOURCE))


def test_a_directory_of_somebody_else_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir(0o700)
    monkeypatch.setenv("REMORA_TEST_SECRET", "a passphrase")
    source = KeySource.parse(SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr("os.geteuid", lambda: directory.stat().st_uid + 1)
        with pytest.raises(StateError, match="it belongs to user"):
            DirectoryStore(directory, source)
    assert list(directory.iterdir()) == []


# --- the index ---


def test_a_serial_is_given_out_once_even_after_a_restart(store: DirectoryStore, tmp_path: Path) -> None:
    store.record(entry(store, "aa"))
    again = reopened(store, tmp_path)
    with pytest.raises(StateError, match="given out already"):
        again.record(entry(again, "aa"))
    assert again.load().active.issued_until == AT + 60
    again.close()


def test_a_torn_last_line_is_cut_and_a_bad_one_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    store.record(entry(store, "aa"))
    index = tmp_path / "d" / "issued.jsonl"
    with index.open("ab") as file:
        file.write(b'{"serial": "b')
    again = reopened(store, tmp_path)
    again.record(entry(again, "cc"))
    assert [known.serial for known in again.issued] == ["aa", "cc"]
    whole = index.read_bytes()
    index.write_bytes(b"torn\n" + whole)
    with pytest.raises(StateError, match=r"issued\.jsonl:1"):
        reopened(again, tmp_path)
    index.write_bytes(whole + whole)
    with pytest.raises(StateError, match=r"issued\.jsonl:3: this serial stands there twice"):
        reopened(again, tmp_path)


def test_ended_entries_are_forgotten(store: DirectoryStore, tmp_path: Path) -> None:
    store.record(entry(store, "aa"))
    store.record(entry(store, "bb", AT + 600))
    store.forget(AT + 60)
    store.forget(AT + 60)
    assert [known.serial for known in store.issued] == ["bb"]
    store.record(entry(store, "cc"))
    again = reopened(store, tmp_path)
    assert [known.serial for known in again.issued] == ["bb", "cc"]
    again.close()


def test_a_compaction_in_doubt_loses_no_later_line(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record(entry(store, "aa"))
    with monkeypatch.context() as patch:
        patch.setattr("certs.state_disk.sync", full)
        with pytest.raises(StateInDoubt, match="may stand"):
            store.forget(AT + 60)
    store.record(entry(store, "cc"))
    again = reopened(store, tmp_path)
    assert [known.serial for known in again.issued] == ["cc"]
    again.close()


# --- a disk that refuses ---


@pytest.mark.parametrize("refusal", [full, read_only])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_state(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, call: str, refusal: object
) -> None:
    before = store.load()
    after = advance(before, AT, [Rotate(what=Wanted.ROOT)])[-1][0]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusal)
        with pytest.raises(StateError, match=r"(No space left|Read-only).*the state is the one from before") as caught:
            store.save(after)
    assert not isinstance(caught.value, StateInDoubt)
    assert store.load() == before
    store.save(after)
    assert store.load() == after


def test_a_replacement_that_could_not_be_synced_is_in_doubt(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = advance(store.load(), AT, [Rotate(what=Wanted.ROOT)])[-1][0]
    with monkeypatch.context() as patch:
        patch.setattr("certs.state_disk.sync", full)
        with pytest.raises(StateInDoubt, match=r"state\.json: .*the new state may stand.*load the state again"):
            store.save(after)
    assert store.load() == after


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_full_disk_gives_out_nothing(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    new = entry(store, "aa")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StateError, match="No space left"):
            store.record(new)
    assert not store.issued
    store.record(new)
    assert list(store.issued) == [new]


# --- what is left over ---


def test_left_over_files_go_when_the_directory_is_opened_and_only_then(store: DirectoryStore, tmp_path: Path) -> None:
    left = [
        tmp_path / "d" / name
        for name in ("keys/unknown.key", "certificates/unknown.crt", ".state.json.new", "keys/.a.key.new")
    ]
    for path in left:
        path.write_bytes(b"x")
    store.load()
    assert all(path.exists() for path in left)
    again = reopened(store, tmp_path)
    assert not any(path.exists() for path in left)
    again.load()
    again.close()


def test_a_signer_that_was_just_made_outlives_a_load(store: DirectoryStore) -> None:
    root_key = OTHER.root_key
    assert root_key is not None
    name = store.add_signer(OTHER.root, root_key)
    store.load()
    assert write_key(store.key(name)) == write_key(root_key)


def test_without_a_state_nothing_is_cleared(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "d" / "state.json").write_bytes(b"{}")
    again = reopened(store, tmp_path)
    assert len(list((tmp_path / "d" / "keys").iterdir())) == 2
    with pytest.raises(StateError, match=r"state\.json: it is no state"):
        again.load()
    again.close()


# --- keys ---


def test_a_key_in_use_is_not_destroyed_and_one_of_the_removed_is(store: DirectoryStore, tmp_path: Path) -> None:
    state = store.load()
    name = state.active.name
    with pytest.raises(StateError, match="still in use"):
        store.destroy_key(name)
    store.save(replaced(store))
    for _ in range(2):
        store.destroy_key(name)
        assert not (tmp_path / "d" / "keys" / f"{name}.key").exists()


def test_the_key_of_a_removed_signer_goes_when_a_crash_was_faster(store: DirectoryStore, tmp_path: Path) -> None:
    name = store.load().active.name
    store.save(replaced(store))
    reopened(store, tmp_path).close()
    assert not (tmp_path / "d" / "keys" / f"{name}.key").exists()


def test_a_key_of_another_certificate_is_not_taken(store: DirectoryStore) -> None:
    with pytest.raises(StateError, match="does not belong to the certificate"):
        store.add_signer(OTHER.intermediate, generate_key())


def test_a_missing_key_or_certificate_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    state = store.load()
    for name in (state.roots[0].name, state.active.name):
        (tmp_path / "d" / "keys" / f"{name}.key").rename(tmp_path / "kept")
        with pytest.raises(StateError, match=rf"{name}\.key: it is missing"):
            store.load()
        (tmp_path / "kept").rename(tmp_path / "d" / "keys" / f"{name}.key")
    store.load()
    (tmp_path / "d" / "certificates" / f"{state.active.name}.crt").write_bytes(b"no")
    with pytest.raises(StateError, match=rf"{state.active.name}\.crt: it holds no readable"):
        store.load()


def test_the_key_of_an_offline_root_is_not_asked_for(store: DirectoryStore, tmp_path: Path) -> None:
    state = dataclasses.replace(store.load(), root_offline=True)
    store.save(state)
    (tmp_path / "d" / "keys" / f"{state.roots[0].name}.key").unlink()
    assert store.load() == state


def test_another_passphrase_opens_nothing(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMORA_TEST_SECRET", "another")
    again = reopened(store, tmp_path)
    with pytest.raises(StateError, match=r"\.key: the key does not open"):
        again.load()
    again.close()


# --- what the state says of its signers ---


def test_a_state_and_a_certificate_of_different_validity_are_found(store: DirectoryStore) -> None:
    state = store.load()
    root, signer = state.roots[0], state.active
    damaged = [
        dataclasses.replace(state, roots=(dataclasses.replace(root, not_after=root.not_after + 1),)),
        dataclasses.replace(state, roots=(dataclasses.replace(root, not_before=root.not_before + 1),)),
        dataclasses.replace(state, intermediates=(dataclasses.replace(signer, not_after=signer.not_after + 1),)),
        dataclasses.replace(state, intermediates=(dataclasses.replace(signer, not_before=signer.not_before + 1),)),
    ]
    for each in damaged:
        store.save(each)
        with pytest.raises(StateError, match="another validity than its certificate"):
            store.load()


def test_an_intermediate_of_another_root_is_found(store: DirectoryStore) -> None:
    store.add_signer(OTHER.root, OTHER.root_key)
    store.save(begin(root_made(OTHER.root), intermediate_made(MADE.intermediate, OTHER.root), AT))
    with pytest.raises(StateError, match="is not signed by its root"):
        store.load()


def test_an_unknown_begin_is_taken_from_the_certificate(store: DirectoryStore) -> None:
    state = store.load()
    signer = dataclasses.replace(state.active, not_before=0.0)
    store.save(dataclasses.replace(state, intermediates=(signer,)))
    assert store.load().active.not_before == MADE.intermediate.not_valid_before_utc.timestamp()


# --- confirmations ---


def test_confirmations_are_written_without_the_state(store: DirectoryStore, tmp_path: Path) -> None:
    written = (tmp_path / "d" / "state.json").stat().st_ino
    reports = {"orders": Confirmation(sequence=1, seen_at=AT)}
    state = advance(store.load(), AT, [ConfirmedMany(reports=reports)])[-1][0]
    store.save(state)
    again = reopened(store, tmp_path)
    assert again.load() == state
    assert (tmp_path / "d" / "state.json").stat().st_ino == written
    confirmed = (tmp_path / "d" / "confirmations.json").stat().st_ino
    again.save(advance(state, AT, [Rotate(what=Wanted.ROOT)])[0][0])
    assert (tmp_path / "d" / "confirmations.json").stat().st_ino == confirmed
    again.close()


def test_a_confirmation_from_before_a_restore_counts_as_none(store: DirectoryStore) -> None:
    reports = {"orders": Confirmation(sequence=7, seen_at=AT)}
    store.save(dataclasses.replace(store.load(), confirmations=MappingProxyType(reports)))
    assert store.load().confirmations["orders"] == Confirmation(sequence=0, seen_at=AT)


def test_lost_confirmations_are_no_permission(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "d" / "confirmations.json").unlink()
    with pytest.raises(StateError, match=r"confirmations\.json: it is missing.*rotate no root for a day"):
        store.load()


# --- join tokens and revocations ---


def test_a_document_is_replaced_only_by_who_has_read_it(store: DirectoryStore, tmp_path: Path) -> None:
    first, second = JoinBook().to_json(), revocations_to_json(Revocations(sequence=1))
    for name, content in ((JOINS, first), (REVOCATIONS, second)):
        assert store.document(name) is None
        assert not store.replace_document(name, b"x", content)
        assert store.replace_document(name, None, content)
        assert not store.replace_document(name, None, b"x")
    again = reopened(store, tmp_path)
    assert (again.document(JOINS), again.document(REVOCATIONS)) == (first, second)
    again.close()


def test_a_join_token_that_is_used_is_used_after_a_restart(store: DirectoryStore, tmp_path: Path) -> None:
    token, laptop = new_token(), SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
    made = JoinBook().create(token, laptop, made_by="alice", now=AT)
    assert store.replace_document(JOINS, None, made.to_json())
    assert store.replace_document(JOINS, made.to_json(), made.redeem(token, AT + 1)[0].to_json())
    again = reopened(store, tmp_path)
    book = JoinBook.from_json(again.document(JOINS) or b"", JOINS)
    with pytest.raises(Refused) as caught:
        book.redeem(token, AT + 2)
    assert caught.value.reason is Refusal.JOIN_TOKEN_USED
    again.close()


@pytest.mark.parametrize("name", ["state.json", "../joins.json", "", "keys"])
def test_another_name_is_no_document(store: DirectoryStore, name: str) -> None:
    with pytest.raises(StateError, match="is no document"):
        store.document(name)
    with pytest.raises(StateError, match="is no document"):
        store.replace_document(name, None, b"x")
