"""The stage as a fixture: looked at once more when the play is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stage import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    """An empty stage."""
    made = Stage()
    yield made
    made.check()
    made.close()
