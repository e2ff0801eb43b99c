"""Values written as YAML: every reader gets the same values back."""

from __future__ import annotations

import pytest
import yaml

from injector.yaml_text import dump

TRAPS = (
    "1e3",
    "0o17",
    "017",
    "09",
    "on",
    "y",
    "N",
    "~",
    "",
    "null",
    "1:30",
    "2020-01-01",
    "=",
    "<<",
    "- a",
    "a: b",
    "#",
    ".5",
    "0x1F",
)


@pytest.mark.parametrize("text", TRAPS)
def test_text_that_looks_like_something_else_is_in_quotes(text: str) -> None:
    assert dump({"a": text}).removeprefix("a: ")[0] in "'\""
    assert yaml.safe_load(dump({"a": text})) == {"a": text}


def test_text_of_several_lines_is_a_block() -> None:
    assert dump({"a": "x\ny\n"}) == "a: |\n  x\n  y\n"


@pytest.mark.parametrize("text", ["x \ny\n", "\nx", " x\ny", "x\ty\nz", "x\r\ny", "\x85\n", "\ufeff\nx"])
def test_text_that_a_block_would_change_is_none(text: str) -> None:
    assert "|" not in dump({"a": text})
    assert yaml.safe_load(dump({"a": text})) == {"a": text}


def test_a_long_line_is_not_folded() -> None:
    assert dump({"a": "word " * 100 + "end"}).count("\n") == 1


def test_two_uses_of_one_list_are_two_lists_and_keys_keep_their_order() -> None:
    shared = [1]
    assert dump({"b": shared, "a": shared}) == "b:\n- 1\na:\n- 1\n"
