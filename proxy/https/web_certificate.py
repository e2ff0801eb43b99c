"""Keeps a certificate of the ordinary web that a listener shows: two files, read again while we run.

    look --changed, twice alike--> judge_pair, contexts --whole--> shown from the next connection on
                                        |
                                        +-- not whole --> the last one stays; log, readiness and a metric say why

Without a pair that can be shown the service does not begin. One whose dates are wrong is shown at the beginning all the
same, with a warning: callers refuse it, and whoever needs a signature should not have to wait for it.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from OpenSSL import SSL

from certs.files import StoreError, key_file_warnings, read_file
from proxy.admin.pages import Readiness
from proxy.errors import ConfigError, Fault
from proxy.handshake.contexts import PublicMaterial
from proxy.https.config import WebFiles
from proxy.https.counts import DoorCounts
from proxy.https.web_pair import WebPair, judge_pair
from proxy.types import Generation
from proxy.watch import Source, Watcher

_log = logging.getLogger("remora.https")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    pair: WebPair
    material: PublicMaterial


class WebCertificate:
    """The pair in force. `begin`, then `follow` until cancelled, then `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: WebFiles,
        readiness: Readiness,
        counts: DoorCounts,
        interval: float,
        *,
        listener: str,
        callers: str,
    ) -> None:
        """`interval` is in seconds, between two looks at the files.

        `listener` names the port in metrics and logs, `callers` says who refuses a certificate that has ended.
        """
        self._listener = listener
        self._callers = callers
        self._kind = f"{listener} certificate"
        self._files = files
        self._readiness = readiness
        self._counts = counts
        self._in_force: _Judged | None = None
        self._generation = 0
        self._source = Source(self._kind, read=self._read, judge=self._judge, take=self._take, reject=self._reject)
        self._watcher = Watcher(loop, interval, [self._source])
        self._clear()

    @property
    def material(self) -> PublicMaterial | None:
        """What is shown; None before `begin`."""
        return None if self._in_force is None else self._in_force.material

    @property
    def not_after(self) -> datetime.datetime:
        """When what is shown ends."""
        if self._in_force is None:
            raise RuntimeError("there is no certificate before the beginning")
        return self._in_force.pair.not_after

    def standing(self) -> str:
        """Say for a person what is shown."""
        judged = self._in_force
        if judged is None:
            return "https_web, nothing is shown yet"
        fault = judged.pair.date_fault(_now())
        return f"https_web as {', '.join(judged.pair.names)}, " + (
            f"which nobody believes: {fault}" if fault else f"until {judged.pair.not_after:%Y-%m-%d %H:%M:%S} UTC"
        )

    def begin(self) -> None:
        """Read the pair for the first time. Raises ConfigError with every fault."""
        act = self._source.look(first=True)
        if act is not None:
            act()
        if self._source.faults:
            raise ConfigError(list(self._source.faults))
        for warning in key_file_warnings(self._files.key.parent, self._files.key.name):
            _log.warning("%s", warning)

    async def follow(self) -> None:
        """Follow every change of the files until cancelled."""
        await self._watcher.run()

    def close(self) -> None:
        """End the thread that looks."""
        self._watcher.close()

    # --- read and judged in the watcher's thread, taken and refused on the loop ---

    def _read(self) -> Mapping[str, bytes]:
        read: dict[str, bytes] = {}
        faults: list[Fault] = []
        for path in (self._files.certificate, self._files.key):
            try:
                read[str(path)] = read_file(path)
            except StoreError as error:
                faults.append(Fault(file=str(path), message=str(error).removeprefix(f"{path}: ")))
        if faults:
            raise ConfigError(faults)
        return read

    def _judge(self, files: Mapping[str, bytes]) -> _Judged:
        certificate, key = str(self._files.certificate), str(self._files.key)
        pair = judge_pair(files[certificate], files[key], certificate, key)
        fault = pair.date_fault(_now())
        if fault is not None and self._in_force is not None:
            raise ConfigError([Fault(file=certificate, message=fault, hint="issue a new one")])
        try:
            material = PublicMaterial(pair.chain, pair.key, Generation(self._generation + 1))
        except SSL.Error as error:
            why = ", ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "no reason given"
            message = f"OpenSSL does not take it ({why}); issue another, signed with SHA-256 or better"
            raise ConfigError([Fault(file=certificate, message=message)]) from None
        return _Judged(pair=pair, material=material)

    def _take(self, judged: _Judged) -> None:
        self._in_force = judged
        self._generation += 1
        self._clear()
        names, fault = ", ".join(judged.pair.names), judged.pair.date_fault(_now())
        if fault is not None:
            _log.warning("%s: %s will refuse it: %s; replace it", self._files.certificate, self._callers, fault)
        end = judged.pair.not_after.isoformat(timespec="seconds")
        _log.info("the %s listener is known as %s until %s", self._listener, names, end)

    def _reject(self, faults: Sequence[Fault]) -> None:
        if self._in_force is None:
            return  # `begin` tells
        if not faults:
            self._clear()
            _log.info("%s: what is mounted is again what is in force", self._kind)
            return
        sentences = [str(fault) for fault in faults]
        self._counts.rejected[self._kind] = True
        self._readiness.rejected[self._kind] = sentences
        for sentence in sentences:
            _log.warning("%s rejected, the last valid one stays in force: %s", self._kind, sentence)

    def _clear(self) -> None:
        self._counts.rejected[self._kind] = False
        # Emptied and not removed: a command of the operator may be reading it in another thread.
        self._readiness.rejected[self._kind] = ()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
