"""Keeps the state of an authority in a directory that survives a crash at any moment.

    directory/                       mode 0700, every file 0600
      lock                           held by the one process that may write
      state.json                     what certs.rotation remembers; the only file whose change is a decision
      confirmations.json             which sidecar holds which bundle; written every ten seconds at most
      certificates/<name>.crt        one for each root and intermediate; name is the SHA-256 of its DER
      keys/<name>.key                its private key, sealed (certs.sealed); none for a root that is offline
      issued.jsonl                   one line for each certificate that was given out (certs.issued)
      joins.json  revocations.json   what certs.joins and certs.revocations remember

Invariants, true after kill -9 or a power failure at any moment:

1. Each file is the one from before a change or the one from after it: the new one is written beside it and synced,
   then renamed over it, then the directory is synced (certs.state_disk).
2. A signer's files are on disk before the state names it. What the state does not name is left over from a crash and
   goes when the directory is opened, and only then: while it is open, it may be a signer that was just made. So does
   the key of a signer that the state says is removed.
3. A certificate is in `issued.jsonl`, on disk, before it leaves.
4. The state may not know of the last leaves; the index does, and `load` takes the later end of the two.

A disk that is full or read-only raises StateError and leaves what was there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.issued import IssuedIndex
from certs.keys import PrivateKey
from certs.rotation import RotationError, RotationState
from certs.rotation_json import confirmations_from_json, confirmations_to_json, state_from_json, state_to_json
from certs.sealed import KeySource
from certs.signers import signer_name
from certs.state_check import check_state
from certs.state_disk import read_file, remove_file, remove_unfinished, replace_file, sync, unwritable
from certs.state_keys import RESTORE, RESTORE_KEY, parse_signer, seal_key, unseal_key
from certs.state_store import (
    IssuedEntry,
    StateError,
    document_name,
)

STATE: Final = "state.json"
CONFIRMATIONS: Final = "confirmations.json"
ISSUED: Final = "issued.jsonl"
LOCK: Final = "lock"
CERTIFICATES: Final = "certificates"
KEYS: Final = "keys"


class DirectoryStore:
    """The state in a directory; one process holds it at a time. See certs.state_store.StateStore for each method.

    >>> import tempfile
    >>> from certs.joins import JoinBook
    >>> from certs.sealed import SourceKind
    >>> from certs.state_store import JOINS
    >>> source = KeySource(kind=SourceKind.ENV, where="SECRET", passphrase=b"a passphrase")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = DirectoryStore(Path(directory), source)
    ...     written = store.replace_document(JOINS, None, JoinBook().to_json())
    ...     again = store.replace_document(JOINS, None, b"what another read before")
    ...     store.close()
    >>> written, again
    (True, False)
    """

    def __init__(self, directory: Path, source: KeySource) -> None:
        self._directory, self._source = directory, source
        self._guard = threading.RLock()
        self._lock = -1
        self._maybe_index: IssuedIndex | None = None
        self._known: RotationState | None = None
        try:
            self._hold()
            for folder in (directory, directory / CERTIFICATES, directory / KEYS):
                remove_unfinished(folder)
            self._maybe_index = IssuedIndex(directory / ISSUED)
            self._clear()
        except OSError as error:
            self.close()
            raise unwritable(error, directory) from None
        except StateError:
            self.close()
            raise

    def close(self) -> None:
        """Lets the directory go; may be called again."""
        if self._maybe_index is not None:
            self._maybe_index.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    @property
    def issued(self) -> tuple[IssuedEntry, ...]:
        """What the index holds, oldest first."""
        return self._index.entries

    def has_state(self) -> bool:
        """Tells whether an authority was begun here."""
        return os.path.lexists(self._directory / STATE)

    def load(self) -> RotationState:
        """Reads and judges the whole state, its certificates, and every key that will still be used."""
        with self._guard:
            state = self._read_state()
            checked = check_state(state, self.certificate, self.key, str(self._directory / STATE))
            self._known = checked.with_ends(self._index.ends)
            return self._known

    def save(self, state: RotationState) -> None:
        """Puts a state in the place of the last one; what has not changed of it is not written."""
        with self._guard:
            before = self._known
            # First, so that no crash leaves a decision without the confirmations that it stands on.
            if before is None or state.confirmations != before.confirmations:
                replace_file(self._directory / CONFIRMATIONS, confirmations_to_json(state.confirmations))
            content = state_to_json(state)
            if before is None or content != state_to_json(before):
                self._known = None  # in doubt until it stands
                replace_file(self._directory / STATE, content)
            self._known = state

    def add_signer(self, certificate: x509.Certificate, key: PrivateKey | None) -> str:
        """Writes the files of a signer and returns its name; the state is to name it next.

        Whether it may sign at all is asked before (certs.signers). Raises StateError for a key of another certificate.
        """
        name = signer_name(certificate)
        if key is not None:
            replace_file(self._key_path(name), seal_key(self._source, key, certificate))
        replace_file(self._certificate_path(name), certificate.public_bytes(Encoding.PEM))
        return name

    def certificate(self, name: str) -> x509.Certificate:
        """Reads the certificate of a signer."""
        path = self._certificate_path(name)
        return parse_signer(read_file(path, RESTORE), name, str(path))

    def key(self, name: str) -> PrivateKey:
        """Reads and unseals the key of a signer, and checks that it fits its certificate."""
        path = self._key_path(name)
        sealed = read_file(path, RESTORE_KEY)
        return unseal_key(self._source, sealed, self.certificate(name), str(path))

    def destroy_key(self, name: str) -> None:
        """Removes the key of a signer that the state says is removed; one that is gone already is no fault.

        The state on disk decides: a key that it still uses stays, and StateError says so. Blocks of the disk may keep
        the bytes for a while; they are sealed.
        """
        with self._guard:
            state = self._read_state() if self._known is None else self._known
            if name in state.signers - state.removed:
                raise StateError(f"the key of {name[:12]} is still in use; rotate it and wait for its end")
            remove_file(self._key_path(name))

    def document(self, name: str) -> bytes | None:
        """Reads JOINS or REVOCATIONS; None when it was never written."""
        path = self._directory / document_name(name)
        return read_file(path, RESTORE) if os.path.lexists(path) else None

    def replace_document(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Puts JOINS or REVOCATIONS in the place of the content that was read before.

        False, and nothing is changed, when somebody else has written meanwhile.
        """
        with self._guard:
            if self.document(name) != before:
                return False
            replace_file(self._directory / name, after)
            return True

    def record(self, entry: IssuedEntry) -> None:
        """Writes a certificate into the index; only then may it be given out. A serial is taken once."""
        with self._guard:
            self._index.append(entry)

    def ends(self) -> Mapping[str, float]:
        """Says for each signer when its last leaf ends."""
        return self._index.ends

    def forget(self, moment: float) -> None:
        """Drops the entries of certificates that had ended at `moment`."""
        with self._guard:
            self._index.compact(moment)

    @property
    def _index(self) -> IssuedIndex:
        if self._maybe_index is None:
            raise StateError(f"{self._directory}: it is not open; open it again")
        return self._maybe_index

    def _certificate_path(self, name: str) -> Path:
        return self._directory / CERTIFICATES / f"{name}.crt"

    def _key_path(self, name: str) -> Path:
        return self._directory / KEYS / f"{name}.key"

    def _hold(self) -> None:
        directory = self._directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            # Its owner may replace what we write; and what root writes there, the owner's service could not read.
            raise StateError(f"{directory}: it belongs to user {status.st_uid}; run this as that user")
        if status.st_mode & 0o077:
            raise StateError(f"{directory}: others may enter it; give it mode 0700")
        for path in (directory / CERTIFICATES, directory / KEYS):
            path.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{directory}: another authority holds it; end that one, or use its API") from None

    def _read_state(self) -> RotationState:
        path, confirmations = self._directory / STATE, self._directory / CONFIRMATIONS
        data = read_file(path, "make an authority with `remora authority init`")
        reports = read_file(
            confirmations,
            'restore it from a copy, or write {"version": 1, "confirmations": {}} there and rotate no root for a day, '
            "until every sidecar has been heard of again",
        )
        try:
            known = confirmations_from_json(reports, str(confirmations))
            return dataclasses.replace(state_from_json(data, str(path)), confirmations=known)
        except RotationError as error:
            raise StateError(str(error)) from None

    def _clear(self) -> None:
        # Without a state that can be read, nothing says what is left over; `load` says what is wrong with it.
        with contextlib.suppress(StateError):
            state = self._read_state()
            for folder, wanted in ((CERTIFICATES, state.signers), (KEYS, state.signers - state.removed)):
                for path in (self._directory / folder).iterdir():
                    if path.stem not in wanted or path.suffix not in (".crt", ".key"):
                        path.unlink()
                sync(self._directory / folder)
