"""The edit of the tour is a policy that shuts the ledger, and it never stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import edit
from demo.layout import EDIT, Layout
from demo.prepare import prepare
from proxy.config import load_config
from proxy.material import compile_policy, read_policy
from proxy.types import Generation


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(directory=tmp_path, base=21_000)
    prepare(made)
    return made


def test_it_is_one_more_file_that_shuts_what_another_allows(layout: Layout) -> None:
    before = {path.name for path in layout.policies.iterdir()}
    edit.make(layout)
    assert {path.name for path in layout.policies.iterdir()} - before == {EDIT}
    config = load_config(layout.configuration("ledger").read_bytes(), "ledger")
    warnings = compile_policy(config, read_policy(config), Generation(1)).warnings
    assert [warning.code for warning in warnings] == ["RM0305"], "a DENY that covers an ALLOW, which is its purpose"


def test_it_goes_whatever_ends_the_tour(layout: Layout) -> None:
    def interrupted() -> None:
        with edit.undone(layout):
            edit.make(layout)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (layout.policies / EDIT).exists()


def test_undoing_what_was_not_done_is_no_fault(layout: Layout) -> None:
    with edit.undone(layout):
        pass


def test_what_comes_of_it_is_expected_step_by_step() -> None:
    cut, denied, again = edit.STEPS
    assert [step.allowed for step in edit.STEPS] == [False, False, True]
    assert {verdict.policy for verdict in cut.verdicts} == {"ns[shop]-policy[ledger-shut]-rule[0]"}
    assert [verdict.by for verdict in denied.verdicts] == ["orders", "ledger"]
    assert [verdict.by for verdict in again.verdicts] == ["orders", "ledger"]
