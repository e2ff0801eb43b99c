"""YAML read with places, and the checks that configuration and policy share."""

from __future__ import annotations

from typing import Any

import pytest

import proxy.documents.reader as reader
from proxy.documents import MAX_BYTES, MAX_DEPTH, MAX_FAULTS, Checker, Node, did_you_mean, parse, quoted, shown


def plain(node: Node) -> Any:
    """Strip the places off a tree."""
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    return node.value


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with both parsers of PyYAML: the fallback must read the same language."""
    if request.param == "C" and not reader.HAS_C_LOADER:
        pytest.skip("PyYAML has no C parser here")
    monkeypatch.setattr(reader, "HAS_C_LOADER", request.param == "C")
    return str(request.param)


def read(text: bytes) -> Any:
    documents, faults = parse(text, "f.yaml")
    assert faults == []
    (document,) = documents
    return plain(document)


def faults_of(text: bytes) -> list[str]:
    return [str(fault) for fault in parse(text, "f.yaml")[1]]


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (b"8080", 8080),
            (b"-1", -1),
            (b"+7", 7),
            (b"0", 0),
            (b"0x1F", 31),
            (b"1.5", 1.5),
            (b"1e3", 1000.0),
            (b".5", 0.5),
            (b"true", True),
            (b"yes", True),
            (b"off", False),
            (b"null", None),
            (b"~", None),
            (b"", None),
            (b"y", "y"),
            (b"10.0.0.1", "10.0.0.1"),
            (b"10.0.0.0/8", "10.0.0.0/8"),
            (b"1.2.3", "1.2.3"),
            (b"12:30:45", "12:30:45"),  # not sixty-based
            (b"127.0.0.1:80", "127.0.0.1:80"),
            (b"2024-11-05", "2024-11-05"),
            (b"2024-11-05T10:02:11Z", "2024-11-05T10:02:11Z"),
            (b"15s", "15s"),
            (b"=", "="),
            (b"'8080'", "8080"),
            (b'"true"', "true"),
            (b'"\\x41\\u00e9"', "A\u00e9"),
            (b"|\n  8080\n", "8080\n"),
        ],
    )
    def test_what_a_scalar_is(self, text: bytes, value: Any) -> None:
        result = read(b"a: " + text + b"\n")["a"]
        assert result == value
        assert type(result) is type(value)

    @pytest.mark.parametrize("text", ["010", "0o17", "1_000", "0b1", "-07", "0x_1"])
    def test_a_number_that_readers_read_differently_is_a_fault(self, text: str) -> None:
        assert faults_of(f"a: {text}\n".encode()) == [
            f"f.yaml:1:4: versions of YAML read {text} as different numbers; "
            f'write "{text}" if it is text, or the plain decimal number'
        ]

    def test_a_number_without_end_is_a_fault_and_costs_nothing(self) -> None:
        (fault,) = faults_of(b"a: " + b"9" * 500_000)
        assert fault.startswith("f.yaml:1:4: the number 99999999999999999999... is too long")


class TestPlaces:
    def test_every_value_and_key_has_its_place(self) -> None:
        documents, _ = parse(b"a: 1\nb:\n  - x\n  - {c: d}\n---\ne: f\n", "f.yaml")
        first, second = documents
        assert isinstance(first.value, dict)
        assert (first.line, first.column) == (1, 1)
        assert first.at("b") == (2, 1)
        items = first.value["b"].value
        assert isinstance(items, list)
        assert [(item.line, item.column) for item in items] == [(3, 5), (4, 5)]
        assert items[1].at("c") == (4, 6)
        assert (second.line, second.column) == (6, 1)

    def test_columns_count_characters(self) -> None:
        documents, _ = parse("é: 'üü' \nb: c".encode(), "f.yaml")
        (document,) = documents
        assert isinstance(document.value, dict)
        assert (document.value["é"].line, document.value["é"].column) == (1, 4)

    @pytest.mark.parametrize("text", [b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", b"a: 1\rb: 2\r", b'{"a": 1,\n\t"b": 2}'])
    def test_byte_order_mark_line_ends_and_json_are_taken(self, text: bytes) -> None:
        assert read(text) == {"a": 1, "b": 2}

    def test_documents_that_say_nothing(self) -> None:
        assert parse(b"", "f.yaml") == ([], [])
        assert parse(b"# only a comment\n", "f.yaml") == ([], [])
        documents, faults = parse(b"---\n---\na: 1\n", "f.yaml")
        assert [plain(document) for document in documents] == [None, {"a": 1}]
        assert faults == []


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"a:\n\tb: 1\n", "2:1: a tab indents this line; YAML is indented with spaces only"),
            (b"a:\n  b: 1\n \tc: 2\n", "3:2: a tab indents this line; YAML is indented with spaces only"),
            (
                b"a: 1\na: 2\n",
                '2:1: the key "a" stands twice in this mapping (first in line 1); keep one of the two',
            ),
            (
                b"80: x\n'80': y\n",
                '2:1: the key "80" stands twice in this mapping (first in line 1); keep one of the two',
            ),
            (b"on: 1\n", "1:1: a key is the boolean on, not text; write it in quotes"),
            (b"1.5: 1\n", "1:1: a key is the number 1.5, not text; write it in quotes"),
            (b"? [a]\n: 1\n", "1:3: a key is a list, not text; write it in quotes"),
            (b"? \n: 1\n", None),
            (b'"\\0a": 1\n', "1:1: a key begins with a NUL character; remove it"),
            (b"<<: {a: 1}\n", "1:1: a merge key (<<) is not read; write the keys out"),
            (b"a: &x 1\n", "1:4: an anchor (&x) is not read; write the value out, or quote text that begins with `&`"),
            (b"a: *x\n", "1:4: an alias (*x) is not read; write the value out"),
            (
                b"a: !!int '1'\n",
                "1:4: a tag (tag:yaml.org,2002:int) is not read; remove it, or quote text that begins with `!`",
            ),
            (b"a: !x {}\n", "1:4: a tag (!x) is not read; remove it, or quote text that begins with `!`"),
            (b"a: \xff\n", "1:4: the byte 0xff is not UTF-8; save the file as UTF-8"),
            ("é: 1\nb: ".encode() + b"\xc3", "2:4: the byte 0xc3 is not UTF-8; save the file as UTF-8"),
            ("a: b".encode("utf-16"), "1:1: the file is UTF-16; save it as UTF-8"),
            (
                b"a:\n  b: \x00\n",
                "2:6: the character U+0000 may not stand in a YAML file; "
                "the file is no text, or UTF-16: save it as UTF-8",
            ),
            (
                b"a: \x1b[0m\n",
                "1:4: the character U+001B may not stand in a YAML file; "
                "remove it, or write it as an escape in double quotes",
            ),
        ],
    )
    def test_each_fault_at_its_place(self, text: bytes, fault: str | None) -> None:
        expected = f"f.yaml:{fault}" if fault else "f.yaml:1:2: a key is nothing, not text; write it in quotes"
        assert faults_of(text) == [expected] or (fault is None and "a key is nothing" in faults_of(text)[0])

    @pytest.mark.parametrize(
        ("text", "line", "hint"),
        [
            (b"a: b: c\n", 1, "quote text that contains ': '"),
            (b"a:\n  b: 1\n c: 2\n", 3, "check the indentation"),
            (b"a: [1, 2\nb: 3\n", 2, "a bracket is not closed"),
            (b"@a: 1\n", 1, "quote text that begins with a special character"),
        ],
    )
    def test_a_syntax_error_comes_with_a_hint(self, text: bytes, line: int, hint: str) -> None:
        (fault,) = faults_of(text)
        assert fault.startswith(f"f.yaml:{line}:")
        assert "not YAML" in fault
        assert hint in fault

    def test_what_stands_before_a_syntax_error_is_kept(self) -> None:
        documents, faults = parse(b"a: 1\n---\n]\n", "f.yaml")
        assert plain(documents[0]) == {"a": 1}
        assert len(faults) == 1


class TestLimits:
    def test_bytes(self) -> None:
        assert parse(b"#" * MAX_BYTES, "f.yaml") == ([], [])
        assert "more than 1048576" in faults_of(b"#" * (MAX_BYTES + 1))[0]

    def test_depth(self) -> None:
        assert faults_of(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == []
        (fault,) = faults_of(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
        assert fault == "f.yaml:1:65: nested deeper than 64 levels; flatten the document"

    def test_values_and_documents(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "MAX_NODES", 4)
        assert faults_of(b"[1, 2, 3]") == []
        assert "more than 4 values" in faults_of(b"[1, 2, 3, 4, 5]")[0]
        monkeypatch.setattr(reader, "MAX_DOCUMENTS", 2)
        assert faults_of(b"--- a\n--- b\n") == []
        assert "more than 2 documents" in faults_of(b"--- a\n--- b\n--- c\n")[0]

    def test_faults(self) -> None:
        assert len(faults_of(b"a: 1\n" * 1000)) == MAX_FAULTS

    def test_an_alias_does_not_multiply(self) -> None:
        """Ten levels of ten aliases would be ten thousand million values."""
        lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        assert any("an alias (*a0) is not read" in fault for fault in faults_of("\n".join(lines).encode()))


class TestChecker:
    def check(self, text: bytes) -> tuple[Checker, dict[str, Node]]:
        documents, faults = parse(text, "f.yaml")
        assert faults == []
        checker = Checker("f.yaml")
        return checker, checker.any_mapping(documents[0], "top")

    def only_fault(self, checker: Checker) -> str:
        (fault,) = checker.faults
        return str(fault)

    def test_an_unknown_key_is_named_with_the_nearest_known_one(self) -> None:
        documents, _ = parse(b"timeOut: 1\nzebra: 2\nok: 3\n", "f.yaml")
        checker = Checker("f.yaml")
        fields = checker.mapping(documents[0], "limits", ("timeout", "ok"), required=("must",))
        assert list(fields) == ["ok"]
        assert [str(fault) for fault in checker.faults] == [
            'f.yaml:1:1: unknown key "timeOut" in `limits`; did you mean `timeout`?',
            'f.yaml:2:1: unknown key "zebra" in `limits`; known here: ok, timeout',
            "f.yaml:1:1: `limits` lacks the key `must`",
        ]

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"a: yes", '1:4: `a` must be text, not the boolean yes; write "yes" with the quotes'),
            (b"a: 8080", '1:4: `a` must be text, not the number 8080; write "8080" with the quotes'),
            (b"a:", "1:3: `a` has no value; write text, or leave the key out"),
            (b"a: ''", "1:4: `a` is empty text; write a value, or leave it out"),
            (b"a: []", "1:4: `a` must be text, not a list; write the text alone, without a dash or brackets"),
            (b"a: {}", "1:4: `a` must be text, not a mapping; quote text that has braces or a colon and a space"),
        ],
    )
    def test_text(self, text: bytes, fault: str) -> None:
        checker, fields = self.check(text)
        assert checker.string(fields["a"], "a", "default") == "default"
        assert self.only_fault(checker) == f"f.yaml:{fault}"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"a: '5'", '1:4: `a` must be an integer, not the text "5"; remove the quotes'),
            (b"a: 1.5", "1:4: `a` must be an integer, not the number 1.5"),
            (b"a: true", "1:4: `a` must be an integer, not the boolean true"),
            (b"a: 0", "1:4: `a` must be between 1 and 9, not 0"),
            (b"a: 10", "1:4: `a` must be between 1 and 9, not 10"),
        ],
    )
    def test_integers(self, text: bytes, fault: str) -> None:
        checker, fields = self.check(text)
        assert checker.integer(fields["a"], "a", 3, minimum=1, maximum=9) == 3
        assert self.only_fault(checker) == f"f.yaml:{fault}"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"a: .nan", "1:4: `a` must be a number, not the number .nan"),
            (b"a: .inf", "1:4: `a` must be a number, not the number .inf"),
            (b"a: '0.5'", '1:4: `a` must be a number, not the text "0.5"; remove the quotes'),
            (b"a: 0.01", "1:4: `a` must be at least 0.1, not 0.01"),
        ],
    )
    def test_numbers(self, text: bytes, fault: str) -> None:
        checker, fields = self.check(text)
        assert checker.number(fields["a"], "a", 2.0, minimum=0.1) == 2.0
        assert self.only_fault(checker) == f"f.yaml:{fault}"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"a: 'true'", '1:4: `a` must be true or false, not the text "true"; remove the quotes'),
            (b"a: 1", "1:4: `a` must be true or false, not the number 1"),
        ],
    )
    def test_booleans(self, text: bytes, fault: str) -> None:
        checker, fields = self.check(text)
        assert checker.boolean(fields["a"], "a", True) is True
        assert self.only_fault(checker) == f"f.yaml:{fault}"

    def test_choices(self) -> None:
        checker, fields = self.check(b"a: off\nb: strct\nc: 1\n")
        assert checker.choice(fields["a"], "a", ("off", "stdout")) == "off"
        assert checker.choice(fields["b"], "b", ("strict", "none"), "none") == "none"
        checker.choice(fields["c"], "c", ("strict", "none"))
        assert [str(fault) for fault in checker.faults] == [
            'f.yaml:2:4: `b` must be one of strict, none, not the text "strct"; did you mean `strict`?',
            "f.yaml:3:4: `c` must be one of strict, none, not the number 1",
        ]

    def test_lists_and_mappings_of_text(self) -> None:
        checker, fields = self.check(b"a: [x, 1]\nb: {k: v, n: 2, e: ''}\nc: x\n")
        assert checker.string_list(fields["a"], "a") == ["x", ""]
        assert checker.string_mapping(fields["b"], "b") == {"k": "v", "n": "", "e": ""}
        assert checker.sequence(fields["c"], "c") == []
        assert [str(fault) for fault in checker.faults] == [
            'f.yaml:1:8: `a[1]` must be text, not the number 1; write "1" with the quotes',
            'f.yaml:2:14: `b.n` must be text, not the number 2; write "2" with the quotes',
            "f.yaml:3:4: `c` must be a list, not the text \"x\"; begin each item with '- '",
        ]

    def test_an_absent_key_gives_the_default(self) -> None:
        checker = Checker("f.yaml")
        assert checker.string(None, "a", "d") == "d"
        assert checker.integer(None, "a", 4) == 4
        assert checker.number(None, "a", 0.5) == 0.5
        assert checker.boolean(None, "a", True) is True
        assert checker.choice(None, "a", ("x",), "x") == "x"
        assert checker.string_list(None, "a") == []
        assert checker.mapping(None, "a", (), required=("b",)) == {}
        assert checker.faults == []

    def test_good_values_pass(self) -> None:
        checker, fields = self.check(b"s: x\ni: 5\nf: 5\nb: on\n")
        assert checker.string(fields["s"], "s") == "x"
        assert checker.integer(fields["i"], "i", minimum=5, maximum=5) == 5
        assert checker.number(fields["f"], "f", maximum=5) == 5.0
        assert checker.boolean(fields["b"], "b") is True
        assert checker.faults == []

    def test_a_value_that_reading_found_faulty_is_not_blamed_twice(self) -> None:
        documents, faults = parse(b"a: 010\n", "f.yaml")
        checker = Checker("f.yaml")
        checker.string(checker.any_mapping(documents[0], "top")["a"], "a")
        assert (len(faults), checker.faults) == (1, [])

    def test_faults_and_warnings_are_bounded(self) -> None:
        checker = Checker("f.yaml")
        for line in range(1, 500):
            checker.fault((line, 1), "x")
            checker.warning((line, 1), "x")
        assert len(checker.faults) == len(checker.warnings) == MAX_FAULTS
        assert checker.is_full


def test_foreign_text_is_shown_escaped_and_cut() -> None:
    assert shown("a\x1b\u202e\n") == "a\\x1b\\u202e\\n"
    assert quoted('a"b\\') == '"a\\"b\\\\"'
    assert shown("é" * 100) == "é" * 80 + "..."
    assert quoted("\ud800").isprintable()


def test_near_words() -> None:
    assert did_you_mean("service-account", ("service_account",)) == "did you mean `service_account`?"
    assert did_you_mean("x" * 100_000, ("a", "b")) == "known here: a, b"
    assert did_you_mean("a", ()) == ""
