"""Reads what the commands of the injector are given: manifests by name or from standard input, defaults, bundles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from certs.bundle import BundleError, parse_pem
from certs.spiffe import parse_trust_domain
from injector.defaults import read_defaults
from injector.documents import Part, split
from injector.settings import Settings
from proxy.errors import ConfigError

SUFFIXES: Final = (".yaml", ".yml", ".json")
EXIT_REFUSED: Final = 1
EXIT_BAD_INPUT: Final = 2


class BadInput(Exception):
    """What was given cannot be read; the message has a line for each fault."""


def add_files(parser: argparse.ArgumentParser, *, what: str = "manifests") -> None:
    """Add `-f`, which may be repeated."""
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        action="append",
        required=True,
        metavar="FILE",
        help=f"{what}: a file, a directory (its {', '.join(SUFFIXES)} files, by name), or - for standard input",
    )


def read_parts(files: Sequence[str]) -> list[Part]:
    """Read the documents of all files in order. Raises BadInput with every fault of every file."""
    found: list[Part] = []
    faults: list[str] = []
    for source, data in read_files(files):
        try:
            found += split(data, source)
        except ConfigError as error:
            faults += [str(fault) for fault in error.faults]
    if faults:
        raise BadInput("\n".join(faults))
    return found


def read_files(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Give name and content of all files; "-" is standard input, once. Raises BadInput."""
    if files.count("-") > 1:
        raise BadInput("-f - stands twice: standard input can be read once")
    for name in files:
        if name == "-":
            yield "<stdin>", sys.stdin.buffer.read()
            continue
        path = Path(name)
        try:
            members = _members(path) if path.is_dir() else [path]
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}") from None
        for member in members:
            yield str(member), read_file(member)


def read_file(path: Path) -> bytes:
    """Read one file. Raises BadInput."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None


def defaults_of(path: Path | None) -> Settings:
    """Read the defaults file; without one, the built-in values. Raises BadInput."""
    if path is None:
        return Settings()
    try:
        return read_defaults(read_file(path), str(path))
    except ConfigError as error:
        raise BadInput(str(error)) from None


def bundle_of(path: Path | None, trust_domain: str) -> str | None:
    """Read a trust bundle as PEM text, checked. Raises BadInput."""
    if path is None:
        return None
    return checked_bundle(read_file(path), str(path), trust_domain)


def checked_bundle(data: bytes, source: str, trust_domain: str) -> str:
    """Give a bundle's certificates as PEM text, without what stands between them. Raises BadInput."""
    try:
        return parse_pem(parse_trust_domain(trust_domain), data, source).to_pem().decode("ascii")
    except BundleError as error:
        raise BadInput(str(error)) from None


def _members(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise BadInput(f"{directory}: no {', '.join(SUFFIXES)} file is in it")
    return found
