"""The record of an injection: what it holds comes back, and one that is forged is refused with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from injector import names
from injector.record import MAX_BYTES, Record, RecordError, read_record, take_out

RECORD = Record(
    containers=("remora-proxy",),
    volumes=("remora-pod",),
    annotations=(names.STATUS, "new"),
    covers=("app",),
    annotations_before={"old": "1"},
    actions={"app": {"livenessProbe": {"exec": {}}}},
    lists={"volumes": None},
    metadata={},
)


def read(change: Any) -> Record | None:
    return read_record({names.STATUS: json.dumps({**json.loads(RECORD.text()), **change})})


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_record({names.STATUS: RECORD.text()}) == RECORD
    assert "\n" not in RECORD.text()


@pytest.mark.parametrize(
    "change",
    [
        {"before": []},
        {"before": "x"},
        {"before": {"annotations": [], "actions": {}, "lists": {}, "metadata": {}}},
        {"before": {"annotations": {}, "actions": "x", "lists": {}, "metadata": {}}},
        {"before": {"annotations": {}, "actions": {"app": {"image": "evil"}}, "lists": {}, "metadata": {}}},
        {"before": {"annotations": {}, "actions": {}, "lists": 5, "metadata": {}}},
        {"containers": "remora-proxy"},
        {"containers": [1]},
        {"covers": None},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_part_of_the_wrong_type_is_refused(change: Any) -> None:
    with pytest.raises(RecordError, match="holds no record of an injection"):
        read(change)


@pytest.mark.parametrize("value", ["", "{", "[]", "5", "null", "[" * 100_000, 5, None, {}, "x" * (MAX_BYTES + 1)])
def test_what_is_no_record_is_refused(value: object) -> None:
    with pytest.raises(RecordError, match=r"remora.io/status holds no record .* remove it"):
        read_record({names.STATUS: value})


def test_another_version_is_named() -> None:
    with pytest.raises(RecordError, match=r"written by another version \(2\)"):
        read({"version": 2})


def test_what_was_added_goes_and_what_was_changed_comes_back() -> None:
    metadata = {"annotations": {"old": "2", "new": "x", "later": "y", names.STATUS: "s"}}
    spec = {
        "containers": [{"name": "app", "livenessProbe": {"httpGet": {}}}, {"name": "remora-proxy"}, "odd"],
        "volumes": [{"name": "remora-pod"}],
    }
    assert take_out(metadata, spec, RECORD) == (
        {"annotations": {"old": "1", "later": "y"}},
        {"containers": [{"name": "app", "livenessProbe": {"exec": {}}}, "odd"], "volumes": None},
    )


def test_a_container_that_came_later_is_not_covered() -> None:
    spec = {"initContainers": [{"name": "remora-proxy"}], "containers": [{"name": "app"}]}
    assert RECORD.covers_all(spec)
    assert not RECORD.covers_all({**spec, "containers": [{"name": "app"}, {"name": "later"}]})
