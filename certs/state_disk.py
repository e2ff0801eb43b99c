"""Reads, replaces and removes single files so that a crash leaves the old one or the new one, and says what failed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from certs.files import write_private_file
from certs.state_store import StateError, StateInDoubt

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""100,000 certificates in the index take 25; beyond this a file is damaged, and would cost the authority its memory."""


def read_file(path: Path, mend: str) -> bytes:
    """Reads a whole file; raises StateError with the mend when it is missing, too large or not readable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise StateError(f"{path}: it is missing; {mend}") from None
    except OSError as error:
        raise StateError(f"{path}: it cannot be read ({error.strerror}); check its owner and mode") from None
    if len(data) > MAX_FILE_BYTES:
        raise StateError(f"{path}: it is larger than {MAX_FILE_BYTES} bytes; {mend}")
    return data


def replace_file(path: Path, content: bytes) -> None:
    """Puts a file of mode 0600 in the place of the one that stands there.

    The new one is written beside it and synced, renamed over it, and the directory is synced. Raises StateError when
    the old one stands, and StateInDoubt when the last step failed: then the new one may stand.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        try:
            write_private_file(temporary, content)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(error, path) from None
    try:
        sync(path.parent)
    except OSError as error:
        raise StateInDoubt(
            f"{path}: it was replaced, and its directory could not be synced ({error.strerror}): the new state may "
            "stand, and after a power failure the old one. Check the disk, then load the state again"
        ) from None


def remove_file(path: Path) -> None:
    """Removes a file for good; one that is gone already is no fault. Raises StateError and StateInDoubt."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error, path) from None
    try:
        sync(path.parent)
    except OSError as error:
        raise StateInDoubt(
            f"{path}: it was removed, and its directory could not be synced ({error.strerror}): it may be back after "
            "a power failure. Check the disk, then remove it again"
        ) from None


def remove_unfinished(directory: Path) -> None:
    """Removes what `replace_file` had begun to write when a crash came; raises OSError."""
    for path in directory.glob(".*.new"):
        path.unlink()


def sync(directory: Path) -> None:
    """Makes renames and removals in a directory last; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(error: OSError, path: Path) -> StateError:
    """Makes the error of a file that could not be written and is as before."""
    return StateError(
        f"{error.filename or path}: it cannot be written ({error.strerror}); the state is the one from before. "
        "Make room, or make the directory writable"
    )
