"""JSON Patch: what is different is named and nothing else, and it fits where RFC 6902 says."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from injector.jsonpatch import MAX_PAIRS, PatchError, apply, difference


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({}, {"a": None}, [{"op": "add", "path": "/a", "value": None}]),
        ({"a": 1}, {}, [{"op": "remove", "path": "/a"}]),
        ({"a": 1}, {"a": None}, [{"op": "replace", "path": "/a", "value": None}]),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, [{"op": "replace", "path": "/a", "value": {"c": 1}}]),
        ({"a": [1]}, {"a": {}}, [{"op": "replace", "path": "/a", "value": {}}]),
        ([1, 3], [1, 2, 3], [{"op": "add", "path": "/1", "value": 2}]),
        ([1, 2], [1, 2, 3], [{"op": "add", "path": "/2", "value": 3}]),
        ([1, 2, 3], [3], [{"op": "remove", "path": "/0"}, {"op": "remove", "path": "/0"}]),
        ([1, 2, 3], [1, 4, 3], [{"op": "replace", "path": "/1", "value": 4}]),
        (1, 2, [{"op": "replace", "path": "", "value": 2}]),
    ],
    ids=[
        "same",
        "order-of-keys",
        "added-null",
        "removed-key",
        "became-null",
        "nothing-shared",
        "other-kind",
        "inserted",
        "appended",
        "removed-from-the-front",
        "replaced-in-the-middle",
        "whole-document",
    ],
)
def test_a_difference_is_these_operations(old: Any, new: Any, patch: list[dict[str, Any]]) -> None:
    assert difference(old, new) == patch
    assert apply(old, patch) == new


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, 1.0), ("1", 1), (None, False), (None, ""), ([], {})],
    ids=["one-true", "nought-false", "int-float", "text-number", "null-false", "null-empty", "list-mapping"],
)
def test_values_of_other_types_are_not_the_same(one: Any, other: Any) -> None:
    for old, new in ((one, other), (other, one)):
        assert difference({"a": old}, {"a": new}) == [{"op": "replace", "path": "/a", "value": new}]
        [operation] = difference([old], [new])
        assert operation == {"op": "replace", "path": "/0", "value": new}
        assert type(operation["value"]) is type(new)


def test_slash_and_tilde_in_a_key_are_escaped() -> None:
    patch = difference({"a": {}}, {"a": {"x/y~z~1": 1}})
    assert patch == [{"op": "add", "path": "/a/x~1y~0z~01", "value": 1}]
    assert apply({"a": {}}, patch) == {"a": {"x/y~z~1": 1}}


def test_an_empty_key_is_a_key() -> None:
    patch = difference({"": {"": 1}}, {"": {"": 2}})
    assert patch == [{"op": "replace", "path": "//", "value": 2}]
    assert apply({"": {"": 1}}, patch) == {"": {"": 2}}


def test_elements_with_the_same_name_are_the_same_element() -> None:
    old = {"containers": [{"name": "app", "image": "a"}, {"name": "log", "image": "l"}]}
    new = {"containers": [{"name": "proxy"}, {"name": "app", "image": "b"}, {"name": "log", "image": "l"}]}
    assert difference(old, new) == [
        {"op": "add", "path": "/containers/0", "value": {"name": "proxy"}},
        {"op": "replace", "path": "/containers/1/image", "value": "b"},
    ]


def test_a_name_that_is_no_text_does_not_stop_it() -> None:
    old, new = [{"name": 1}, {"name": []}], [{"name": []}, {"name": True}]
    assert apply(old, difference(old, new)) == new


def test_lists_too_long_to_be_aligned_are_compared_place_by_place() -> None:
    size = int(MAX_PAIRS**0.5) + 50
    old = list(range(size))
    new = [*range(1, size), "end"]
    patch = difference(old, new)
    assert len(patch) == size, "not two, for which both lists would have been aligned"
    assert apply(old, patch) == new
    assert len(difference(old[:100], [*old[1:100], "end"])) == 2


def test_neither_document_is_changed() -> None:
    old: Any = {"a": [{"name": "x", "v": [1]}], "b": {}}
    new: Any = {"a": [{"name": "y"}, {"name": "x", "v": [1, 2]}]}
    before = copy.deepcopy((old, new))
    apply(old, difference(old, new))
    assert (old, new) == before


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ({"op": "remove", "path": "/no"}, "'no'"),
        ({"op": "replace", "path": "/no", "value": 1}, "there is no 'no'"),
        ({"op": "add", "path": "/no/deeper", "value": 1}, "'no'"),
        ({"op": "add", "path": "/list/2", "value": 1}, "the list has 1 elements"),
        ({"op": "replace", "path": "/list/1", "value": 1}, "the list has 1 elements"),
        ({"op": "remove", "path": "/list/-"}, "'-' is no index"),
        ({"op": "replace", "path": "/list/00", "value": 1}, "'00' is no index"),
        ({"op": "replace", "path": "/list/-1", "value": 1}, "'-1' is no index"),
        ({"op": "add", "path": "/text/a", "value": 1}, "no list and no mapping"),
        ({"op": "add", "path": "text", "value": 1}, "begins with /"),
        ({"op": "remove", "path": ""}, "cannot be removed"),
        ({"op": "move", "path": "/a", "from": "/text"}, "only add, remove and replace"),
        ({"op": "add", "path": "/a"}, "'value'"),
    ],
    ids=lambda each: f"{each['op']}{each['path'].replace('/', '_')}" if isinstance(each, dict) else "",
)
def test_an_operation_that_does_not_fit_is_refused(operation: dict[str, Any], said: str) -> None:
    with pytest.raises(PatchError, match=r"operation 0 \(") as refused:
        apply({"list": [1], "text": "t"}, [operation])
    assert said in str(refused.value)


def test_the_end_of_a_list_may_be_written_as_a_dash() -> None:
    assert apply({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}]) == {"a": [1, 2]}
