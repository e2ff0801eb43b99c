"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from mesh import Mesh


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh of this test's own; everything that it made is closed afterwards."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        await made.close()
