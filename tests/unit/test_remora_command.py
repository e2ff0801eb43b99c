"""The command `remora`: one table, imports on demand, no traceback for a person."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from pathlib import Path

import pytest

import remora

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package whose `main` a test gives, called by `remora proxy`."""
    module = types.ModuleType("proxy.cli")
    monkeypatch.setitem(sys.modules, "proxy.cli", module)
    return module


@pytest.mark.parametrize("argument", ["--help", "version", "certz"])
def test_looking_around_imports_no_part_of_the_product(argument: str) -> None:
    done = run(
        f"import sys, remora; remora.main([{argument!r}]);"
        "sys.exit(' '.join(m for m in sys.modules if m.split('.')[0] in"
        " ('proxy', 'certs', 'demo', 'benchmarks', 'uvloop', 'asyncio', 'OpenSSL', 'yaml', 'h11')) or 0)"
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--help", "-h", "help"):
        assert remora.main([argument]) == 0
        text = capsys.readouterr().out
        assert text.startswith("usage: remora COMMAND")
        for name, command in remora.COMMANDS.items():
            assert f"  {name} " in text
            assert command.summary in text


def test_version_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("version", "--version", "-V"):
        assert remora.main([argument]) == 0
        text = capsys.readouterr().out
        assert text.startswith("remora ")
        assert "CPython 3." in text
        assert "OpenSSL 4." in text


def test_no_command_is_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert remora.main([]) == 2
    assert "which command?" in (error := capsys.readouterr().err)
    assert "usage: remora" in error


def test_an_unknown_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert remora.main(["cert"]) == 2
    assert capsys.readouterr().err == "remora: there is no command 'cert'; did you mean `remora certs`?\n"
    assert remora.main(["xyzzy"]) == 2
    assert "`remora --help` lists the commands" in capsys.readouterr().err


def test_the_rest_of_the_line_is_handed_over_and_the_code_comes_back(fake: types.ModuleType) -> None:
    seen: list[list[str]] = []
    fake.main = lambda argv: seen.append(list(argv)) or 7  # type: ignore[attr-defined]
    assert remora.main(["proxy", "run", "--config", "x"]) == 7
    assert seen == [["run", "--config", "x"]]


def test_an_interrupt_ends_quietly(fake: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        raise KeyboardInterrupt

    fake.main = main  # type: ignore[attr-defined]
    assert remora.main(["proxy"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(remora.COMMANDS, "bench", remora.Command("hdrhistogram_that_is_not_there", "x"))
    assert remora.main(["bench"]) == 2
    error = capsys.readouterr().err
    assert "hdrhistogram_that_is_not_there is not installed" in error
    assert "remora[bench]" in error
    monkeypatch.setitem(remora.COMMANDS, "certs", remora.Command("certs.not_there", "x"))
    assert remora.main(["certs"]) == 2
    assert "the module certs.not_there is not installed; install remora with" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    # More than a pipe holds, to a reader that has closed its end: `remora certs inspect | head -1`.
    code = (
        "import sys, types, remora; m = types.ModuleType('certs.cli');"
        "m.main = lambda argv: [print('x' * 100) for _ in range(2000)] and 0;"
        "sys.modules['certs.cli'] = m; sys.exit(remora.main(['certs']))"
    )
    command = f'{sys.executable} -c "$CODE" | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={"CODE": code}, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_stdout_that_cannot_be_flushed_is_a_broken_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return descriptor.fileno()

    with (tmp_path / "out").open("w") as descriptor:
        monkeypatch.setattr(sys, "stdout", Gone())
        assert remora.main(["--help"]) == 141
