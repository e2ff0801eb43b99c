"""Reads the small texts of the command line: durations, rates."""

from __future__ import annotations

import argparse
import datetime
import re
from typing import Final

from certs.rates import Rate

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,7})([smhd])")


def read_duration(text: str) -> datetime.timedelta:
    """Read a duration such as 24h, 90m or 7d; raises what argparse shows.

    >>> read_duration("90m")
    datetime.timedelta(seconds=5400)
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write a number and a unit, such as 24h, 90m or 7d")
    return datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def lifetime_text(duration: datetime.timedelta) -> str:
    """Write a duration as `read_duration` reads it.

    >>> lifetime_text(datetime.timedelta(hours=24)), lifetime_text(datetime.timedelta(seconds=90))
    ('24h', '90s')
    """
    seconds = int(duration.total_seconds())
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"


def read_rate(text: str) -> Rate:
    """Read PER_SECOND:BURST, such as 0.2:10. Raises ValueError.

    >>> read_rate("0.2:10")
    Rate(per_second=0.2, burst=10)
    """
    per_second, _, burst = text.partition(":")
    try:
        return Rate(per_second=float(per_second), burst=int(burst))
    except ValueError as error:
        raise ValueError(f"{text!r} is no rate ({error}); write PER_SECOND:BURST, such as 0.2:10") from None
