"""Runs nft and iptables: where they are, what they are given, what they said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from injector.capture.rules import Backend, Family

SECONDS: Final = 20
"""A script takes a hundredth of a second; more than this is a kernel that hangs or a lock that nobody gives back."""
_LOCK_SECONDS: Final = 5
_LOCK: Final = "/dev/shm/remora-xtables.lock"  # noqa: S108
"""Where /run cannot be written, as in a container whose root file system is read-only: a container's /dev/shm can."""
_PLACES: Final = ("/usr/sbin", "/sbin")
"""Looked at after $PATH, which often lacks them."""
_PLAIN: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a program ended and what it printed."""

    code: int
    output: str
    error: str

    @property
    def reason(self) -> str:
        """What it complained of, in one line."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip() and not line.startswith("#")]
        return "; ".join(lines[:2]) or f"exit code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The programs that restore and save the iptables of one version of IP, by one of the two ways into the kernel."""

    restore: str
    save: str


def find(name: str) -> str:
    """Give the path of a program, "" where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES])
    return shutil.which(name, path=path) or ""


def find_tables(backend: Backend, family: Family) -> Tables | None:
    """Give the iptables programs of a backend; None where there are none.

    A system with one variant alone may have it under the plain name only: then its version tells which it is.
    """
    variant = backend.value.removeprefix("iptables-")
    plain = _PLAIN[family]
    for name in (f"{plain}-{variant}", plain):
        restore, save = find(f"{name}-restore"), find(f"{name}-save")
        if restore and save and (name != plain or _variant(restore) == variant):
            return Tables(restore=restore, save=save)
    return None


def run(words: Sequence[str], text: str = "") -> Said:
    """Run a program with a text on its standard input, to its end. Never raises for how it ended."""
    environment = {**os.environ, "LC_ALL": "C"}
    if not os.access("/run", os.W_OK):
        environment.setdefault("XTABLES_LOCKFILE", _LOCK)
    try:
        done = subprocess.run(  # noqa: S603
            list(words), input=text, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
        )
    except OSError as fault:
        return Said(code=127, output="", error=f"{words[0]}: {fault.strerror}")
    except subprocess.TimeoutExpired:
        return Said(code=124, output="", error=f"{words[0]} did not end within {SECONDS} s")
    return Said(code=done.returncode, output=done.stdout, error=done.stderr)


def restore(tables: Tables, text: str) -> Said:
    """Give a text to `iptables-restore`, which leaves alone what the text does not name."""
    return run([tables.restore, "--noflush", "--wait", str(_LOCK_SECONDS)], text)


def saved(tables: Tables) -> str:
    """Give what `iptables-save` prints; "" where the kernel has nothing of it.

    Without `--table`, which would make the legacy table where there is none.
    """
    return run([tables.save]).output


def every_tables() -> Iterator[tuple[Backend, Family, Tables]]:
    """Give the iptables programs that are here, for each way into the kernel and each version of IP."""
    for backend in (Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY):
        for family in Family:
            tables = find_tables(backend, family)
            if tables is not None:
                yield backend, family, tables


def _variant(restore_program: str) -> str:
    return "nft" if "nf_tables" in run([restore_program, "--version"]).output else "legacy"
