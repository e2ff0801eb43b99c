"""A sidecar whose policies are replaced while it runs, through its mounted directory, and an application behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from callers import PROBE
from mesh import Backend, Sidecar, Stream, keep_answering, loop_name

from certs.store import publish


class Mounted:
    """A policy directory; `sections` are those of a sidecar's configuration that follow it only by `swap`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._swaps = 0
        directory.mkdir()
        self._publish({})

    @property
    def runtime(self) -> dict[str, str]:
        """A watcher that hardly ever looks by itself: `swap` makes it look."""
        return {"watch_interval": "60s", "loop": loop_name()}

    def swap(self, sidecar: Sidecar, files: Mapping[str, bytes]) -> list[str]:
        """Replace the files and let `sidecar` look at them. Give its faults; with any, the old set stays in force."""
        self._swaps += 1
        self._publish(files)
        before = sidecar.app.sidecar.policy_generation
        source = next(source for source in sidecar.app.mounts.sources if source.kind == "policy")
        assert source.look(first=False) is None  # what the watcher does at every interval: two looks alike
        act = source.look(first=False)
        if act is None:
            assert source.faults  # the same as before are no news
        else:
            act()
        assert sidecar.app.sidecar.policy_generation == before + (0 if source.faults else 1)
        return [str(fault) for fault in source.faults]

    def _publish(self, files: Mapping[str, bytes]) -> None:
        # A set like the one before would be no news.
        publish(self.directory, {**files, "swap.yaml": b"# swap %d\n" % self._swaps})


async def http_or_echo(stream: Stream, backend: Backend) -> None:
    """An application that speaks HTTP and, to whom begins otherwise, echoes."""
    while len(stream.unread) < len(PROBE) and await stream.receive():
        continue
    if stream.unread.startswith(PROBE):
        await stream.send(await stream.exactly(len(PROBE)))
    else:
        await keep_answering(stream, backend)
