"""The injector's page: its manifests are written down, its commands are run in order, and print what the page says.

`kubectl` is a program of the test's own: there is no cluster here. It takes what it is given and says nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector.annotations import markdown_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "injector" / "README.md").read_text()
FILE = re.compile(r"^`([\w./-]+\.yaml)`[^\n]*:\n\n```yaml\n(.*?)```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```(console|sh)\n(.*?)```$", re.MULTILINE | re.DOTALL)
KUBECTL = """#!/bin/sh
for word in "$@"; do
    case "$word" in -) cat > /dev/null ;; esac
done
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the page's files, and the programs that its commands name."""
    for name, text in FILE.findall(PAGE):
        if name != "injected.yaml":
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").write_text(KUBECTL)
    (programs / "remora").write_text(f'#!/bin/sh\nexec {sys.executable} -m remora "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{place / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def commands() -> Iterator[tuple[str, str | None]]:
    """Give each command in the order of the page, with what it prints where the page shows it."""
    for kind, text in COMMAND.findall(PAGE):
        if kind == "console":
            first, _, shown = text.partition("\n")
            yield first.removeprefix("$ "), shown
        else:
            lines = text.replace("\\\n", " ").splitlines()
            yield from ((line, None) for line in lines if line and not line.startswith("#"))


@pytest.mark.timeout(180)
def test_every_command_of_the_page_runs_and_prints_what_the_page_shows(place: Path) -> None:
    ran = 0
    for command, shown in commands():
        done = run(command, place)
        assert "Traceback" not in done.stderr
        if shown is None:
            assert done.returncode == 0, (command, done.stderr)
        else:
            assert done.stdout + done.stderr == shown, command
        ran += 1
    assert ran >= 8


def test_the_pod_with_reasons_is_the_pod_that_is_made(place: Path) -> None:
    assert run("remora inject -f pod.yaml > injected.yaml", place).returncode == 0
    shown = dict(FILE.findall(PAGE))["injected.yaml"]
    assert ordered(yaml.safe_load(shown)) == ordered(yaml.safe_load((place / "injected.yaml").read_text()))
    assert len(re.findall(r"^ *# ", shown, re.MULTILINE)) >= 15


def ordered(value: Any) -> Any:
    """Lists of pairs for mappings, so that the order of keys counts."""
    if isinstance(value, dict):
        return [(key, ordered(item)) for key, item in value.items()]
    return [ordered(item) for item in value] if isinstance(value, list) else value


def test_the_table_of_annotations_is_that_of_the_code() -> None:
    assert markdown_table() in PAGE


def test_every_room_of_the_page_exists() -> None:
    table = PAGE[PAGE.index("## Rooms") :]
    names = [
        name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)
    ]
    assert len(names) > 20
    here = ROOT / "injector"
    found = {path.name for name in names for path in (here.glob(name) if "*" in name else [here / name.rstrip("/")])}
    assert all((here / name).exists() for name in found)
    modules = {path.name for path in here.glob("*.py")} - {"__init__.py"}
    assert modules <= found, "each module has its line"
