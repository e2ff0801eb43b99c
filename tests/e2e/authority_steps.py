"""The named steps of an authority that are persisted, each to be killed at every call that changes the disk.

    python authority_steps.py DIRECTORY      writes DIRECTORY/<step>/before, DIRECTORY/<step>/<number of the call>

Each step is done by a process of its own on a copy of what the steps before it have left; the process kills itself by
SIGKILL before call 1, 2, 3 and so on, until one comes to its end. Prints the number of kills of each step as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from certs.authority import Authority
from certs.joins import JoinBook
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.revocations_json import revocations_to_json
from certs.rotation import (
    Confirmation,
    ConfirmedMany,
    Do,
    Event,
    Rotate,
    RotationState,
    Status,
    Wanted,
    advance,
    begin,
)
from certs.sealed import KeySource, SourceKind
from certs.signers import intermediate_made, root_made, signer_name
from certs.spiffe import SpiffeId
from certs.state import DirectoryStore
from certs.state_store import JOINS, REVOCATIONS, IssuedEntry

SOURCE = KeySource(kind=SourceKind.ENV, where="SECRET", passphrase=b"a passphrase")
TOKEN = "remora-join-" + "a" * 43
LAPTOP = SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
CHANGES = ("open", "replace", "fsync", "write", "unlink", "ftruncate", "mkdir")
MATERIAL = "material"

Step = Callable[[DirectoryStore, "Material"], None]


class Material:
    """Two authorities that were made before, the second to be rotated to; `at` is when they were made."""

    def __init__(self, directory: Path) -> None:
        self.old = Authority.load(directory / MATERIAL / "old")
        self.new = Authority.load(directory / MATERIAL / "new")
        self.at = self.old.intermediate.not_valid_before_utc.timestamp() + 60
        self.hints = self.at + 901  # three refresh hints later
        self.ends = self.at + 5_000  # the margin after that


def once(
    store: DirectoryStore, now: float, events: Sequence[Event], is_done: Callable[[RotationState], bool]
) -> RotationState:
    """Take one step of the rotation, unless it was taken already."""
    state = store.load()
    if is_done(state):
        return state
    after, action = advance(state, now, events)[0]
    store.save(after)
    if action.do in (Do.DESTROY_KEY, Do.PUBLISH) and action.signer:
        store.destroy_key(action.signer)
    return after


def open_again(store: DirectoryStore, material: Material) -> None:
    store.load()


def init(store: DirectoryStore, material: Material) -> None:
    old = material.old
    store.add_signer(old.root, old.root_key)
    store.add_signer(old.intermediate, old.intermediate_key)
    store.save(begin(root_made(old.root), intermediate_made(old.intermediate, old.root), material.at))


def record(store: DirectoryStore, material: Material) -> None:
    if not store.issued:
        issuer = store.load().active.name
        store.record(IssuedEntry(serial="aa", identity="x", key="k", not_after=material.at + 600, issuer=issuer))


def make_join_token(store: DirectoryStore, material: Material) -> None:
    before = store.document(JOINS)
    if before is None:
        book = JoinBook().create(TOKEN, LAPTOP, made_by="alice", now=material.at)
        store.replace_document(JOINS, before, book.to_json())


def redeem(store: DirectoryStore, material: Material) -> None:
    before = store.document(JOINS) or b""
    book = JoinBook.from_json(before, JOINS)
    if all(entry.used_at is None for entry in book.entries.values()):
        store.replace_document(JOINS, before, book.redeem(TOKEN, material.at + 1)[0].to_json())


def revoke(store: DirectoryStore, material: Material) -> None:
    before = store.document(REVOCATIONS)
    when = material.old.intermediate.not_valid_before_utc
    block = Revocation(kind=Kind.IDENTITY, value=str(LAPTOP), when=when, reason=Reason.KEY_COMPROMISE, who="alice")
    store.replace_document(REVOCATIONS, before, revocations_to_json(Revocations().add(block)))


def ask_for_a_root(store: DirectoryStore, material: Material) -> None:
    once(store, material.at, [Rotate(what=Wanted.ROOT)], lambda state: state.wanted is Wanted.ROOT)


def add_root(store: DirectoryStore, material: Material) -> None:
    store.add_signer(material.new.root, material.new.root_key)


def save_prepared_root(store: DirectoryStore, material: Material) -> None:
    add_root(store, material)  # a process that begins anew makes it anew: opening cleared what nobody named
    once(store, material.at, [root_made(material.new.root)], lambda state: len(state.roots) == 2)


def publish(store: DirectoryStore, material: Material) -> None:
    once(store, material.at, [], lambda state: state.sequence == 2)


def confirm(store: DirectoryStore, material: Material) -> None:
    reports = {"orders": Confirmation(sequence=2, seen_at=material.at)}
    once(store, material.at, [ConfirmedMany(reports=reports)], lambda state: "orders" in state.confirmations)


def add_intermediate(store: DirectoryStore, material: Material) -> None:
    store.add_signer(material.new.intermediate, material.new.intermediate_key)


def save_prepared_intermediate(store: DirectoryStore, material: Material) -> None:
    add_intermediate(store, material)
    made = intermediate_made(material.new.intermediate, material.new.root)
    once(store, material.hints, [made], lambda state: len(state.intermediates) == 2)


def activate(store: DirectoryStore, material: Material) -> None:
    name = signer_name(material.new.intermediate)
    once(store, material.hints, [], lambda state: state.active.name == name)


def remove_intermediate(store: DirectoryStore, material: Material) -> None:
    once(store, material.ends, [], lambda state: state.intermediates[0].status is Status.REMOVED)
    store.destroy_key(signer_name(material.old.intermediate))


def remove_root(store: DirectoryStore, material: Material) -> None:
    once(store, material.ends, [], lambda state: state.roots[0].status is Status.REMOVED)
    store.destroy_key(signer_name(material.old.root))


def compact(store: DirectoryStore, material: Material) -> None:
    store.forget(material.ends)


STEPS: dict[str, Step] = {
    "init: root key, root certificate, intermediate, state": init,
    "open": open_again,
    "record a certificate": record,
    "make a join token": make_join_token,
    "redeem a join token": redeem,
    "revoke": revoke,
    "ask for a root": ask_for_a_root,
    "add root key and root certificate": add_root,
    "save the prepared root": save_prepared_root,
    "publish": publish,
    "confirm": confirm,
    "add intermediate key and certificate": add_intermediate,
    "save the prepared intermediate": save_prepared_intermediate,
    "activate, and retire what was active": activate,
    "remove the intermediate": remove_intermediate,
    "remove the root": remove_root,
    "compact the index": compact,
}


def folder(step: str) -> str:
    """Name the directory of a step."""
    return "".join(character if character.isalnum() else "-" for character in step)


def killed_at(step: Step, material: Material, directory: Path, kill_at: int) -> bool:
    """Do a step in a process that kills itself before its `kill_at`th change of the disk; True when it did."""
    child = os.fork()
    if child == 0:
        try:
            calls = 0

            def counted(real: Callable[..., object]) -> Callable[..., object]:
                def call(*arguments: object, **options: object) -> object:
                    nonlocal calls
                    calls += 1
                    if calls == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **options)

                return call

            for name in CHANGES:
                setattr(os, name, counted(getattr(os, name)))
            step(DirectoryStore(directory, SOURCE), material)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"the step ended with {status}")
    return status != 0


def main(root: Path) -> None:
    material = Material(root)
    before = root / "start"
    kills: dict[str, int] = {}
    for name, step in STEPS.items():
        place = root / folder(name)
        place.mkdir()
        kill_at = 0
        is_killed = True
        while is_killed:
            kill_at += 1
            copy = place / str(kill_at)
            if before.exists():
                shutil.copytree(before, copy)
            is_killed = killed_at(step, material, copy, kill_at)
        kills[name] = kill_at - 1
        before = place / str(kill_at)  # the one that came to its end
    sys.stdout.write(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
