"""Fields of endpoints as a fixture: what still waits is dropped when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from balance_field import Field


@pytest.fixture
def fields() -> Iterator[Callable[..., Field]]:
    """Make fields of endpoints, given by their numbers."""
    made: list[Field] = []

    def make(*numbers: int, **more: Any) -> Field:
        made.append(Field(*numbers, **more))
        return made[-1]

    yield make
    for field in made:
        field.close()
