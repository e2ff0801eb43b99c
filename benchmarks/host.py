"""Says on what a benchmark ran: the interpreter's build, the cores, and how much others used them meanwhile."""

from __future__ import annotations

import enum
import platform
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from OpenSSL import SSL

NOISY_SHARE: Final = 0.05
"""A core of which others took more than this during a repetition was shared: their work fills caches and queues."""


class Build(enum.Enum):
    """How an interpreter was built, in words for a report."""

    OPTIMISED = "optimised build (--enable-optimizations)"
    DEBIAN = "Debian's build, optimised by its packaging (what sysconfig tells is of the shared library beside it)"
    PLAIN = "built without --enable-optimizations: expect 12 to 24 % more CPU than it needs"
    DEBUG = "a debug build: its figures say nothing"

    @property
    def optimised(self) -> bool:
        """Say whether figures may be taken with it."""
        return self in (Build.OPTIMISED, Build.DEBIAN)


def judge_build(config_args: str, *, debug: bool, uses_shared_library: bool, debian: bool) -> Build:
    """Judge an interpreter by the arguments of its `configure` (CONFIG_ARGS of sysconfig).

    Debian builds twice: a static interpreter with profile-guided and link-time optimisation, which runs, and a shared
    library without, whose arguments sysconfig tells. So the arguments speak of another build when they ask for a
    shared library and the running process uses none.

    >>> judge_build("'--enable-optimizations'", debug=False, uses_shared_library=False, debian=False).optimised
    True
    """
    words = {word.strip("'\"") for word in config_args.split()}
    if debug or "--with-pydebug" in words:
        return Build.DEBUG
    if "--enable-optimizations" in words:
        return Build.OPTIMISED
    if debian and "--enable-shared" in words and not uses_shared_library:
        return Build.DEBIAN
    return Build.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which core the proxies have and which one everybody else; the same where there is only one."""

    proxies: int
    others: int


def choose_cores(available: Sequence[int]) -> Cores:
    """Give the proxies the first core that this process may use and everybody else the next."""
    ordered = sorted(available)
    return Cores(proxies=ordered[0], others=ordered[1 if len(ordered) > 1 else 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """On what a benchmark ran; `openssl` is the library that the sidecars use, whatever the host has."""

    python: str
    build: Build
    openssl: str
    processor: str
    cores: Cores

    def lines(self, proxies: str) -> list[str]:
        """Describe it for a person; `proxies` names what has a core of its own."""
        return [
            f"  python      {self.python}, {self.build.value}",
            f"  openssl     {self.openssl}",
            f"  processor   {self.processor}; {proxies} on core {self.cores.proxies}, "
            f"everything else on core {self.cores.others}",
        ]

    def document(self) -> dict[str, object]:
        """Describe it for a program."""
        return {
            "interpreter": {
                "version": self.python,
                "build": self.build.value,
                "optimised": self.build.optimised,
            },
            "openssl": self.openssl,
            "processor": self.processor,
            "cores": {"proxies": self.cores.proxies, "others": self.cores.others},
        }

    def warnings(self) -> list[str]:
        """Say what makes figures that are taken on it weaker than they look."""
        found = []
        if not self.build.optimised:
            found.append(f"the interpreter is {self.build.value}")
        if self.cores.proxies == self.cores.others:
            found.append("there is one core only: load generator and application were in the proxies' way")
        return found


def this_machine(available: Sequence[int]) -> Machine:
    """Describe this machine, of which the cores `available` may be used."""
    return Machine(
        python=this_version(),
        build=this_build(),
        openssl=SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii"),
        processor=this_processor(),
        cores=choose_cores(available),
    )


def this_build() -> Build:
    """Judge the interpreter that runs here, and so the one that runs the sidecars."""
    return judge_build(
        str(sysconfig.get_config_var("CONFIG_ARGS") or ""),
        debug=bool(sysconfig.get_config_var("Py_DEBUG")),
        uses_shared_library="/libpython" in Path("/proc/self/maps").read_text("utf-8", "replace"),
        debian=Path("/etc/debian_version").exists() and Path(sys.executable).resolve().parent == Path("/usr/bin"),
    )


def this_version() -> str:
    """Name the interpreter that runs here."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def processor_name(cpuinfo: str) -> str:
    """Find the processor's name in /proc/cpuinfo; where there is none, the machine's kind."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def this_processor() -> str:
    """Name the processor of this machine."""
    return processor_name(Path("/proc/cpuinfo").read_text("utf-8", "replace"))


def foreign_share(busy: float, ours: float, stolen: float, elapsed: float) -> float:
    """Tell which part of a core others took, from 0 to 1, all arguments in seconds.

    `busy` is the time that processes ran on it, `ours` what was charged to the measured ones, `stolen` what the
    hypervisor gave to another machine.

    >>> foreign_share(busy=2.0, ours=1.5, stolen=0.25, elapsed=3.0)
    0.25
    """
    if elapsed <= 0:
        return 0.0
    return min(1.0, (max(0.0, busy - ours) + stolen) / elapsed)
