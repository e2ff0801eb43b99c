"""Publishes and reads a set of files as one thing, in the shape that Kubernetes gives to mounted volumes.

A certificate and its key are two files, and a reader that takes the new one and the old one gets a pair that does
not fit. No lock helps, because readers are other programs. A symbolic link does: renaming one over another is atomic,
so all files hang on one link, and the link moves once.

    directory/
      ..2030_01_01_12_00_00.123456789/   one generation: the real files, mode 0600
        tls.crt  tls.key  ca.crt  bundles/other.example.json
      ..data -> ..2030_01_01_12_00_00.123456789
      tls.crt -> ..data/tls.crt          what people and programs open
      tls.key -> ..data/tls.key
      ca.crt  -> ..data/ca.crt
      bundles -> ..data/bundles

Invariants, true at each moment and after a power failure at any moment:

1. `..data` names a complete generation: its files were synced to disk before the link was moved.
2. A reader that resolves `..data` once, and opens files through what it found, sees one generation.
3. The old generation goes after the link has moved. A reader that was still in it finds a file gone, and begins again.

A file is opened by others as by us: nothing here needs the reader to know of this module.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

DATA_LINK = "..data"

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A chain has kilobytes and a large bundle some hundred; more is a mistake that would cost a sidecar its memory."""

_GENERATION = re.compile(r"\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\..+")
_READ_ATTEMPTS = 5


class StoreError(ValueError):
    """A directory that cannot be published to or read; the message names the path and the mend."""


def publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Puts a set of files in the place of the one that stands in `directory`, all of it at one moment.

    Names are relative; a slash makes a subdirectory. Files have mode 0600, directories 0700. Everything is synced
    to disk before it becomes visible. Raises StoreError when a name is not acceptable, when a plain file stands where
    a link must go, or when the directory cannot be written; the published set is then the one from before.

    >>> with tempfile.TemporaryDirectory() as directory:
    ...     publish(Path(directory), {"tls.crt": b"one", "bundles/other.example.json": b"two"})
    ...     dict(read_files(Path(directory))), os.readlink(Path(directory, "tls.crt"))
    ({'bundles/other.example.json': b'two', 'tls.crt': b'one'}, '..data/tls.crt')
    """
    for name in files:
        _check_name(name)
    tops = {PurePosixPath(name).parts[0] for name in files}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            for top in tops:
                path = directory / top
                if os.path.lexists(path) and not path.is_symlink():
                    raise StoreError(f"{path}: a plain file or directory stands there; move it away and publish again")
            generation = _write_generation(directory, files)
            _move_link(directory / DATA_LINK, generation.name)
            for top in tops:
                _move_link(directory / top, f"{DATA_LINK}/{top}")
            _remove_others(directory, generation, tops)
            _sync(directory)
    except OSError as error:
        raise StoreError(f"{error.filename or directory}: it cannot be written ({error.strerror})") from None


def read_files(directory: Path) -> Mapping[str, bytes]:
    """Reads every file of a published set, all of one generation, as relative name -> content.

    A directory without `..data` is read as plain files. Raises StoreError when it is not there, when a file is not
    a plain file or larger than MAX_FILE_BYTES, or when it cannot be read.
    """
    try:
        for _ in range(_READ_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                return MappingProxyType(_read_generation(directory))
            # A generation was removed while it was read: there is a newer one.
        if directory.is_dir():
            raise StoreError(f"{directory}: the files change faster than they can be read, or a link leads nowhere")
        raise StoreError(f"{directory}: it is not there; mount the identity at this path or publish to it")
    except OSError as error:
        raise StoreError(
            f"{error.filename or directory}: it cannot be read ({error.strerror}); check owner and mode"
        ) from None


def read_file(path: Path) -> bytes:
    """Reads one file in one open, read and close, so that what it gives is of one moment.

    Raises StoreError when it is not there, not a plain file, larger than MAX_FILE_BYTES, or cannot be read.

    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_private_file(Path(directory, "a"), b"one")
    ...     read_file(Path(directory, "a"))
    b'one'
    """
    try:
        return _read_file(path)
    except OSError as error:
        raise StoreError(f"{path}: it cannot be read ({error.strerror}); check mount, owner and mode") from None


def digest(files: Mapping[str, bytes]) -> str:
    """Names a set of files by its content: SHA-256 in hexadecimal, whatever their order.

    >>> digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"}) != digest({"a": b"12"})
    True
    """
    total = hashlib.sha256()
    for name in sorted(files):
        # Digests of a fixed length side by side: no content can be mistaken for the name that follows.
        total.update(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
        total.update(hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def write_private_file(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner may read, and syncs it. Raises FileExistsError and other OSErrors."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file that others may read in the place of the one that stands there, at one moment; raises OSError."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def key_file_warnings(directory: Path, name: str = "tls.key") -> list[str]:
    """Warns when everybody on the machine may read or change the key. Group access is left to the one who mounts.

    Kubernetes gives a volume to a group (fsGroup) so that a process that is not root can read it, hence 0640 is
    ordinary and 0644 is not. A file that is not there gives no warning.
    """
    path = directory / name
    try:
        mode = path.stat().st_mode
    except OSError:
        return []
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return []
    return [
        f"{path}: everybody may read or change the private key (mode {stat.S_IMODE(mode):04o}); "
        "give it mode 0600, or 0640 through the volume's defaultMode and fsGroup"
    ]


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    wrong = (
        not name
        or "\0" in name
        or path.is_absolute()
        or str(path) != name
        or any(part.startswith("..") for part in path.parts)
        or name == "."
    )
    if wrong:
        raise StoreError(f"{name!r} is no name for a published file; write a relative path without `..`")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    # Two publishers at once would remove each other's generation before its link is moved.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_generation(directory: Path, files: Mapping[str, bytes]) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    generation = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    try:
        for name, content in files.items():
            path = generation / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private_file(path, content)
        for parent, _, _ in os.walk(generation):
            _sync(Path(parent))
        _sync(directory)
    except BaseException:
        shutil.rmtree(generation, ignore_errors=True)
        raise
    return generation


def _move_link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    temporary = link.with_name(f"..tmp-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    _sync(link.parent)


def _remove_others(directory: Path, generation: Path, tops: set[str]) -> None:
    for path in list(directory.iterdir()):
        if path.is_symlink():
            is_ours = os.readlink(path).startswith(f"{DATA_LINK}/") or path.name.startswith("..tmp-")
            if is_ours and path.name not in tops:
                path.unlink()
        elif path.is_dir() and _GENERATION.fullmatch(path.name) and path.name != generation.name:
            shutil.rmtree(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_generation(directory: Path) -> dict[str, bytes]:
    link = directory / DATA_LINK
    root = directory / os.readlink(link) if link.is_symlink() else directory
    files: dict[str, bytes] = {}
    pending = [root]
    while pending:
        for path in pending.pop().iterdir():
            if path.name.startswith(".."):
                continue
            if path.is_dir():
                pending.append(path)
            else:
                files[path.relative_to(root).as_posix()] = _read_file(path)
    return dict(sorted(files.items()))


def _read_file(path: Path) -> bytes:
    # Not blocking: a pipe in the directory must not hold a sidecar for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path}: it is no plain file; remove it")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise StoreError(f"{path}: it is larger than {MAX_FILE_BYTES} bytes; nothing of an identity is")
    return content
