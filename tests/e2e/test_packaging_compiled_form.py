"""The compiled form is built and passes the tests of the byte path that the pure form passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTED = (
    "tests/playbook",
    "tests/unit/forward",
    "tests/unit/protocol",
    "tests/unit/runtime",
    "tests/unit/policy/test_policy_decisions.py",
)


def run(command: Sequence[str], cwd: Path, seconds: float, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
    return done.stdout


@pytest.mark.debian
@pytest.mark.timeout(480)
def test_the_compiled_form_passes_the_tests_of_the_byte_path(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__", "venv", "node_modules")
    shutil.copytree(ROOT, tree, ignore=ignored)
    run(["setup.py", "-q", "build_ext", "--inplace"], tree, 240, REMORA_COMPILE="1")
    assert "byte path compiled by mypyc" in run(["-m", "remora", "version"], tree, 20)
    said = run(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTED], tree, 200)
    assert " passed" in said
