"""Files that are made to cost time or memory are refused, in bounded time and memory: limits of the kernel hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from policy_corpus import bad_files

PROGRAM = Path(__file__).parent / "hostile_files.py"
RESIDENT_MIB = 256  # 80 are usual; each of these files has a megabyte at most


def test_the_corpus_is_large_and_says_what_it_expects() -> None:
    files = bad_files()
    assert len(files) >= 150
    assert [bad.name for bad in files if not bad.expected] == []


@pytest.mark.timeout(300)
def test_hostile_files_are_refused_in_bounded_time_and_memory() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, resident = done.stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) > 150
    for name, expected, fault in told:
        assert fault is not None, name
        assert expected in fault, (name, fault)
    assert int(resident) < RESIDENT_MIB
