"""Sets up the process of a service: its log on standard error, and its event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Final

_FORMAT: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_DATE: Final = "%Y-%m-%dT%H:%M:%S"


def log_to_stderr(level: str) -> None:
    """Write the log to standard error, in UTC; `level` is the least that is written."""
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format=_FORMAT, datefmt=_DATE)
    logging.Formatter.converter = time.gmtime


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give what makes event loops of the kind `uvloop` or `asyncio`; None for asyncio's own."""
    if loop == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop
