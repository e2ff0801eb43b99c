"""The command itself: help that teaches, exit codes, one line a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.policy_commands.cli import SUBCOMMANDS, main


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, "--help")
    assert code == 0
    for name in SUBCOMMANDS:
        assert f"\n    {name} " in out
    assert "-f policy/" in out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, name, "--help")
    assert code == 0
    assert f"remora policy {name}" in out.partition("options:")[2]


@pytest.mark.parametrize("words", [[], ["tst"], ["test", "--output", "html"], ["diff", "a"]])
def test_wrong_usage_is_code_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = shown(capsys, *words)
    assert code == 2
    assert "usage: remora policy" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["test"],
            "remora policy test: no file of tests is given; name one, or write a first one with --init -f POLICIES\n",
        ),
        (
            ["test", "-", "-f", "-"],
            "remora policy test: standard input can be read once only; give one of the two as a file\n",
        ),
        (
            ["test", "a", "-o", "b"],
            "remora policy test: -o belongs to --init; use --junit FILE for a report\n",
        ),
        (
            ["test", "--init", "a"],
            "remora policy test: --init reads policies and no tests; "
            "give the policies with -f, and the file to write with -o\n",
        ),
        (["test", "--init"], "remora policy: no policies are given; name them with -f PATH\n"),
        (["diff", "-", "-"], "remora policy diff: standard input can be read once only; give the others as files\n"),
        (
            ["diff", "-", ".", "--records", "-"],
            "remora policy diff: standard input can be read once only; give the others as files\n",
        ),
    ],
)
def test_what_does_not_go_together(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, *words) == (2, "", expected)


def test_a_grid_needs_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = shown(capsys, "diff", "a", "b", "--grid-limit", "0")
    assert code == 2
    assert "--grid-limit: '0' is no number from 1 to 9999999" in err


def test_tests_that_somebody_wrote_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.yaml").write_text("mine")
    words = ("test", "--init", "-f", str(tmp_path / "none"), "-o", str(tmp_path / "t.yaml"))
    (tmp_path / "none").mkdir()
    code, _, err = shown(capsys, *words)
    assert code == 2
    assert err == (
        f"{tmp_path}/t.yaml: the file cannot be written: File exists; "
        "choose another name: tests that somebody wrote are not replaced\n"
    )
    assert (tmp_path / "t.yaml").read_text() == "mine"
