"""The examples of the documentation run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "proxy.documents.checker",
    "proxy.documents.node",
    "proxy.documents.reader",
    "proxy.policy.claims",
    "proxy.policy.facts",
    "proxy.policy.lint.boolean",
    "proxy.policy.lint.known",
    "proxy.policy.lint.sets",
    "proxy.policy.load",
    "proxy.policy.principals",
    "proxy.policy.snapshot",
    "proxy.policy.templates",
    "proxy.policy.values",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
