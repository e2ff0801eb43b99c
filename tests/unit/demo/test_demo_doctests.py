"""The examples in the docstrings of the demo run and say the truth."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["authority", "callers", "inside", "picture", "records", "rotation", "screen"])
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"demo.{name}"))
    assert outcome.attempted
    assert outcome.failed == 0
