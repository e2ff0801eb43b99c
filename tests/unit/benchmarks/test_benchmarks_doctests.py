"""The examples in the docstrings of the benchmarks' arithmetic run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "authority_report",
    "comparison",
    "compiled",
    "drive",
    "figures",
    "host",
    "load",
    "matrix",
    "memory",
    "open_loop",
    "scrape",
    "tables",
    "tcp_load",
    "webhook_calls",
    "wiring",
    "workers_report",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
