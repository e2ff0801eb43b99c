"""JSON that two readers could read in two ways is refused, and no message quotes a value."""

from __future__ import annotations

import json
import traceback

import pytest

from certs.strict_json import parse_json


@pytest.mark.parametrize("data", [b"null", b"[1, 2.5]", b'{"a": {"b": "c"}}', '"\u00fc"'.encode()])
def test_what_is_unambiguous_is_read(data: bytes) -> None:
    assert parse_json(data) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "Expecting value, line 1, column 1"),
        (b"\xff", "it is not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "the member 'c' stands there twice"),
        (b'{"\\u202e": 1, "\\u202e": 1}', r"the member '\\u202e' stands there twice"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'{"token": "hush"', "delimiter, line 1, column 17"),
    ],
)
def test_what_is_not_is_refused_without_quoting_it(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_json(data)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
