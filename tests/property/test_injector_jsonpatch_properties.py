"""JSON Patch of documents of any shape: applied to the old one it gives the new one, and it says nothing needless."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from injector.jsonpatch import apply, difference, is_same

KEYS = st.sampled_from(("name", "a", "b", "", "/", "~", "~1", "0", "-"))
SCALARS = st.sampled_from((None, True, False, 0, 1, 1.0, 0.0, -0.0, "", "1", "a", "app"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcde")}, optional={"v": SCALARS, "w": VALUES}), max_size=6
)


@given(VALUES | NAMED, VALUES | NAMED)
def test_applied_to_the_old_it_gives_the_new(old: Any, new: Any) -> None:
    before = copy.deepcopy((old, new))
    patch = json.loads(json.dumps(difference(old, new)))
    assert is_same(apply(old, patch), new)
    assert is_same(old, before[0])
    assert is_same(new, before[1])


@given(NAMED, NAMED)
def test_lists_of_named_elements_too(old: Any, new: Any) -> None:
    assert is_same(apply({"x": old}, difference({"x": old}, {"x": new})), {"x": new})


@given(VALUES)
def test_the_same_document_needs_no_operation(value: Any) -> None:
    assert difference(value, copy.deepcopy(value)) == []


@given(VALUES, VALUES)
def test_no_operation_means_the_same_document(old: Any, new: Any) -> None:
    assert (difference(old, new) == []) == is_same(old, new)


@given(st.lists(SCALARS, max_size=8), st.integers(0, 8), SCALARS)
def test_one_element_more_is_one_operation(values: list[Any], place: int, value: Any) -> None:
    longer = [*values[:place], value, *values[place:]]
    [operation] = difference(values, longer)
    assert operation["op"] == "add"
    [operation] = difference(longer, values)
    assert operation["op"] == "remove"
