"""The examples in the docstrings of the benchmarks' arithmetic run."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from benchmarks import (
    comparison,
    compiled,
    drive,
    figures,
    host,
    load,
    matrix,
    memory,
    open_loop,
    scrape,
    tables,
    tcp_load,
    wiring,
    workers_report,
)

MODULES = [
    comparison,
    compiled,
    drive,
    figures,
    host,
    load,
    matrix,
    memory,
    open_loop,
    scrape,
    tables,
    tcp_load,
    wiring,
    workers_report,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
