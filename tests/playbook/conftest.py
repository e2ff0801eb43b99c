"""The stage as a fixture: looked at once more when the play is over. Each play is given by both parsers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stage import Stage


@pytest.fixture(autouse=True, params=[True, False], ids=["fast", "gate"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose who reads heads."""
    monkeypatch.setattr(Stage, "reads_fast", request.param)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """An empty stage."""
    made = Stage()
    yield made
    made.check()
    made.close()
