"""Sets of addresses: algebra, and how they are written as blocks with exceptions."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.blocks import EVERYWHERE, NOWHERE, Block, Blocks

small = st.builds(lambda bits, length: f"10.0.0.{bits}/{length}", st.integers(0, 255), st.integers(24, 32)) | st.builds(
    lambda bits, length: f"fd00::{bits:x}/{length}", st.integers(0, 255), st.integers(120, 128)
)
sets = st.lists(small, max_size=5).map(Blocks.of)
UNIVERSE = [f"10.0.0.{i}" for i in range(256)] + [f"fd00::{i:x}" for i in range(256)]


def members(blocks: Blocks) -> set[str]:
    return {address for address in UNIVERSE if address in blocks}


@given(sets, sets)
def test_the_algebra_is_that_of_sets(one: Blocks, other: Blocks) -> None:
    assert members(one | other) == members(one) | members(other)
    assert members(one & other) == members(one) & members(other)
    assert members(one - other) == members(one) - members(other)


@given(sets, sets)
def test_equal_sets_are_equal_however_they_were_made(one: Blocks, other: Blocks) -> None:
    assert (one | other) - other == one - other
    assert (one == other) is (members(one) == members(other))


@given(sets, sets)
def test_what_is_written_is_the_set(one: Blocks, other: Blocks) -> None:
    for found in (one, EVERYWHERE - one, one - other):
        written = NOWHERE
        for block in found.blocks():
            inside = Blocks.of([block.cidr])
            excepted = Blocks.of(block.excepted)
            assert excepted - inside == NOWHERE
            assert excepted != inside
            assert not inside & written
            written |= inside - excepted
        assert written == found


@pytest.mark.parametrize(
    ("inside", "without", "written"),
    [
        (["10.0.0.0/8"], [], [Block("10.0.0.0/8")]),
        (["10.0.0.0/8"], ["10.1.0.0/16", "10.2.3.4"], [Block("10.0.0.0/8", ("10.1.0.0/16", "10.2.3.4/32"))]),
        (["10.0.0.0/9", "10.128.0.0/9"], [], [Block("10.0.0.0/8")]),
        (["203.0.113.7"], [], [Block("203.0.113.7/32")]),
        (["10.0.0.0/31"], ["10.0.0.1"], [Block("10.0.0.0/32")]),
        (["10.1.2.3/8"], [], [Block("10.0.0.0/8")]),
        (["fd00::/8", "192.168.0.0/16"], ["fd00::1"], [Block("192.168.0.0/16"), Block("fd00::/8", ("fd00::1/128",))]),
        (["::/0"], ["::/1"], [Block("8000::/1")]),
        (["::1"], [], [Block("::1/128")]),
        (["10.0.0.0/8"], ["0.0.0.0/0"], []),
    ],
)
def test_a_set_is_written_in_as_few_networks_as_that_takes(
    inside: list[str], without: list[str], written: list[Block]
) -> None:
    assert list((Blocks.of(inside) - Blocks.of(without)).blocks()) == written


def test_everywhere_is_two_blocks() -> None:
    assert [str(block) for block in EVERYWHERE.blocks()] == ["0.0.0.0/0", "::/0"]


def test_an_address_of_ipv4_inside_ipv6_is_the_ipv4_address() -> None:
    assert "::ffff:10.0.0.1" in Blocks.of(["10.0.0.0/8"])
    assert Blocks.of(["::ffff:10.0.0.0/104"]) == Blocks.of(["10.0.0.0/8"])


def test_what_is_no_address_is_in_no_set() -> None:
    assert "here" not in EVERYWHERE
    assert ipaddress.ip_address("10.0.0.1") not in EVERYWHERE


def test_a_set_speaks_for_people() -> None:
    assert str(Blocks.of(["10.0.0.0/8"]) - Blocks.of(["10.1.0.0/16"])) == "10.0.0.0/8 except 10.1.0.0/16"
    assert str(NOWHERE) == "no address"


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix length"):
        Blocks.of(["10.0.0.0/33"])
