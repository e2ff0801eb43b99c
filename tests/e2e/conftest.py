"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from injector_process import InjectorProcess
from mesh import Mesh


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[InjectorProcess]:
    """A webhook of this test's own, its certificate issued, not started yet."""
    made = InjectorProcess(tmp_path)
    made.issue()
    try:
        yield made
    finally:
        made.stop()


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh of this test's own; everything that it made is closed afterwards."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        await made.close()
