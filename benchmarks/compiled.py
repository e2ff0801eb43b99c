"""Finds the compiled form of the sidecar: a second interpreter's environment, in which `make compiled` installed it.

Both forms must be of the same sources, or their comparison would be one of two versions. The compiled wheel carries its
sources along, so they are held against those that run here; and `remora version` of that environment must say that it
is compiled. An environment that fails either is told with the reason, as one that is not there.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import PACKAGES

DEFAULT: Final = Path(PACKAGES, ".venv-compiled", "bin", "python")
"""Where `make compiled` puts it."""
MEND: Final = "`make compiled` in the checkout makes one; it needs a C compiler and Python's headers"

_COMPARED: Final = ("proxy", "certs")
"""What a sidecar is made of."""
_ASK_SECONDS: Final = 60
_WHERE: Final = "import importlib.util as u, json; print(json.dumps([u.find_spec(n).origin for n in {names}]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledForm:
    """The environment that was looked at. `absent` says why it cannot be measured, "" when it can.

    `version` is what its `remora version` says, its lines joined by "; ", "" where it was not asked.
    """

    python: str
    version: str = ""
    absent: str = ""

    def sidecar_command(self, config: Path) -> list[str]:
        """Write the command line of a sidecar that runs by the file `config`."""
        # -I: programs of a benchmark are told where our sources lie, and these would be imported instead.
        return [self.python, "-I", "-m", "remora", "proxy", "run", "--config", str(config)]


def look_for(python: Path) -> CompiledForm:
    """Look at the environment of an interpreter; whatever is wrong with it is in what is returned."""
    python = python.absolute()
    if not python.exists():
        return CompiledForm(python=str(python), absent=f"there is no {_shown(python)}: {MEND}")
    try:
        version = told(_say([str(python), "-I", "-m", "remora", "version"]), str(python))
        words = _say([str(python), "-I", "-c", _WHERE.format(names=_COMPARED)])
        places = [Path(origin).parent for origin in json.loads(words)]
    except (OSError, ValueError, subprocess.SubprocessError) as failure:
        return CompiledForm(python=str(python), absent=f"{_shown(python)} does not run Remora ({failure}): {MEND}")
    here = [Path(PACKAGES, name) for name in _COMPARED]
    return CompiledForm(python=str(python), version=version, absent=judge(version, digest(places) == digest(here)))


def judge(version: str, same_sources: bool) -> str:
    """Say why an environment is no compiled form of what runs here; "" when it is.

    >>> judge("remora 0.1.0, byte path compiled by mypyc; CPython 3.11.2", same_sources=True)
    ''
    """
    if "compiled" not in version.partition(";")[0]:
        return f"it is not compiled, it says {version.partition(';')[0]!r}: {MEND}"
    if not same_sources:
        return "it is compiled from other sources than those that run here: call `make compiled` again"
    return ""


def told(said: str, python: str) -> str:
    """Join what `remora version` says, without where its interpreter lies: that is of use on its own machine only."""
    return "; ".join(line.split(f", {python}")[0] for line in said.splitlines())


def digest(folders: Sequence[Path]) -> str:
    """Give one digest of the Python sources below some folders: of their names and what is in them."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{folder.name}/{path.relative_to(folder)}\0".encode())
            found.update(path.read_bytes() + b"\0")
    return found.hexdigest()


def _say(command: Sequence[str]) -> str:
    said = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, cwd=PACKAGES, check=True, timeout=_ASK_SECONDS
    )
    return said.stdout


def _shown(python: Path) -> str:
    return str(python.relative_to(PACKAGES)) if python.is_relative_to(PACKAGES) else str(python)
