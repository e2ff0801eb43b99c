"""Manifests as people write them: what kubectl reads is read, what nobody changed keeps every byte."""

from __future__ import annotations

import pytest

from injector.documents import MAX_BYTES, Part, join, split
from proxy.errors import ConfigError


def values(text: str) -> list[object]:
    return [part.value for part in split(text.encode(), "m.yaml")]


def refused(data: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        split(data, "m.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e3", 1000.0),
        ("1E5", 100000.0),
        ("on", True),
        ("No", False),
        ("y", "y"),
        ("0o644", 0o644),
        ("-0o7", -7),
        ("0o8", "0o8"),
        ("0644", 0o644),
        ("09", 9),
        ("0x1F", 31),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("=", "="),
        ("~", None),
        ("'1e3'", "1e3"),
    ],
)
def test_a_scalar_is_read_as_kubectl_reads_it(written: str, read: object) -> None:
    [value] = values(f"a: {written}")
    assert value == {"a": read}
    assert type(value["a"]) is type(read)  # type: ignore[index]


def test_a_key_that_is_a_number_or_a_boolean_is_its_text() -> None:
    assert values("1: a\non: b\n1e3: c\n0.5: d") == [{"1": "a", "true": "b", "1000": "c", "0.5": "d"}]


def test_merge_keys_are_followed_and_the_own_key_wins() -> None:
    assert values("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}") == [{"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}]


def test_merge_keys_that_multiply_are_refused_where_they_stand() -> None:
    keys = "a: &a {" + ", ".join(f"k{number}: 1" for number in range(1000)) + "}\n"
    merged = "\n".join(["b:", *["- <<: *a"] * 1010])
    assert "m.yaml:1004:3: more than 1000000 values by merge keys (<<)" in refused(f"{keys}{merged}".encode())


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}]),
        ("--- {a: 1}\n", [{"a": 1}]),
        ("---a: 1\n", [{"---a": 1}]),
        ("--- # said\na: 1\n...\n---\nb: 2", [{"a": 1}, {"b": 2}]),
        ("\ufeff---\na: 1", [{"a": 1}]),
        ("\ufeffa: 1", [{"a": 1}]),
        ("a: 1\r\n---\r\nb: 2\r\n", [{"a": 1}, {"b": 2}]),
        ("a: |\n  x\n  ---\n---\nb: 2", [{"a": "x\n---\n"}, {"b": 2}]),
        ("%YAML 1.1\n---\na: 1", [{"a": 1}]),
        ("---\n---\nnull\n", [None, None]),
        ("# nothing\n", [None]),
        ("", []),
    ],
)
def test_documents_are_parted_at_separators_and_kept_byte_for_byte(text: str, read: list[object]) -> None:
    parts = split(text.encode(), "m.yaml")
    assert [part.value for part in parts] == read
    assert join([(part, part.value) for part in parts]) == text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: 1\na: 2", 'm.yaml:2:1: the key "a" stands twice'),
        (b"x: 1\n---\n{b: 1, b: 2}", 'm.yaml:3:8: the key "b" stands twice'),
        (b'{"a": 1,\n "a": 2}', 'm.yaml:2:2: the key "a" stands twice'),
        (b"1: a\n'1': b", 'm.yaml:2:1: the key "1" stands twice'),
        (b"a:\n\tb: 1", "m.yaml:2:1: "),
        (b"? [a]\n: b", "m.yaml:1:3: a key is a list or a mapping"),
        (b"null: x", "m.yaml:1:1: a key is null"),
        (b"a: *nope", "m.yaml:1:4: found undefined alias"),
        (b"a: !!python/object:os.system x", "m.yaml:1:4: could not determine a constructor"),
        (b"a: !!binary aGk=", "a type that JSON does not have (bytes)"),
        (b"a: .inf", "infinite"),
        (b'{"a": NaN}', "infinite"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b"ok: 1\n\xff", "m.yaml:2:1: this is not UTF-8"),
        (b'{"a": 1}\n{"b": 2}', "m.yaml:2:1: "),
        (b"a: " + b"9" * 5000, "m.yaml:1:1: "),
        (b"[" * 5000, "m.yaml:1:1: more than 100 levels"),
        (b"a: &r [*r]", "more than 100 levels"),
        (b" " * (MAX_BYTES + 1), "split it into several files"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "data",
)
def test_what_cannot_be_read_is_refused_with_its_place(data: bytes, said: str) -> None:
    assert said in refused(data)


def test_an_alias_bomb_is_refused_and_not_unfolded() -> None:
    lines = [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 14)]
    assert "aliases followed, are not read" in refused(("a0: &a0 [1]\n" + "".join(lines)).encode())


def joined(*files: bytes, change: int | None = None) -> list[object]:
    parts: list[Part] = [part for data in files for part in split(data, "m.yaml")]
    text = join([(part, {"new": 1} if place == change else part.value) for place, part in enumerate(parts)])
    return values(text)


@pytest.mark.parametrize("change", [None, 0, 1])
@pytest.mark.parametrize(
    "second",
    [
        b"b: 2\n",
        b"--- {b: 2}",
        b"\xef\xbb\xbfb: 2",
        b"%YAML 1.1\n---\nb: 2",
        b"# of this\n%YAML 1.1\n---\nb: 2",
        b'{"b": 2}',
    ],
    ids=["plain", "on-the-line", "mark", "directive", "comment-directive", "json"],
)
@pytest.mark.parametrize("first", [b"a: 1", b"a: 1\n", b"a: 1\n...\n"], ids=["cut", "whole", "ended"])
def test_two_files_stay_two_documents(first: bytes, second: bytes, change: int | None) -> None:
    read: list[object] = [{"a": 1}, {"b": 2}]
    if change is not None:
        read[change] = {"new": 1}
    assert joined(first, second, change=change) == read


def test_a_changed_document_keeps_its_form_and_the_others_their_comments() -> None:
    parts = split(b'# one\na: 1 # here\n---\n{"b":2}', "m.yaml")
    assert join([(parts[0], parts[0].value), (parts[1], {"b": 3})]) == '# one\na: 1 # here\n---\n{\n  "b": 3\n}\n'


def test_lines_are_counted_over_the_whole_file() -> None:
    assert [part.line for part in split(b"a: 1\n---\nb: 2\n--- {c: 3}\n", "m.yaml")] == [1, 3, 4]
