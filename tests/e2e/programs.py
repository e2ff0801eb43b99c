"""Real programs around a sidecar: started in a directory of their own, watched by their log, ended by their pid."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mesh import authority, svid

from certs.testing import write_set

START, END, RUN = 20.0, 10.0, 30.0
"""Seconds that a program has to listen, to end, and to run through."""
ROOT = os.geteuid() == 0


@functools.cache
def installed(name: str) -> str:
    """The path of a program; its absence is said loudly. Servers may lie in sbin, which is not on everybody's path."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is not installed; `.ci/run packages` installs what these tests need", pytrace=False)
    return found


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


@contextlib.contextmanager
def running(argv: Sequence[str], directory: Path, port: int) -> Iterator[int]:
    """Run a server in `directory` until the end of the block; it begins when the server accepts on `port`."""
    log = directory / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [installed(argv[0]), *argv[1:]],
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START
        while not _accepts(port):
            said = log.read_text(errors="replace")[-4_000:]
            assert process.poll() is None, f"{argv[0]} ended with {process.returncode}:\n{said}"
            assert time.monotonic() < deadline, f"{argv[0]} does not listen on {port}:\n{said}"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a program ended and what it said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    def ok(self) -> Result:
        """This result, which must be a success."""
        assert self.code == 0, f"exit code {self.code}: {self.err}\n{self.out[-2_000:].decode(errors='replace')}"
        return self


async def run(*argv: str | Path, given: bytes = b"") -> Result:
    """Run a program to its end, with `given` on its standard input."""
    process = await asyncio.create_subprocess_exec(
        installed(str(argv[0])),
        *map(str, argv[1:]),
        env=_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(given), RUN)
    except TimeoutError:
        process.kill()
        await process.communicate()
        pytest.fail(f"{' '.join(map(str, argv))} did not end within {RUN:g} s")
    assert process.returncode is not None
    return Result(code=process.returncode, out=out, err=err.decode(errors="replace"))


# --- curl ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Curl:
    """curl with the certificate of a ServiceAccount, without a sidecar of its own.

    SPIFFE certificates have no DNS name that curl could compare with the host, so it is told to compare none (-k).
    """

    port: int
    directory: Path | None

    async def __call__(self, *arguments: str | Path, path: str = "/", given: bytes = b"") -> Result:
        """Fetch one URL; `arguments` go before it."""
        return await run("curl", *self.options(), *arguments, self.url(path), given=given)

    def options(self) -> list[str | Path]:
        """What every call begins with."""
        options: list[str | Path] = ["--silent", "--show-error", "--insecure", "--max-time", "20"]
        if self.directory is not None:
            options += ["--cert", self.directory / "tls.crt", "--key", self.directory / "tls.key"]
        return options

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


def curl_as(account: str, port: int, directory: Path) -> Curl:
    """Give curl the identity of a ServiceAccount."""
    own = directory / f"curl-{account}"
    write_set(svid(account), authority().bundles, own)
    return Curl(port=port, directory=own)


# --- a Python application --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def python_application(directory: Path, port: int) -> Iterator[int]:
    """Run the application of `http_application.py`, http.server with threads."""
    with running([sys.executable, str(Path(__file__).with_name("http_application.py")), str(port)], directory, port):
        yield port
