"""The examples in the docstrings of explanations run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "proxy.answers.asked",
    "proxy.answers.editing.edit",
    "proxy.answers.question",
    "proxy.answers.reading",
    "proxy.answers.steps",
    "proxy.answers.editing.writing",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
