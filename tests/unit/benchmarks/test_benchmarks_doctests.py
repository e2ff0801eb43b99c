"""The examples in the docstrings of the benchmarks' arithmetic run."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from benchmarks import figures, host, load, memory, scrape


@pytest.mark.parametrize("module", [figures, host, load, memory, scrape], ids=lambda module: module.__name__)
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
