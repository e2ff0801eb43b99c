"""Watches mounted files: the newest content whole, judged in a thread, handed over when it is whole and valid.

Kubernetes mounts a ConfigMap or Secret as files that are symbolic links through `..data`, a link that is swapped when
the content changes. Resolving `..data` once and reading below what it points at gives one generation and never half
of two. Files that are written in place, or renamed over, have no such moment: so content counts when two
looks in a row have found the same.

    every interval, in a thread:   read --changed, twice alike--> judge --valid---> take (on the loop)
                                                                    |
                                                                    +-- invalid --> reject (on the loop)

What holds:

1. A source's `take` is called once for each content that differs from the one in force, in the order of their coming.
2. Content that is rejected changes nothing: what was taken last stays in force, and `reject` says every fault once.
3. Rejected content is judged again at each look: a certificate that is not valid yet becomes valid without a change.
4. The loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from proxy.documents import MAX_BYTES
from proxy.errors import ConfigError, Fault
from proxy.policy.load import MAX_SET_BYTES

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_log = logging.getLogger("remora.watch")

Files = Mapping[str, bytes]
_Judged = TypeVar("_Judged")


def read_policy_files(directory: str) -> dict[str, bytes]:
    """Read every policy file of `directory`: name -> content, in order of the names.

    Names that begin with a dot and other suffixes are skipped. Raises OSError when the directory or a file cannot be
    read: a directory that is missing is not an empty one. Of what is too large just so much is read that `load`
    refuses it.
    """
    root = Path(directory)
    data = root / "..data"
    source = Path(os.path.realpath(data)) if data.is_symlink() else root
    files: dict[str, bytes] = {}
    room = MAX_SET_BYTES + 1
    for path in sorted(source.iterdir()):
        if path.name.endswith(_SUFFIXES) and not path.name.startswith(".") and path.is_file():
            with path.open("rb") as file:
                files[path.name] = file.read(min(MAX_BYTES + 1, room))
            room -= len(files[path.name])
    return files


class Source(Generic[_Judged]):
    """One thing that is mounted. `kind` names it in metrics and pages.

    `read` gives its files and `judge` what they mean; both run in the watcher's thread and raise ConfigError with
    every fault. `take` is called on the loop with what was judged, and may still refuse it by ConfigError; `reject` is
    called on the loop with the faults, with none when what is mounted is again what is in force. `is_whole` says that
    content is never seen half written, so that one look is enough.
    """

    __slots__ = ("_glimpsed", "_seen", "faults", "is_whole", "judge", "kind", "read", "reject", "take")

    def __init__(
        self,
        kind: str,
        *,
        read: Callable[[], Files],
        judge: Callable[[Files], _Judged],
        take: Callable[[_Judged], None],
        reject: Callable[[Sequence[Fault]], None],
        is_whole: bool = False,
    ) -> None:
        self.kind = kind
        self.is_whole = is_whole
        self.read = read
        self.judge = judge
        self.take = take
        self.reject = reject
        self.faults: tuple[Fault, ...] = ()
        """What is wrong with the content that is mounted now; empty when it is in force."""
        self._seen = b""
        self._glimpsed = b""

    def look(self, *, first: bool) -> Callable[[], None] | None:
        """Read and judge; give what the loop has to do about it. Runs in the watcher's thread.

        Except at the `first` look, content is judged when two looks have found the same: a file that is written in
        place is empty for a moment, and an empty policy file is a valid one that denies nothing.
        """
        try:
            files = self.read()
        except ConfigError as failure:
            faults = tuple(failure.faults)
            return self._rejected(faults) if self._stands(repr(faults).encode(), first) else None
        digest = _digest(files)
        if digest == self._seen:
            self._glimpsed = digest
            return self._again if self.faults else None
        if not self._stands(digest, first):
            return None
        try:
            judged = self.judge(files)
        except ConfigError as failure:
            return self._rejected(tuple(failure.faults))

        def taken() -> None:
            try:
                self.take(judged)
            except ConfigError as failure:
                if tuple(failure.faults) != self.faults:
                    self.faults = tuple(failure.faults)
                    self.reject(self.faults)
            else:
                self._seen = digest
                self.faults = ()

        return taken

    def _again(self) -> None:
        """What is mounted is again what is in force."""
        self.faults = ()
        self.reject(())

    def _stands(self, glimpsed: bytes, first: bool) -> bool:
        """Say whether the last look found the same, so that nobody is in the middle of writing it."""
        before, self._glimpsed = self._glimpsed, glimpsed
        return first or self.is_whole or glimpsed == before

    def _rejected(self, faults: tuple[Fault, ...]) -> Callable[[], None] | None:
        if faults == self.faults:
            return None

        def rejected() -> None:
            self.faults = faults
            self.reject(faults)

        return rejected


class Watcher:
    """Looks at its sources at every interval. `look_now` is the first look, `run` all others."""

    __slots__ = ("_executor", "_hurried", "_interval", "_loop", "_sources")

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, sources: Sequence[Source[Any]]) -> None:
        """`interval` is in seconds."""
        self._loop = loop
        self._interval = interval
        self._hurried = asyncio.Event()
        self._sources = tuple(sources)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="watch")

    def look_now(self) -> None:
        """Look on the calling thread, and tell faults at once: nothing is served yet that could wait."""
        for source in self._sources:
            act = source.look(first=True)
            if act is not None:
                act()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._hurried.wait()
            hurried = self._hurried.is_set()
            self._hurried.clear()
            for source in self._sources:
                if hurried and not source.is_whole:
                    continue  # two looks in a row would be no time apart, and prove nothing
                try:
                    act = await self._loop.run_in_executor(self._executor, self._look, source)
                    if act is not None:
                        act()
                except Exception:
                    _log.exception("looking at the mounted %s failed; what is in force stays", source.kind)

    def look_soon(self) -> None:
        """Look at once at what is never half written: somebody knows that it is new. Call it on the loop."""
        self._hurried.set()

    def close(self) -> None:
        """End the thread; a look that is under way is waited for."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _look(source: Source[Any]) -> Callable[[], None] | None:
        return source.look(first=False)


def _digest(files: Files) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(files):
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(b"%d:%b%d:" % (len(encoded), encoded, len(files[name])))
        digest.update(files[name])
    return digest.digest()
