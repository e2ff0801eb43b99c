"""Runs podman with settings of the tests' own, and builds the image that they try.

Where a machine does not let a container have higher limits than it has itself, podman's defaults start no container:
the tests ask for no more than this process has. Images stay from one run to the next, layers too.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = "localhost/remora:under-test"
BUILD_SECONDS: Final = 600
"""For a build without anything in the cache, on a busy machine: it takes a minute."""
UNPRIVILEGED: Final = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none")
"""As the injector starts a sidecar: the image's own user, nothing writable, no capability."""


class Podman:
    """podman with its settings in a directory of the tests."""

    def __init__(self, directory: Path) -> None:
        settings = directory / "containers.conf"
        limits = ", ".join(f'"{name}={soft}:{soft}"' for name, soft in _limits())
        settings.write_text(f'[containers]\ndefault_ulimits = [{limits}]\n[engine]\nruntime = "runc"\n')
        self.environment: Mapping[str, str] = {**os.environ, "CONTAINERS_CONF": str(settings)}

    def run(self, *words: str, code: int = 0, text: str = "", seconds: float = 60) -> str:
        """Run podman to its end; gives its standard output, or what it said on both where it should fail."""
        done = subprocess.run(
            ["podman", *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=self.environment,
        )
        assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def remora(self, *words: str, code: int = 0, text: str = "", options: tuple[str, ...] = UNPRIVILEGED) -> str:
        """Run a command of the image in a container of its own."""
        return self.run("run", "--rm", "--interactive", *options, IMAGE, *words, code=code, text=text)

    def build(self, tag: str, *words: str) -> None:
        """Build the image from the sources as they are, with what the cache has."""
        done = subprocess.run(
            [sys.executable, "-m", "injector.image.build", "--tag", tag, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def build_application(self, tag: str, text: str) -> None:
        """Build the image of the applications, once for all runs."""
        with tempfile.TemporaryDirectory() as empty:
            words = ("build", "--quiet", "--network=host", "--tag", tag, "--file", "-", empty)
            self.run(*words, text=text, seconds=BUILD_SECONDS)

    @contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """Give the file system of an image, to look at."""
        try:
            yield Path(self.run("image", "mount", image).strip())
        finally:
            self.run("image", "unmount", image)


def _limits() -> Iterator[tuple[str, int]]:
    for name, kind, enough in (("nofile", resource.RLIMIT_NOFILE, 20_000), ("nproc", resource.RLIMIT_NPROC, 2_048)):
        _, hard = resource.getrlimit(kind)
        yield name, enough if hard == resource.RLIM_INFINITY else min(hard, enough)
