"""Changes of a file's text: only the lines that must change do, whatever the layout, and nothing is guessed."""

from __future__ import annotations

import pytest

from proxy.answers.editing.layout import Append, Change, Put, Remove, changed, policy_path, value_at

FILE = b"""\
# above
spec:
  rules:   # rules
  - from:
    - source:
        principals: [a/b,
                     "c"]  # who
    to:
    - operation:
        methods:
        - GET   # only

        # between
        paths: []
  # end
---
{"a": [{"b": ["x"]}], "c": {}}
"""
RULE = {"from": [{"source": {"principals": ["a"]}}], "to": [{"operation": {"methods": ["GET"]}}]}
FIRST = (0, "spec", "rules", 0)


def lines(content: bytes, change: Change) -> tuple[list[str], list[str]]:
    """Make a change and give the lines that went and those that came."""
    result = changed(content, change)
    assert result is not None
    before, after = content.decode().split("\n"), result.decode().split("\n")
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return before, after


@pytest.mark.parametrize(
    ("change", "gone", "come"),
    [
        (
            Append(at=(*FIRST, "from", 0, "source", "principals"), value="zz"),
            ['                     "c"]  # who'],
            ['                     "c",', '                     "zz"]  # who'],
        ),
        (Append(at=(*FIRST, "to", 0, "operation", "methods"), value="yes"), [], ['        - "yes"']),
        (
            Append(at=(*FIRST, "to", 0, "operation", "paths"), value="/a"),
            ["        paths: []"],
            ["        paths: [/a]"],
        ),
        (
            Append(at=(0, "spec", "rules"), value=RULE),
            [],
            [
                "  - from:",
                "    - source:",
                '        principals: ["a"]',
                "    to:",
                "    - operation:",
                '        methods: ["GET"]',
            ],
        ),
        (Put(at=(*FIRST, "from", 0, "source"), key="notPrincipals", value=["p"]), [], ['        notPrincipals: ["p"]']),
        (
            Put(at=FIRST, key="when", value=[{"key": "a", "values": ["1"]}]),
            [],
            ["    when:", "    - key: a", '      values: ["1"]'],
        ),
        (
            Remove(at=(*FIRST, "from", 0, "source", "principals"), index=0),
            ["        principals: [a/b,", '                     "c"]  # who'],
            ['        principals: ["c"]  # who'],
        ),
        (
            Remove(at=(*FIRST, "from", 0, "source", "principals"), index=1),
            ["        principals: [a/b,", '                     "c"]  # who'],
            ["        principals: [a/b]  # who"],
        ),
        (
            Append(at=(1, "a", 0, "b"), value="y"),
            ['{"a": [{"b": ["x"]}], "c": {}}'],
            ['{"a": [{"b": ["x", "y"]}], "c": {}}'],
        ),
        (
            Put(at=(1, "a", 0), key="k", value={"l": ["m"]}),
            ['{"a": [{"b": ["x"]}], "c": {}}'],
            ['{"a": [{"b": ["x"], "k": {"l": ["m"]}}], "c": {}}'],
        ),
        (
            Put(at=(1, "c"), key="k", value=["m"]),
            ['{"a": [{"b": ["x"]}], "c": {}}'],
            ['{"a": [{"b": ["x"]}], "c": {k: [m]}}'],
        ),
    ],
)
def test_only_these_lines_change(change: Change, gone: list[str], come: list[str]) -> None:
    assert lines(FILE, change) == (gone, come)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\n# last\n", b"   # beside"])
def test_a_list_at_the_end_of_the_file(end: bytes) -> None:
    result = changed(b"a:\n- x" + end, Append(at=(0, "a"), value="z"))
    assert result is not None
    assert result.startswith(b"a:\n- x")
    assert b"\n- z" in result
    assert result.endswith(end) or end in (b"", b"   # beside")


def test_the_ends_of_lines_and_the_mark_are_kept() -> None:
    result = changed(b"\xef\xbb\xbfa:\r\n  - x\r\n", Append(at=(0, "a"), value="z"))
    assert result == b"\xef\xbb\xbfa:\r\n  - x\r\n  - z\r\n"


def test_an_item_of_a_block_goes_with_its_line() -> None:
    content = b"a:\n- x  # one\n- y\n- z\n"
    assert changed(content, Remove(at=(0, "a"), index=0)) == b"a:\n- y\n- z\n"
    assert changed(content, Remove(at=(0, "a"), index=2)) == b"a:\n- x  # one\n- y\n"
    assert changed(b"a:\n- x\n- y", Remove(at=(0, "a"), index=1)) == b"a:\n- x"


def test_pretty_json_stays_pretty() -> None:
    content = b'{\n\t"a": [\n\t\t"x"\n\t],\n\t"b": {\n\t\t"c": "d"\n\t}\n}\n'
    assert changed(content, Append(at=(0, "a"), value="y")) == content.replace(b'"x"', b'"x",\n\t\t"y"')
    assert changed(content, Put(at=(0, "b"), key="e", value="f")) == content.replace(b'"d"', b'"d",\n\t\t"e": "f"')


def test_values_are_quoted_as_those_beside_them() -> None:
    assert changed(b"a: ['x']", Append(at=(0, "a"), value="y z")) == b"a: ['x', 'y z']"
    assert changed(b"a: ['x']", Append(at=(0, "a"), value="y'z")) == b"""a: ['x', "y'z"]"""
    assert changed(b"a: [x]", Append(at=(0, "a"), value="8080")) == b'a: [x, "8080"]'
    assert changed(b"a: [x]", Append(at=(0, "a"), value="b\u0085")) == b'a: [x, "b\\u0085"]'


@pytest.mark.parametrize(
    ("content", "change"),
    [
        (b"a: [x]", Append(at=(0, "b"), value="y")),
        (b"a: [x]", Append(at=(1, "a"), value="y")),
        (b"a: [x]", Append(at=(0, "a", 0), value="y")),
        (b"a: [x]", Append(at=(0, "a", 3), value="y")),
        (b"a: [x]", Append(at=(0, "a", "b"), value="y")),
        (b"a: [x]", Put(at=(0, "a"), key="k", value="y")),
        (b"a: [x]", Remove(at=(0, "a"), index=0)),
        (b"a:\r- x\r", Append(at=(0, "a"), value="y")),
        ("a: [x] # \u2028".encode(), Append(at=(0, "a"), value="y")),
        (b"a: [.nan]", Append(at=(0, "a"), value="y")),
    ],
)
def test_what_cannot_be_changed_is_left_alone(content: bytes, change: Change) -> None:
    assert changed(content, change) is None


def test_the_way_to_a_policy() -> None:
    content = b"kind: A\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n"
    assert policy_path(content, 0, (1, 1)) == (0,)
    assert policy_path(content, 1, (6, 3)) == (1, "items", 1)
    assert policy_path(content, 1, (9, 9)) is None
    assert policy_path(content, 0, (9, 9)) is None
    assert policy_path(content, 7, (1, 1)) is None
    assert value_at(content, (1, "items", 1, "kind")) == "C"
    assert value_at(content, (1, "items", 7)) is None
