"""Every vector that is HTTP, sent through a real sidecar: the answer, the rule in the log, the path that arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from mesh import Mesh
from policy_vectors import Case, Settings
from vectors_driven import Driven, differences, groups_of, name_of, settings_with


@pytest.mark.asyncio
@pytest.mark.parametrize("settings", settings_with(opaque=False), ids=name_of)
async def test_vectors(mesh: Mesh, settings: Settings) -> None:
    driven = await Driven.start(mesh, settings)
    answered: list[tuple[Case, Case]] = []
    arrived: list[str] = []
    for group in groups_of(settings):
        driven.take(group)
        for case in group.cases:
            if not case.opaque:
                found = await driven.request(group, case)
                answered.append((found, case))
                if found.answer == 200:
                    arrived.append(driven.backend.requests[-1].target.decode("latin-1").partition("?")[0])
    records = iter(await driven.orders.records(driven.requests, kind="request"))
    pairs = []
    for found, case in answered:
        if found.answer:
            record = next(records)
            assert record["response_code"] == found.answer
            found = with_record(found, record)
            if found.answer == 200:
                # What policy judged is what the application got.
                assert record["path"].partition("?")[0] == arrived.pop(0)
        pairs.append((found, case))
    assert differences(pairs) == []


def with_record(found: Case, record: dict[str, Any]) -> Case:
    """Add what the access log tells: the rule that decided, and what others would have done."""
    noted = (record["explanation"] or "").partition("audited by ")[2]
    return replace(
        found,
        rule=record["policy"] if found.rule is not None else None,
        audited=tuple(noted.split(", ") if noted else ()) if found.audited is not None else None,
    )
