"""What supervisor and worker tell each other, as values: the sets in force, the share of the limits, what pages show.

The supervisor judges what is mounted and hands the same bytes over with the number of their generation; a worker
judges them again, since snapshots and TLS contexts cannot be sent. So all hold the same generations, of the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.admin import topics
from proxy.admin.words import Data
from proxy.config import Config, load_config
from proxy.inforce import as_far_as_possible
from proxy.mounts import Taken
from proxy.telemetry.decisions_log import Decision
from proxy.view import Explained, Hop, View, summed
from proxy.workers.frames import Message, files_from_json, files_to_json

_SHARED: Final = ("inbound_connections", "outbound_connections", "handshakes", "pool_connections", "pool_waiters")
"""Limits of the whole sidecar: what its memory and the application behind it can bear does not grow with workers."""


def share_of(config: Config, workers: int) -> Config:
    """Give a worker its share of the limits that hold for the whole sidecar, rounded up."""
    limits = config.limits
    shares = {name: -(-getattr(limits, name) // workers) for name in _SHARED}
    return dataclasses.replace(config, limits=dataclasses.replace(limits, **shares))


def read_config(data: bytes, base: bytes, file: str, workers: int) -> Config:
    """Read the configuration of a worker as its supervisor runs it: `base` is what that was started with.

    Raises ConfigError.
    """
    return share_of(as_far_as_possible(load_config(data, file), load_config(base, file)), workers)


@dataclass(slots=True)
class Sets:
    """Everything in force, as files with their generations; None where nothing valid has come yet."""

    config: bytes
    certificates: tuple[Mapping[str, bytes], int] | None = None
    policy: tuple[Mapping[str, bytes], int] | None = None

    @property
    def is_whole(self) -> bool:
        """Traffic can be served with them."""
        return self.certificates is not None and self.policy is not None

    def take(self, taken: Taken, *, tls_generation: int, policy_generation: int) -> Sets:
        """Take what is new, and give it alone; a configuration is always in it, and changes nothing if it is known."""
        news = Sets(self.config if taken.config is None else taken.config)
        self.config = news.config
        if taken.certificates is not None:
            news.certificates = self.certificates = taken.certificates, tls_generation
        if taken.policy is not None:
            news.policy = self.policy = taken.policy, policy_generation
        return news

    def to_json(self) -> Message:
        """Write them so that JSON can hold them."""
        return {
            "config": files_to_json({"": self.config})[""],
            "certificates": _numbered(self.certificates),
            "policy": _numbered(self.policy),
        }

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Sets:
        """Read what `to_json` wrote. Raises FrameError."""
        return cls(
            files_from_json({"": message["config"]})[""],
            _files(message["certificates"]),
            _files(message["policy"]),
        )


def _numbered(files: tuple[Mapping[str, bytes], int] | None) -> Message | None:
    return {"files": files_to_json(files[0]), "generation": files[1]} if files is not None else None


def _files(message: Mapping[str, Any] | None) -> tuple[Mapping[str, bytes], int] | None:
    return (files_from_json(message["files"]), int(message["generation"])) if message is not None else None


# --- what pages and metrics show ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a page needs of each worker, beside the numbers of the moment.

    `decisions` is how many of each kind are wanted, None for all; those of `request_id` come with explanations.
    """

    connections: bool = False
    decisions: int | None = 0
    request_id: str | None = None

    def to_json(self) -> Message:
        return {"connections": self.connections, "decisions": self.decisions, "request_id": self.request_id}


@dataclass(slots=True)
class Look:
    """What one worker shows of itself."""

    open: Mapping[str, int] = field(default_factory=dict)
    hops: Sequence[Hop] = ()
    jwks: Mapping[str, float] = field(default_factory=dict)
    connections: tuple[int, list[Data]] = (0, [])
    decisions: list[tuple[Decision, Explained | None]] = field(default_factory=list)


def look_at(view: View, wanted: Wanted, now: float, explain: Callable[[list[Decision]], list[Decision]]) -> Message:
    """Write what a worker shows; `explain` chooses those of one request id that are explained."""
    found: list[Decision] = []
    told: list[Decision] = []
    if wanted.request_id is not None:
        found = [each for each in view.decisions(now) if each.request_id == wanted.request_id]
        told = explain(found) if found else []
    elif wanted.decisions != 0:
        kinds: dict[bool, list[Decision]] = {True: [], False: []}
        for each in view.decisions(now):
            kinds[each.decision == "allow"].append(each)
        found = [*kinds[False][: wanted.decisions], *kinds[True][: wanted.decisions]]
    return {
        "open": {direction: view.open_count(direction) for direction in ("inbound", "outbound")},
        "hops": [list(hop) for hop in view.hops()],
        "jwks": {uri: up for (uri,), up in view.jwks_up().items()},
        "connections": list(view.connections(now)) if wanted.connections else [0, []],
        "decisions": [[_decision_to_json(each), view.explained(each) if each in told else None] for each in found],
    }


def look_from_json(message: Mapping[str, Any]) -> Look:
    """Read what `look_at` wrote."""
    count, rows = message["connections"]
    return Look(
        open=message["open"],
        hops=[Hop(*hop) for hop in message["hops"]],
        jwks=message["jwks"],
        connections=(count, rows),
        decisions=[
            (Decision(**decision), (told[0], told[1]) if told is not None else None)
            for decision, told in message["decisions"]
        ],
    )


def _decision_to_json(decision: Decision) -> Message:
    return {name: getattr(decision, name) for name in Decision.__dataclass_fields__ if name != "asked"}


class Gathered:
    """The view of all workers together: `looks` by the number of the worker, `lost` counts access records."""

    def __init__(
        self,
        looks: Callable[[], Mapping[int, Look]],
        *,
        ready: Callable[[], bool],
        lost: Callable[[], int],
        facts: Data,
    ) -> None:
        self._looks = looks
        self._ready = ready
        self._lost = lost
        self._facts = facts

    def ready(self) -> bool:
        return self._ready()

    def open_count(self, direction: str) -> int:
        return sum(look.open.get(direction, 0) for look in self._looks().values())

    def hops(self) -> list[Hop]:
        return summed(hop for look in self._looks().values() for hop in look.hops)

    def jwks_up(self) -> Mapping[tuple[str, ...], float]:
        """Give 1 where every worker has fetched the keys."""
        found: dict[tuple[str, ...], float] = {}
        for look in self._looks().values():
            for uri, up in look.jwks.items():
                found[uri,] = min(found.get((uri,), 1.0), up)
        return found

    def records_lost(self) -> int:
        return self._lost()

    def facts(self) -> Data:
        return self._facts

    def connections(self, now: float) -> tuple[int, list[Data]]:
        rows = [row | {"worker": number} for number, look in self._looks().items() for row in look.connections[1]]
        rows.sort(key=lambda row: -float(row["age_seconds"]))
        return sum(look.connections[0] for look in self._looks().values()), rows[: topics.MAX_ROWS]

    def decisions(self, now: float) -> list[Decision]:
        found = [each for look in self._looks().values() for each, _ in look.decisions]
        return sorted(found, key=lambda each: each.at, reverse=True)

    def explained(self, decision: Decision) -> Explained | None:
        told = (told for look in self._looks().values() for each, told in look.decisions if each is decision)
        return next(told, None)
