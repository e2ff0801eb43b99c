"""The learner's page of capture: its files are written down, its commands run in order, and print what the page shows.

In a network and with mounts of the test's own: the namespaces that the page makes are seen nowhere else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pod_network import OwnSpace

pytestmark = [pytest.mark.debian, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "injector" / "capture" / "README.md").read_text()
FILE = re.compile(r"`([\w./-]+\.yaml)`[^\n]*:\n\n```yaml\n(.*?)```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```(console|sh)\n(.*?)```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def space() -> Iterator[OwnSpace]:
    made = OwnSpace("mount -t tmpfs none /run")
    try:
        yield made
    finally:
        # Whatever a failed page left behind: by the namespaces that are the test's own.
        made.run(
            "sh", "-c", "for pod in a b; do ip netns pids pod-$pod | xargs -r kill; ip netns delete pod-$pod; done"
        )
        made.close()


def commands() -> Iterator[tuple[str, str | None]]:
    """Give each command in the order of the page, with what it prints where the page shows it."""
    for kind, text in COMMAND.findall(PAGE):
        if kind == "console":
            first, _, shown = text.partition("\n")
            yield first.removeprefix("$ "), shown
        else:
            yield text, None


def test_every_command_runs_and_prints_what_the_page_shows(space: OwnSpace, tmp_path: Path) -> None:
    # The sidecars, which are not root, read the page's files.
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    for name, text in FILE.findall(PAGE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert len(FILE.findall(PAGE)) == 3
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    ran = 0
    for command, shown in commands():
        done = subprocess.run(
            [*space.enter, "bash", "-euo", "pipefail", "-c", f"cd {tmp_path}; {command}"],
            env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if shown is not None:
            assert done.stdout + done.stderr == shown, command
        ran += 1
    assert ran >= 17
