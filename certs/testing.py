"""What tests need of certificates: an authority in memory, and every certificate that must be refused.

    memory = MemoryAuthority("cluster.local")
    good = memory.svid("demo", "orders")                    # an Svid: chain and key
    write_set(good, memory.bundles, directory)              # tls.crt tls.key ca.crt bundles/, as a sidecar mounts it

    for name, case in BROKEN.items():                       # each with the reason and the alert to expect
        rogue = case.make(memory)

Nothing here knows of a test framework. Keys are made once per authority, so share one for a whole session.
"""

from __future__ import annotations

from certs.authority import Svid
from certs.broken import BROKEN, INVALID_IDS, BrokenCase, with_uri
from certs.memory import MemoryAuthority, Shape, half_readable, set_files, tampered, write_set

__all__ = [
    "BROKEN",
    "INVALID_IDS",
    "BrokenCase",
    "MemoryAuthority",
    "Shape",
    "Svid",
    "half_readable",
    "set_files",
    "tampered",
    "with_uri",
    "write_set",
]
