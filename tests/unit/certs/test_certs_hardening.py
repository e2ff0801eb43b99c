"""A process that holds keys leaves no core dump, and no file that others may read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import ctypes, os, resource
from certs.hardening import harden
faults = harden()
print(faults, resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), oct(os.umask(0)))
"""


def test_a_hardened_process_cannot_be_dumped() -> None:
    command = [sys.executable, "-c", CHILD]
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[] (0, 0) 0 0o77"
