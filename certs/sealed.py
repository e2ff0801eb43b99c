"""Keeps private keys at rest so that the disk alone is worth nothing: sealed under a secret that lies elsewhere.

The secret is named by a source, one word before a colon:

    file:PATH           the first line of a file         env:NAME   an environment variable
    fd:N                a descriptor, read to its end    command:PROG ARGS
    secret:NAME         a Secret of Kubernetes, which the caller fetches

All but the command give a passphrase, under which keys are encrypted as PKCS#8 PEM. A command wraps keys itself, for a
KMS or an HSM: it is started with `wrap` or `unwrap` as its last argument, reads from its standard input (PKCS#8 DER
or what it once wrote) and writes the other form to its standard output. No shell is between.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from certs.keys import PrivateKey, key_fault

COMMAND_SECONDS: Final = 20.0
"""A KMS answers within a second; one that does not within 20 is away, and the authority must say so."""

MAX_SEALED_BYTES: Final = 64 * 1024
"""An RSA 4096 key has 2.4 KB and its wrapping adds little; more is no key."""


class SealError(ValueError):
    """A key or a secret that cannot be had; the message holds neither."""


class SourceKind(enum.Enum):
    """Where the secret comes from."""

    FILE = "file"
    ENV = "env"
    DESCRIPTOR = "fd"
    COMMAND = "command"
    SECRET = "secret"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Seals and unseals keys. What it was parsed from stays out of its repr: a command's arguments may be secret."""

    kind: SourceKind
    where: str = field(repr=False)
    passphrase: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, text: str, fetch: Callable[[str], bytes] | None = None) -> KeySource:
        """Reads a source and fetches its passphrase, once; raises SealError with the mend.

        `fetch` gives the passphrase of a Secret by its name; None where there is no cluster to ask.

        >>> KeySource.parse("pass:secret")
        Traceback (most recent call last):
        certs.sealed.SealError: the key source is of an unknown kind; write file:PATH, env:NAME, fd:N, command:PROG or \
secret:NAME
        """
        word, _, where = text.partition(":")
        try:
            kind = SourceKind(word)
        except ValueError:
            raise SealError(
                "the key source is of an unknown kind; write file:PATH, env:NAME, fd:N, command:PROG or secret:NAME"
            ) from None
        if not where:
            raise SealError(f"the key source {word}: names nothing; write what stands after the colon")
        if kind is SourceKind.COMMAND:
            _arguments(where)
            return cls(kind=kind, where=where)
        if kind is SourceKind.SECRET:
            if fetch is None:
                raise SealError(
                    f"secret:{where} is in a cluster, and no API server is named; give --kube and --kube-state, or ask "
                    "the process that serves it"
                )
            return cls(kind=kind, where=where, passphrase=_checked(fetch(where), f"secret:{where}"))
        return cls(kind=kind, where=where, passphrase=_passphrase(kind, where))

    def warnings(self) -> list[str]:
        """Says what is wrong with the place of a passphrase that could be read all the same."""
        if self.kind is not SourceKind.FILE:
            return []
        try:
            mode = os.stat(self.where).st_mode
        except OSError:
            return []
        if not mode & (stat.S_IROTH | stat.S_IWOTH):
            return []
        return [
            f"{self.where}: everybody may read or change the passphrase (mode {stat.S_IMODE(mode):04o}); "
            "give it mode 0600, or 0640 through the volume's defaultMode and fsGroup"
        ]

    def seal(self, key: PrivateKey) -> bytes:
        """Turns a key into bytes for the disk."""
        if self.kind is not SourceKind.COMMAND:
            return key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(self.passphrase),
            )
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        sealed = _run(self.where, "wrap", der)
        if der in sealed:
            raise SealError("the key command `wrap` gave the key back unsealed; mend the command")
        return sealed

    def unseal(self, sealed: bytes) -> PrivateKey:
        """Turns bytes from the disk into the key; raises SealError when they are not of this secret."""
        try:
            if self.kind is SourceKind.COMMAND:
                key = serialization.load_der_private_key(_run(self.where, "unwrap", sealed), password=None)
            else:
                key = serialization.load_pem_private_key(sealed, password=self.passphrase)
        except TypeError:
            raise SealError("the key is not sealed; seal it by importing it again") from None
        except (ValueError, UnsupportedAlgorithm) as error:
            if isinstance(error, SealError):
                raise
            # `from None`: the cause may quote what it was given.
            raise SealError("the key does not open: wrong passphrase, or a damaged file; check the source") from None
        fault = key_fault(key.public_key())
        if fault is not None or not isinstance(key, PrivateKey):
            raise SealError(fault or "the key is of a kind that cannot sign here")
        return key


