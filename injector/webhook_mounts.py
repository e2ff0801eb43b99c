"""Keeps what the webhook has mounted: the defaults and the trust bundle, each with its last valid content in force.

Without a valid one there is nothing to inject by, and the webhook says that it is not ready; later a bad one changes
nothing, and readiness, log and a metric say why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from certs.files import StoreError, read_file
from injector.defaults import read_defaults
from injector.doors import World
from injector.inputs import BadInput, checked_bundle
from injector.settings import Settings
from proxy.admin.pages import Readiness
from proxy.errors import ConfigError, Fault
from proxy.https.counts import DoorCounts
from proxy.watch import Source, Watcher

DEFAULTS: Final = "defaults"
TRUST_BUNDLE: Final = "trust bundle"

_Judged = TypeVar("_Judged")
_log = logging.getLogger("remora.injector")


class Mounts:
    """The world in force. `begin`, then `follow` until cancelled, then `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        defaults: Path | None,
        trust_bundle: Path | None,
        own_namespace: str,
        readiness: Readiness,
        counts: DoorCounts,
        interval: float,
    ) -> None:
        """A path of None: the built-in defaults, no trust bundle. `interval` is in seconds, between two looks."""
        self._world = World(own_namespace=own_namespace)
        self._readiness = readiness
        self._counts = counts
        self._waiting: set[str] = set()
        sources: list[Source[Settings] | Source[str]] = []
        if defaults is not None:
            sources.append(self._source(DEFAULTS, defaults, read_defaults, self._take_defaults))
        if trust_bundle is not None:
            sources.append(self._source(TRUST_BUNDLE, trust_bundle, self._judge_bundle, self._take_bundle))
        self._watcher = Watcher(loop, interval, sources)

    @property
    def world(self) -> World | None:
        """By what pods are judged; None until everything that is to be mounted has been read once."""
        return None if self._waiting else self._world

    def begin(self) -> None:
        """Look for the first time."""
        self._watcher.look_now()

    async def follow(self) -> None:
        """Follow every change of the files until cancelled."""
        await self._watcher.run()

    def close(self) -> None:
        """End the thread that looks."""
        self._watcher.close()

    def _source(
        self, kind: str, path: Path, judge: Callable[[bytes, str], _Judged], take: Callable[[_Judged], None]
    ) -> Source[_Judged]:
        self._waiting.add(kind)
        self._readiness.missing[kind] = [f"{path} was not read yet"]
        self._counts.rejected[kind] = False

        def read() -> Mapping[str, bytes]:
            try:
                return {str(path): read_file(path)}
            except StoreError as error:
                message = str(error).removeprefix(f"{path}: ")
                raise ConfigError([Fault(file=str(path), message=message)]) from None

        def taken(judged: _Judged) -> None:
            take(judged)
            self._waiting.discard(kind)
            self._readiness.missing.pop(kind, None)
            self._clear(kind)
            _log.info("%s: what is in %s is in force", kind, path)

        return Source(
            kind,
            read=read,
            judge=lambda files: judge(files[str(path)], str(path)),
            take=taken,
            reject=lambda faults: self._reject(kind, faults),
        )

    def _judge_bundle(self, data: bytes, source: str) -> str:
        try:
            return checked_bundle(data, source, self._world.defaults.trust_domain)
        except BadInput as fault:
            message = str(fault).removeprefix(f"{source}: ")
            raise ConfigError([Fault(file=source, message=message)]) from None

    def _take_defaults(self, settings: Settings) -> None:
        self._world = replace(self._world, defaults=settings)

    def _take_bundle(self, bundle: str) -> None:
        self._world = replace(self._world, trust_bundle=bundle)

    def _reject(self, kind: str, faults: Sequence[Fault]) -> None:
        sentences = [str(fault) for fault in faults]
        if kind in self._waiting:
            self._readiness.missing[kind] = sentences
            for sentence in sentences:
                _log.warning("%s missing, no pod can be injected: %s", kind, sentence)
            return
        if not faults:
            self._clear(kind)
            _log.info("%s: what is mounted is again what is in force", kind)
            return
        self._counts.rejected[kind] = True
        self._readiness.rejected[kind] = sentences
        for sentence in sentences:
            _log.warning("%s rejected, the last valid one stays in force: %s", kind, sentence)

    def _clear(self, kind: str) -> None:
        self._counts.rejected[kind] = False
        self._readiness.rejected.pop(kind, None)
