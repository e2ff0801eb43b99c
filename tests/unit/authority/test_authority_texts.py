"""The examples of the authority's modules are true, and the texts of its command line are read strictly."""

from __future__ import annotations

import argparse
import doctest
import importlib

import pytest

from proxy.authority.texts import read_duration, read_rate


def test_examples() -> None:
    result = doctest.testmod(importlib.import_module("proxy.authority.texts"))
    assert (result.failed, result.attempted > 2) == (0, True)


@pytest.mark.parametrize("text", ["", "24", "h", "0s", "-1h", "1.5h", "24 h", "99999999d", "1w", "１h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write a number and a unit"):
        read_duration(text)


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "0:1", "1:0", "fast:1", "nan:1", "1:1:1"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="PER_SECOND:BURST"):
        read_rate(text)
