"""Reads and replaces the documents of a store (join tokens, revocations), each under the content that was read last.

read ──▶ change ──▶ replace ──▶ True: it stands
          ▲            │
          └── read ◀── False: another replica was faster
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from certs.state_store import StateError, StateStore

_Parsed = TypeVar("_Parsed")


class Documents:
    """What was read last of each document, so that nobody's change is written over. Not for several threads."""

    __slots__ = ("_read", "_store")

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._read: dict[str, bytes] = {}

    def read(self, name: str, parse: Callable[[bytes, str], _Parsed]) -> _Parsed:
        """Reads a document. `parse` takes its content and its name, and raises ValueError for a damaged one.

        Raises StateError, also for a document that is missing: what was forgotten is not taken for empty.
        """
        data = self._store.document(name)
        if data is None:
            raise StateError(f"{name}: it is missing; restore it from a copy")
        try:
            parsed = parse(data, name)
        except ValueError as error:
            raise StateError(str(error)) from None
        self._read[name] = data
        return parsed

    def replace(self, name: str, content: bytes) -> bool:
        """Writes a document in the place of the one that was read; False when somebody else was faster.

        Raises StateError.
        """
        if not self._store.replace_document(name, self._read.get(name), content):
            return False
        self._read[name] = content
        return True
