"""What one of several replicas of an authority is told of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from certs.rotation import Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How a replica learns whether it decides, and hands on what it hears.

    `leads` answers at once, with no question to the network; `leader` names who led when that was last seen, "" for
    nobody. `report` stores what sidecars said to this replica, and raises StateError when that fails.
    """

    leads: Callable[[], bool]
    leader: Callable[[], str] = field(default=lambda: "")
    report: Callable[[Mapping[str, Confirmation]], None] = field(default=lambda reports: None)
