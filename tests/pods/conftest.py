"""Fixtures of the tests with containers: podman, and the image from the sources as they are."""

from __future__ import annotations

import pytest
from podman import IMAGE, Podman


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    made = Podman(tmp_path_factory.mktemp("podman"))
    made.build(IMAGE)
    return made
