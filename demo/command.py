"""Runs `remora` with the words that a person would type, in the directory of the mesh."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

_SECONDS: Final = 30.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_NOT_OURS: Final = ("REMORA_AUTHORITY_KEY_SOURCE",)
"""What a reader's shell may say of an authority of their own."""


class MeshError(Exception):
    """The mesh does not stand, or does not do what it is told: which process, and what it says."""


def interpreter(*words: str) -> list[str]:
    """Give the words that start a module of ours; -P: what lies in the current directory stands in for none."""
    return [sys.executable, "-P", *words]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Let children find the same modules as this process, installed or from a checkout."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [inherited.get("PYTHONPATH")])]
    kept = {name: value for name, value in inherited.items() if name not in _NOT_OURS}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def run_remora(directory: Path, words: Sequence[str]) -> str:
    """Run `remora` to its end and give what it says. Raises MeshError with what it complains of.

    A signal that ends the demo waits for that end: KeyboardInterrupt between fork and its return would leave a child
    that nobody knows.
    """
    with _signals_held():
        return _run(directory, words)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait; what came meanwhile comes at the end. The child's own are not touched."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _run(directory: Path, words: Sequence[str]) -> str:
    shown = " ".join(["remora", *words])
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter, our own words
            interpreter("-m", "remora", *words),
            cwd=directory,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            process_group=0,  # Ctrl-C in a terminal is for the demo alone
        )
    except subprocess.TimeoutExpired:
        raise MeshError(f"`{shown}` gives no answer within {_SECONDS:g} s") from None
    if done.returncode:
        raise MeshError(f"`{shown}` ended with code {done.returncode}:\n{indented(done.stderr)}")
    return done.stdout


def indented(text: str) -> str:
    """Set a text off from a sentence before it."""
    return "\n".join(f"    {line}" for line in text.splitlines() or ["(nothing)"])
