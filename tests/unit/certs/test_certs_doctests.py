"""The examples in the docstrings of certs run and say the truth."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import certs

MODULES = sorted(module.name for module in pkgutil.walk_packages(certs.__path__, "certs."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_the_public_modules_have_examples() -> None:
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in MODULES}
    public = {"spiffe", "svid", "bundle", "authority", "store", "files", "keys", "memory", "rotation", "state"}
    assert {f"certs.{name}" for name in public} <= {name for name, count in attempted.items() if count}