def _passphrase(kind: SourceKind, where: str) -> bytes:
    if kind is SourceKind.ENV:
        raw = os.environb.get(os.fsencode(where))
        if raw is None:
            raise SealError(f"the environment has no {where}; set it to the passphrase")
    else:
        raw = _read(kind, where)
    return _checked(raw.split(b"\n", 1)[0].rstrip(b"\r"), f"{kind.value}:{where}")


def _checked(secret: bytes, shown: str) -> bytes:
    if not secret:
        raise SealError(f"the passphrase from {shown} is empty; put one there")
    if len(secret) > 1023:
        # OpenSSL's limit for PKCS#8.
        raise SealError(f"the passphrase from {shown} is longer than 1023 bytes; shorten it")
    return secret


def _read(kind: SourceKind, where: str) -> bytes:
    target: str | int = where
    if kind is SourceKind.DESCRIPTOR:
        if not (where.isascii() and where.isdigit()) or len(where) > 6:
            # Not quoted: somebody may have written the passphrase in the place of the number.
            raise SealError("the key source fd: names no number of a descriptor; write fd:3")
        target = int(where)
    try:
        with open(target, "rb") as file:
            raw = file.read(MAX_SEALED_BYTES + 1)
    except OSError as error:
        raise SealError(f"{kind.value}:{where} cannot be read ({error.strerror}); check that it is there") from None
    if len(raw) > MAX_SEALED_BYTES:
        raise SealError(f"{kind.value}:{where} is too large for a passphrase; name another")
    return raw


def _arguments(where: str) -> list[str]:
    try:
        arguments = shlex.split(where)
    except ValueError:
        raise SealError("the key command has an open quote; close it") from None
    if not arguments:
        raise SealError("the key command names no program; write command:PROG ARGS")
    return arguments


def _run(where: str, verb: str, data: bytes) -> bytes:
    arguments = _arguments(where)
    name = Path(arguments[0]).name
    try:
        process = subprocess.Popen(  # noqa: S603 (the operator names the program; no shell)
            [*arguments, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may quote the key
            start_new_session=True,
        )
    except OSError as error:
        raise SealError(f"the key command {name} does not start ({error.strerror}); check its path") from None
    try:
        with process:
            try:
                output = _converse(process, data)
                if len(output) <= MAX_SEALED_BYTES:  # one that writes too much never ends by itself
                    process.wait(timeout=COMMAND_SECONDS)
            finally:
                # Its children as well: one that holds the pipe open would hold us.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise SealError(
            f"the key command {name} {verb} took longer than {COMMAND_SECONDS:.0f} s; check what it waits for"
        ) from None
    if not 0 < len(output) <= MAX_SEALED_BYTES:
        raise SealError(f"the key command {name} {verb} wrote nothing or too much for a key; run it by hand")
    if process.returncode != 0:
        raise SealError(f"the key command {name} {verb} ended with {process.returncode}; run it by hand")
    return output


def _converse(process: subprocess.Popen[bytes], data: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise SealError("the key command has no pipes; this is a fault of Remora, report it")
    deadline = time.monotonic() + COMMAND_SECONDS
    source, sink = process.stdout.fileno(), process.stdin
    os.set_blocking(sink.fileno(), False)
    output = b""
    while len(output) <= MAX_SEALED_BYTES:
        if not data and not sink.closed:
            sink.close()
        writing = [] if sink.closed else [sink.fileno()]
        readable, writable, _ = select.select([source], writing, [], max(0.0, deadline - time.monotonic()))
        if not readable and not writable:
            raise TimeoutError
        if writable:
            try:
                data = data[os.write(sink.fileno(), data) :]
            except BrokenPipeError:
                data = b""  # it does not want to read; its exit status says why
        if readable:
            piece = os.read(source, MAX_SEALED_BYTES)
            if not piece:
                break
            output += piece
    return output
