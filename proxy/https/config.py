"""What a port with TLS is told: its certificate's files, and how many may be at its door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

HANDSHAKES: Final = 128
"""Under way at once: each costs a signature."""

HANDSHAKE_SECONDS: Final = 10.0
SHARES: Final = 4
"""One address has a quarter of them, and of what is open: 32 handshakes at once are more than a node of sidecars needs,
at some milliseconds each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFiles:
    """A certificate of the ordinary web: its chain, leaf first, and its key, both PEM."""

    certificate: Path
    key: Path
