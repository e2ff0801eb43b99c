"""The wheel works outside the checkout, with the declared dependencies alone and all the data that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("proxy", "injector", "certs", "demo", "benchmarks")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
REFERENCE_RUNS = ROOT / "benchmarks" / "results"
NO_DATA = (".pyc", ".mypy_cache", ".ruff_cache")


def run(command: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that the checkout stays as it is."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", "remora.py", "setup.py"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, sources)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    out = tmp_path_factory.mktemp("wheel")
    built = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, sources], sources)
    assert built.returncode == 0, (
        "an environment older than its lock? `make test` renews it\n" + built.stdout + built.stderr
    )
    [path] = out.glob("*-py3-none-any.whl")  # pure: any interpreter, any machine
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own that sees the dependencies of this one; give its bin folder."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    done = run([*pip, "install", "--no-deps", "--no-index", wheel], home)
    assert done.returncode == 0, done.stdout + done.stderr
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).stdout.strip()
    # A path file inside a path file's folder is not read, so an editable install of the checkout stays unseen.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_the_packages_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"remora.py", *PACKAGES}
    for package in PACKAGES:
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        wanted = {
            str(path.relative_to(ROOT))
            for path in files
            if not path.name.endswith(NO_DATA) and REFERENCE_RUNS not in path.parents
        }
        assert wanted <= names, "a package folder lacks __init__.py, or pyproject.toml does not name this kind of data"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("benchmarks/results/")], "they stay with the sources"


def test_the_metadata_name_floors_for_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert required
    assert all(">=" in requirement for requirement in required), required
    assert "License-Expression: Apache-2.0" in lines
    assert "Requires-Python: >=3.11" in lines


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("version",), f"remora {VERSION}, pure Python\n"),
        (("--help",), "usage: remora COMMAND"),
        (("certs", "--help"), "inspect"),
        (("proxy", "--help"), "check"),
        (("demo", "--help"), "--once"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_the_installed_command_runs_outside_the_checkout(
    installed: Path, tmp_path: Path, arguments: tuple[str, ...], phrase: str
) -> None:
    done = run([installed / "remora", *arguments], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert phrase in done.stdout


def test_the_modules_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = f"import remora, {', '.join(PACKAGES)}; print(remora.__file__, proxy.__file__, certs.__file__)"
    done = run([installed / "python", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    places = done.stdout.split()
    assert len(places) == 3
    assert all(place.startswith(str(installed.parent)) for place in places)
