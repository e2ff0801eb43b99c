"""Closes the ways in which a process that holds keys could leave them on a disk by accident."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def harden() -> list[str]:
    """Forbids core dumps and files that others may read, for this process; returns what could not be done.

    Not dumpable also means that other processes of the same user cannot read its memory through /proc.
    """
    faults: list[str] = []
    os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        faults.append(f"core dumps cannot be limited ({error}); set the limit `core` to 0 where this is started")
    try:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            faults.append(f"the memory stays readable ({os.strerror(ctypes.get_errno())}); allow prctl")
    except (AttributeError, OSError):
        faults.append("the memory stays readable (this system has no prctl); run this on Linux")
    return faults
