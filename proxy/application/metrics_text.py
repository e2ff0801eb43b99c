"""Two texts of metrics -> one: ours, and what of the application's may stand beside it.

Families that begin with `istio_` or `remora_` are the sidecar's. Lines of the application with such a name are left
out: what a mesh measures must not be written by what it measures, and a scraper refuses a text with a family twice.
"""

from __future__ import annotations

import re
from typing import Final

OURS: Final = (b"istio_", b"remora_")
_NAME: Final = re.compile(rb"(?:# (?:HELP|TYPE|UNIT) )?([a-zA-Z_:][a-zA-Z0-9_:]*)")
UP: Final = "remora_application_metrics_up"


def beside_ours(text: bytes) -> bytes:
    """Give the lines of the application's text that may stand beside ours, each ended.

    >>> beside_ours(b"# TYPE a counter\\na 1\\nremora_ready 1\\n# EOF")
    b'# TYPE a counter\\na 1\\n'
    """
    kept = []
    for line in text.split(b"\n"):
        stripped = line.strip()
        if not stripped or stripped == b"# EOF":
            continue
        match = _NAME.match(stripped)
        if match is None and not stripped.startswith(b"#"):
            continue  # no line of the format: a scraper would refuse the whole text for it
        if match is not None and match[1].startswith(OURS):
            continue
        kept.append(stripped + b"\n")
    return b"".join(kept)


def up(is_up: bool) -> bytes:
    """Give the gauge that says whether the application's metrics could be had."""
    return (
        f"# HELP {UP} 1 while the application's metrics can be had.\n# TYPE {UP} gauge\n{UP} {int(is_up)}\n"
    ).encode()
