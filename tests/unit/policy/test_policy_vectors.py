"""The engine's answer to every vector; the same files go through real sidecars in `tests/e2e/test_vectors_*.py`."""

from __future__ import annotations

import pytest
from policy_vectors import Case, Group, compiled, groups, judged

from proxy.errors import ConfigError

GROUPS = groups()


def told(case: Case) -> str:
    return f"{case.answer} rule {case.rule} path {case.path} audited {case.audited}"


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_a_vector(group: Group) -> None:
    if group.rejected:
        with pytest.raises(ConfigError) as caught:
            compiled(group)
        assert group.rejected in str(caught.value)
        return
    snapshot = compiled(group)
    different = [(judged(snapshot, group, case), case) for case in group.cases]
    assert [f"{case}: {told(found)} and not {told(case)}" for found, case in different if found != case] == []


def test_there_are_many() -> None:
    assert sum(len(group.cases) for group in GROUPS) > 900
    assert len(GROUPS) > 60
