"""The table of limits: defaults, bounds and documentation are one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from proxy.config import Limits, load_config
from proxy.constants import NODE_KEEP_ALIVE, POD_GRACE_PERIOD
from proxy.errors import ConfigError, Reason
from proxy.limits import Limit, Unit, limits_markdown, limits_table, written
from proxy.protocol.stream import HeadLimits

ROWS = limits_table()
PROXY = Path(__file__).parents[2] / "proxy"
README = PROXY / "README.md"
BASE = """\
workload: {namespace: demo, service_account: orders}
identity: {files: {directory: /keys}}
policy: {directory: /policy}
"""


def load(limits: str) -> Limits:
    return load_config(f"{BASE}limits: {{{limits}}}\n".encode(), "remora.yaml").limits


def test_each_field_has_a_row_and_its_default() -> None:
    assert [row.name for row in ROWS] == [field.name for field in dataclasses.fields(Limits)]
    defaults = Limits()
    for row in ROWS:
        value = getattr(defaults, row.name)
        assert value == row.default
        assert isinstance(value, float if row.unit is Unit.SECONDS else int), row.name


# The water marks bound each other: beside each, the others stand where they leave it room.
BESIDE = {
    "buffer_low_water": ", buffer_high_water: 16MiB, buffer_limit: 256MiB",
    "buffer_high_water": ", buffer_low_water: 0, buffer_limit: 256MiB",
    "buffer_limit": ", buffer_low_water: 0, buffer_high_water: 16KiB",
}


def number(value: float, unit: Unit) -> str:
    return f"{value:g}s" if unit is Unit.SECONDS else str(int(value))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_bounds_are_allowed(row: Limit) -> None:
    assert row.minimum <= row.default <= row.maximum
    for value in (row.minimum, row.maximum - (1 if row.name == "buffer_low_water" else 0)):
        limits = load(f"{row.name}: {number(value, row.unit)}{BESIDE.get(row.name, '')}")
        assert getattr(limits, row.name) == pytest.approx(value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_lies_beyond_the_bounds_is_refused(row: Limit) -> None:
    below = row.minimum / 2 if row.unit is Unit.SECONDS else row.minimum - 1
    for value in (below, row.maximum + 1):
        if row.minimum == 0 and value == below:
            continue
        with pytest.raises(ConfigError, match=rf"`limits\.{row.name}` must be between"):
            load(f"{row.name}: {number(value, row.unit)}{BESIDE.get(row.name, '')}")


def test_each_row_names_its_reason_and_says_why() -> None:
    for row in ROWS:
        assert isinstance(row.reason, Reason)
        assert row.reason is not Reason.OK
        assert row.meaning
        assert row.why


# `service_timeout` becomes `Service.timeout` when the file is read: test_config.py shows it.
@pytest.mark.parametrize("row", [row for row in ROWS if row.name != "service_timeout"], ids=lambda row: row.name)
def test_each_limit_is_asked_for_somewhere(row: Limit) -> None:
    own = ("limits.py", "config.py", "config_checker.py")
    sources = [path.read_text() for path in PROXY.rglob("*.py") if path.name not in own]
    used = re.compile(rf"\blimits\.{row.name}\b")
    assert any(used.search(source) for source in sources), f"nothing looks at limits.{row.name}: it limits nothing"


def test_the_documentation_is_the_table() -> None:
    text = README.read_text()
    assert limits_markdown() in text, (
        "proxy/README.md lacks the table of limits or has an old one; take it from "
        "`python -c 'from proxy.limits import limits_markdown; print(limits_markdown())'`"
    )


def test_the_table_is_well_formed_markdown() -> None:
    lines = limits_markdown().splitlines()
    assert len(lines) == len(ROWS) + 2
    assert {line.count("|") for line in lines} == {8}


def test_defaults_that_must_fit_what_is_outside() -> None:
    limits = Limits()
    assert limits.upstream_idle_timeout < NODE_KEEP_ALIVE
    assert limits.drain_timeout < POD_GRACE_PERIOD
    assert limits.buffer_low_water < limits.buffer_high_water < limits.buffer_limit
    assert HeadLimits() == HeadLimits(head_bytes=limits.head_bytes, fields=limits.head_fields)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (10_000, Unit.COUNT, "10000"),
        (61_440, Unit.BYTES, "60KiB"),
        (1_048_576, Unit.BYTES, "1MiB"),
        (1_000, Unit.BYTES, "1000"),
        (0, Unit.BYTES, "0"),
        (0.2, Unit.SECONDS, "0.2s"),
        (3_600.0, Unit.SECONDS, "3600s"),
    ],
)
def test_numbers_are_written_as_they_are_read(value: float, unit: Unit, text: str) -> None:
    assert written(value, unit) == text
