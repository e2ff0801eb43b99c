"""Which files of a Debian system go into the image, and which package each of them belongs to.

The image has no package manager, shell or compiler: only what runs is copied, so that there is less to patch and to
misuse. dpkg's own records of the packages that were copied from stay, because scanners for vulnerabilities read them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ROOTS: Final = ("base-files", "ca-certificates", "iptables", "netbase", "nftables")
"""What is wanted for itself; libraries follow from what programs are linked with, the interpreter from where it lies.
base-files says which system it is, netbase gives iptables the names of protocols."""

PYTHON: Final = r"(?:/usr(?:/local)?)/lib/python3(?:\.\d+)?/"

LEFT_OUT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # Nobody reads it there; copyright files are what the licences ask for.
        r"/usr/share/doc/(?!.*/copyright$)",
        r"/usr/share/(?:man|locale|info|lintian|bug|menu|doc-base|bash-completion|perl5|applications|pixmaps)(?:/|$)",
        # glibc converts UTF-8 without modules; Python has codecs of its own.
        r"(?:/usr)?/lib/[^/]+/(?:gconv|audit)(?:/|$)",
        r"(?:/usr)?/lib/systemd(?:/|$)",
        r"/usr/(?:local/)?(?:include|games|src)(?:/|$)",
        r".*\.(?:a|la|o|pyc|pyo)$",
        r".*/__pycache__(?:/|$)",
        # Kept as one bundle, which OpenSSL reads.
        r"/usr/share/ca-certificates(?:/|$)",
        r"/usr/sbin/update-ca-certificates$",
        r"/etc/(?:init\.d|default|profile\.d|update-motd\.d|skel|ca-certificates)(?:/|$)",
        # Shell scripts, and the image has no shell.
        r"/usr/s?bin/(?:iptables-apply|ip6tables-apply)$",
        # For people at a terminal, for building, for desktops, and old formats, with the libraries that they need.
        PYTHON + r"(?:test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data|venv|curses|dbm|sqlite3)/",
        PYTHON + r"(?:config-[^/]+|site-packages|dist-packages)/",
        PYTHON + r"turtle\.py$",
        PYTHON + r"lib-dynload/(?:_tkinter|_curses|_dbm|_gdbm|_sqlite3|readline|nis|ossaudiodev|_test|_ctypes_test|xx)",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed Debian package, and its stanza in dpkg's status file as it stands there."""

    name: str
    version: str
    architecture: str
    stanza: str


def read_status(text: str) -> dict[str, Package]:
    """Read dpkg's status file: packages by name. What is removed or half installed is not among them."""
    found: dict[str, Package] = {}
    for stanza in re.split(r"\n{2,}", text.strip("\n")):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            package = Package(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                stanza=stanza,
            )
            found[package.name] = package
    return found


def write_status(packages: Mapping[str, Package]) -> str:
    """Give a status file of these packages, in the order of their names."""
    return "".join(f"{packages[name].stanza}\n\n" for name in sorted(packages))


def is_kept(path: str) -> bool:
    """Say whether a file or directory of the base, by its absolute path, belongs into the image."""
    return not any(pattern.match(path) for pattern in LEFT_OUT)


def merged(path: str) -> str:
    """Give the one name of a path that has two since /lib and /bin are links into /usr: without /usr."""
    return path.removeprefix("/usr") if re.match(r"/usr/(?:lib|lib32|lib64|libx32|bin|sbin)(?:/|$)", path) else path


def owners(lists: Mapping[str, str]) -> dict[str, str]:
    """Turn dpkg's lists of files (text by package) around: the package by the `merged` path of its file."""
    return {merged(path): name for name, text in lists.items() for path in text.splitlines()}


class LibraryMissing(ValueError):
    """A program is linked with a library that the base does not have."""


def libraries(ldd: str) -> frozenset[str]:
    """Read from what `ldd` prints the paths of the libraries that a program is linked with.

    Raises LibraryMissing, with the name of the library, for one that was not found.
    """
    missing = sorted(set(re.findall(r"^\s+(\S+) => not found", ldd, re.MULTILINE)))
    if missing:
        raise LibraryMissing(f"{', '.join(missing)}: not found; install the package with it in the base image")
    return frozenset(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", ldd, re.MULTILINE))
