"""The compiled form is measured only where it is compiled, and from the sources that run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.compiled import CompiledForm, digest, judge, look_for, told
from benchmarks.processes import PACKAGES


def test_a_missing_environment_is_absent_with_its_mend(tmp_path: Path) -> None:
    form = look_for(tmp_path / "bin" / "python")
    assert form.absent.startswith(f"there is no {tmp_path}")
    assert "make compiled" in form.absent


def test_an_environment_without_remora_is_absent(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no remora here >&2\nexit 1\n")
    python.chmod(0o755)
    form = look_for(python)
    assert "does not run Remora" in form.absent
    assert form.version == ""


def environment(home: Path, says: str, sources: Path) -> Path:
    """Make an interpreter that knows two answers: its version, and where its packages are."""
    places = json.dumps([str(sources / name / "__init__.py") for name in ("proxy", "certs")])
    python = home / "python"
    python.write_text(f"#!/bin/sh\ncase $* in *version) echo '{says}';; *) echo '{places}';; esac\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("says", "sources", "absent"),
    [
        ("remora 0.1.0, byte path compiled by mypyc", PACKAGES, ""),
        ("remora 0.1.0, byte path compiled by mypyc", "/nowhere", "it is compiled from other sources"),
        ("remora 0.1.0, pure Python", PACKAGES, "it is not compiled, it says"),
    ],
)
def test_an_environment_is_asked_for_its_form_and_its_sources(
    tmp_path: Path, says: str, sources: str, absent: str
) -> None:
    form = look_for(environment(tmp_path, says, Path(sources)))
    assert form.absent.startswith(absent)
    assert bool(form.absent) is bool(absent)
    assert form.version == says


@pytest.mark.parametrize(
    ("version", "same", "words"),
    [
        ("remora 0.1.0, byte path compiled by mypyc; CPython 3.11.2", True, ""),
        ("remora 0.1.0, byte path compiled by mypyc; CPython 3.11.2", False, "from other sources"),
        ("remora 0.1.0, pure Python; CPython 3.13, compiled by somebody", True, "it is not compiled"),
        ("", True, "it is not compiled"),
    ],
)
def test_an_environment_is_judged_by_what_it_says_and_by_its_sources(version: str, same: bool, words: str) -> None:
    found = judge(version, same_sources=same)
    assert words in found
    assert bool(found) is bool(words)


def test_a_digest_is_of_names_and_contents_and_of_sources_only(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "proxy", tmp_path / "b" / "proxy"
    for folder in (first, second):
        (folder / "forward").mkdir(parents=True)
        (folder / "forward" / "http.py").write_text("x = 1\n")
    (second / "forward" / "http.so").write_text("compiled")
    assert digest([first]) == digest([second])
    (second / "forward" / "http.py").write_text("x = 2\n")
    assert digest([first]) != digest([second])
    (second / "forward" / "http.py").rename(second / "forward" / "more.py")
    (second / "forward" / "more.py").write_text("x = 1\n")
    assert digest([first]) != digest([second])


def test_a_version_leaves_out_where_the_interpreter_lies() -> None:
    said = "remora 0.1.0, pure Python\nCPython 3.11.2, GCC, Debian's build, /home/me/python\nOpenSSL 4\n"
    assert told(said, "/home/me/python") == "remora 0.1.0, pure Python; CPython 3.11.2, GCC, Debian's build; OpenSSL 4"


def test_its_sidecar_is_isolated_from_the_sources_that_run_here() -> None:
    command = CompiledForm(python="/second/python").sidecar_command(Path("/hop/remora.yaml"))
    assert command == ["/second/python", "-I", *("-m", "remora", "proxy", "run", "--config", "/hop/remora.yaml")]
