"""Reaches an authority: the process that serves it, by its unix socket, or the directory itself when there is none."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from certs.crl import CRL_LIFETIME
from certs.hardening import harden
from certs.keeper import Keeper
from certs.sealed import KeySource, SealError
from certs.state import DirectoryStore
from certs.state_store import StateError
from proxy.admin.guard import ACTION_HEADER
from proxy.authority.commands import CommandFailed, run_command

CONTROL_SOCKET: Final = "control.sock"
KEY_SOURCE_VARIABLE: Final = "REMORA_AUTHORITY_KEY_SOURCE"

_SECONDS: Final = 60.0
"""A rotation may wait for a key command, which has 20 seconds for each key."""
_MOST: Final = 64 * 1024 * 1024


def passphrase_file(directory: Path) -> Path:
    """Name the file that `init` writes when nobody names another source: beside the directory, and not in it."""
    return directory.with_name(f"{directory.name}.passphrase")


def key_source(directory: Path, given: str | None, fetch: Callable[[str], bytes] | None = None) -> KeySource:
    """Find the secret of an authority's keys; `fetch` asks a cluster for one. Raises CommandFailed and KubeError."""
    text = given or os.environ.get(KEY_SOURCE_VARIABLE)
    if not text:
        file = passphrase_file(directory)
        if not file.exists():
            raise CommandFailed(
                f"the keys in {directory} are sealed, and nobody says by what; name it with --key-source or in "
                f"{KEY_SOURCE_VARIABLE}"
            )
        text = f"file:{file}"
    try:
        return KeySource.parse(text, fetch)
    except SealError as error:
        raise CommandFailed(str(error)) from None


@contextlib.contextmanager
def opened(directory: Path, source: KeySource) -> Iterator[Keeper]:
    """Open the directory for one command. Raises CommandFailed."""
    harden()
    try:
        keeper = open_keeper(directory, source)
    except StateError as error:
        raise CommandFailed(str(error)) from None
    try:
        yield keeper
    finally:
        try:
            keeper.close(_now(), time.monotonic())
        except StateError as error:
            raise CommandFailed(str(error)) from None


def open_keeper(directory: Path, source: KeySource, crl_lifetime: datetime.timedelta = CRL_LIFETIME) -> Keeper:
    """Open the directory and load what is in it; the caller closes the keeper. Raises StateError."""
    if not directory.is_dir():
        raise StateError(f"{directory}: it is not there; make an authority with `remora authority init`")
    store = DirectoryStore(directory, source)
    try:
        return Keeper(store, _now(), time.monotonic(), crl_lifetime=crl_lifetime)
    except BaseException:
        store.close()
        raise


def order(directory: Path, given_source: str | None, command: str, arguments: Mapping[str, str]) -> str:
    """Have a command carried out, by whoever holds the directory. Raises CommandFailed."""
    if not directory.is_dir():
        raise CommandFailed(f"{directory}: it is not there; make an authority with `remora authority init`")
    told = ask_process(directory, command, arguments)
    if told is not None:
        return told
    with opened(directory, key_source(directory, given_source)) as keeper:
        return run_command(keeper, command, arguments, _now(), time.monotonic())


def ask_process(directory: Path, command: str, arguments: Mapping[str, str]) -> str | None:
    """Have the running process carry out a command; None when none runs. Raises CommandFailed."""
    connection = http.client.HTTPConnection("localhost", timeout=_SECONDS)
    try:
        sock = _connect(directory / CONTROL_SOCKET)
        if sock is None:
            return None
        connection.sock = sock
        body = json.dumps({"command": command, "arguments": dict(arguments)}).encode()
        connection.request("POST", "/do", body, headers={ACTION_HEADER: "true", "Connection": "close"})
        answer = connection.getresponse()
        text = answer.read(_MOST).decode("utf-8", "replace")
        if answer.status == 200:
            return text
        raise CommandFailed(text.strip() or f"the authority answered {answer.status}")
    except (OSError, http.client.HTTPException) as failure:
        why = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
        raise CommandFailed(f"the authority in {directory} gives no answer: {why}") from None
    finally:
        connection.close()


def _connect(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_SECONDS)
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
