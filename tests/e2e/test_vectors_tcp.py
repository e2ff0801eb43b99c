"""Every vector that is opaque, through a real sidecar: bytes come back, or the connection is closed."""

from __future__ import annotations

import pytest
from mesh import Mesh
from policy_vectors import Settings
from vectors_driven import Driven, differences, groups_of, name_of, settings_with


@pytest.mark.asyncio
@pytest.mark.parametrize("settings", settings_with(opaque=True), ids=name_of)
async def test_vectors(mesh: Mesh, settings: Settings) -> None:
    driven = await Driven.start(mesh, settings)
    pairs = []
    for group in groups_of(settings):
        driven.take(group)
        pairs += [(await driven.opaque(group, case), case) for case in group.cases if case.opaque]
    assert differences(pairs) == []
