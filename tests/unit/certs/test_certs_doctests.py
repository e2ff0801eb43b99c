"""The examples in the docstrings of certs run and say the truth."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import certs

MODULES = sorted(module.name for module in pkgutil.iter_modules(certs.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"certs.{name}")
    assert doctest.testmod(module).failed == 0


def test_the_public_modules_have_examples() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(f"certs.{name}")).attempted for name in MODULES}
    assert {"spiffe", "svid", "bundle", "authority", "store", "files", "keys", "memory"} <= {
        name for name, count in attempted.items() if count
    }
