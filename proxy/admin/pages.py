"""The pages: alive, ready, metrics. Health shows one word; the admin listener says what is missing.

`/livez` is about the process, `/readyz` about traffic: a sidecar without certificates is alive and not ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Readiness:
    """What stands between this process and traffic.

    `missing`: a name -> sentences that say what is missing; empty is ready. `rejected`: what is mounted and broken
    while an older set serves. `standing`: a name -> what a sentence is asked of that says how something stands.
    """

    missing: dict[str, Sequence[str]] = field(default_factory=dict)
    rejected: dict[str, Sequence[str]] = field(default_factory=dict)
    standing: dict[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Nothing is missing."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class PageText:
    """An answer before it has a wire: `body` in UTF-8."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: bytes


def livez() -> PageText:
    """The process runs its loop."""
    return PageText(body=b"ok\n")


def readyz(readiness: Readiness, *, detail: bool) -> PageText:
    """Traffic can be served; with `detail`, what it waits for."""
    lines = ["ready" if readiness.is_ready else "not ready"]
    if detail:
        lines += [f"{name}: {line}" for name, sentences in readiness.missing.items() for line in sentences]
        lines += [f"rejected: {name}: {line}" for name, sentences in readiness.rejected.items() for line in sentences]
        lines += [f"{name}: {sentence()}" for name, sentence in readiness.standing.items()]
    return PageText(
        status=200 if readiness.is_ready else 503, body=("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
    )
