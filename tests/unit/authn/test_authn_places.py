"""Where a token is looked for, spelled in every way, and what stays when it is taken out."""

from __future__ import annotations

import pytest
from authn_world import head, rule

from proxy.authn import HeaderPlace
from proxy.authn.places import Places
from proxy.protocol.stream import Kind, RequestHead

DEFAULT = Places(rule())
COOKIES = Places(rule(headers=(), params=(), cookies=("tok", "other-tok")))
PARAMS = Places(rule(headers=(), params=("tok", "t%k", "ö"), cookies=()))


def at(name: bytes, prefix: str = "") -> Places:
    return Places(rule(headers=(HeaderPlace(name=name, prefix=prefix),), params=()))


def in_header(*values: bytes) -> list[bytes]:
    return DEFAULT.tokens(head(*(b"authorization: " + value for value in values)))


# --- headers ---


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (b"Bearer a.b.c", [b"a.b.c"]),
        (b"Bearer   a.b.c", [b"a.b.c"]),
        (b"Bearer \t a.b.c", [b"a.b.c"]),
        (b"Bearer a.b.c  ", [b"a.b.c"]),
        (b"Bearer a.b.c x", [b"a.b.c x"]),
        (b"Bearer a.b.c, Bearer d.e.f", [b"a.b.c, Bearer d.e.f"]),
        (b"Bearer a.b.c==", [b"a.b.c=="]),
        (b"Bearer Bearer a", [b"Bearer a"]),
        (b"bearer a.b.c", []),
        (b"BEARER a.b.c", []),
        (b"Bearer", []),
        (b"Bearer ", []),
        (b"Bearera.b.c", []),
        (b"Bearer\ta.b.c", []),
        (b"Basic YTpi", []),
        (b"Basic Bearer a.b.c", []),
        (b"a.b.c", []),
        (b"", []),
    ],
)
def test_the_default_header(value: bytes, tokens: list[bytes]) -> None:
    assert in_header(value) == tokens


def test_every_line_of_a_header_is_looked_at_and_the_same_token_is_one() -> None:
    assert in_header(b"Bearer a", b"Basic x", b"Bearer b", b"Bearer a") == [b"a", b"b"]


def test_the_name_of_the_header_has_no_case() -> None:
    assert DEFAULT.tokens(head(b"AUTHORIZATION: Bearer a")) == [b"a"]


def test_without_a_prefix_the_value_is_the_token() -> None:
    assert at(b"x-jwt").tokens(head(b"X-Jwt:  a.b.c ", b"x-jwt2: d")) == [b"a.b.c"]
    assert at(b"x-jwt").tokens(head(b"X-Jwt:")) == [b""]


def test_a_prefix_without_a_space() -> None:
    assert at(b"x-jwt", "jwt=").tokens(head(b"X-Jwt: jwt=a", b"x-jwt: JWT=b", b"x-jwt: xjwt=c")) == [b"a"]


def test_two_prefixes_of_one_header() -> None:
    both = Places(rule(headers=(HeaderPlace(name=b"x", prefix="A "), HeaderPlace(name=b"x", prefix="B ")), params=()))
    assert both.tokens(head(b"x: B b", b"x: A a")) == [b"b", b"a"]


@pytest.mark.parametrize("kind", [Kind.HOP, Kind.FRAMING, Kind.RESERVED])
def test_lines_that_are_not_passed_on_carry_no_token(kind: Kind) -> None:
    request = head(b"x-jwt: a")
    request.fields[0] = request.fields[0]._replace(kind=kind)
    assert at(b"x-jwt").tokens(request) == []


def test_places_of_its_own_switch_the_default_ones_off() -> None:
    request = head(b"authorization: Bearer a", query=b"?access_token=b")
    assert at(b"x-jwt").tokens(request) == []


# --- query ---


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        (b"?access_token=a.b.c", [b"a.b.c"]),
        (b"?x=1&access_token=a&y=2", [b"a"]),
        (b"?access_token=a%2eb%2Ec", [b"a.b.c"]),
        (b"?access%5Ftoken=a", [b"a"]),
        (b"?access%5ftoken=a", [b"a"]),
        (b"?%61ccess_token=a", [b"a"]),
        (b"?access_token=a&access_token=b", [b"a", b"b"]),
        (b"?access_token=a&access_token=a", [b"a"]),
        (b"?access_token=a=b", [b"a=b"]),
        (b"?access_token=a+b", [b"a+b"]),
        (b"?access_token=%zz", [b"%zz"]),
        (b"?access_token=", [b""]),
        (b"?access_token", []),
        (b"?Access_Token=a", []),
        (b"?xaccess_token=a", []),
        (b"?access_token2=a", []),
        (b"?x=access_token=a", []),
        (b"?;access_token=a", []),
        (b"?access_token%3Da", []),
        (b"?&&&access_token=a&&", [b"a"]),
        (b"??access_token=a", []),
        (b"?", []),
        (b"", []),
    ],
)
def test_the_default_parameter(query: bytes, tokens: list[bytes]) -> None:
    assert DEFAULT.tokens(head(query=query)) == tokens


def test_names_of_parameters_are_text_and_no_patterns() -> None:
    assert PARAMS.tokens(head(query=b"?t%25k=a&t%k=b&tAk=c&%C3%B6=d&%c3%b6=e&tok=f")) == [b"a", b"b", b"d", b"e", b"f"]


# --- cookies ---


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (b"tok=a.b.c", [b"a.b.c"]),
        (b"x=1; tok=a; y=2", [b"a"]),
        (b"x=1;tok=a;y=2", [b"a"]),
        (b'tok="a"', [b"a"]),
        (b'tok="', [b'"']),
        (b"tok = a ;", [b"a"]),
        (b"tok=a; tok=b", [b"a", b"b"]),
        (b"tok=a=b", [b"a=b"]),
        (b"other-tok=b; tok=a", [b"b", b"a"]),
        (b"tok=", [b""]),
        (b"tok", []),
        (b"Tok=a", []),
        (b"xtok=a; tokx=b; x-tok=c", []),
        (b"x=tok=a", []),
        (b"x=1, tok=a", []),
        (b"otherXtok=a", []),
        (b"%74ok=a", []),
    ],
)
def test_cookies(line: bytes, tokens: list[bytes]) -> None:
    assert COOKIES.tokens(head(b"Cookie: " + line)) == tokens


def test_every_cookie_line_is_looked_at() -> None:
    assert COOKIES.tokens(head(b"cookie: tok=a", b"cookie: x=1", b"Cookie: tok=b")) == [b"a", b"b"]


# --- taking out ---


def test_the_whole_line_of_a_header_goes_and_others_stay() -> None:
    request = head(b"X: 1", b"Authorization: Bearer a", b"authorization: Basic b", b"authorization: Bearer c")
    left = DEFAULT.without(request, b"a")
    assert [field.line for field in left.fields] == [
        b"X: 1\r\n",
        b"authorization: Basic b\r\n",
        b"authorization: Bearer c\r\n",
    ]
    assert len(request.fields) == 4, "the head given is not changed"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"?access_token=a", b""),
        (b"?access_token=a&x=1", b"?x=1"),
        (b"?x=1&access_token=a", b"?x=1"),
        (b"?x=%41+&access_token=a&Y=%zz&&", b"?x=%41+&Y=%zz&&"),
        (b"?x=1&access_token=a&access%5Ftoken=%61&y", b"?x=1&y"),
        (b"?access_token=a&access_token=a", b""),
        (b"?access_token=a&access_token=b", b"?access_token=b"),
        (b"?x=a&Access_Token=a", b"?x=a&Access_Token=a"),
        (b"?a&access_token=a&", b"?a&"),
        (b"?&access_token=a", b""),
        (b"?", b"?"),
        (b"", b""),
    ],
)
def test_a_parameter_goes_and_the_others_stay_byte_for_byte(query: bytes, left: bytes) -> None:
    assert DEFAULT.without(head(query=query), b"a").query == left


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (b"tok=a", None),
        (b'tok="a"', None),
        (b"tok=a;", None),
        (b"tok=a; x=1", b"x=1"),
        (b"x=1; tok=a", b"x=1"),
        (b'x="1 2";tok=a;  y=%20 ', b'x="1 2";  y=%20'),
        (b"x=1; tok=a; tok=a; y=2", b"x=1; y=2"),
        (b"x=1; tok=a; tok=b", b"x=1; tok=b"),
        (b"x=a; Tok=a", b"x=a; Tok=a"),
    ],
)
def test_a_cookie_goes_and_the_others_stay_byte_for_byte(line: bytes, left: bytes | None) -> None:
    request = head(b"CooKie: " + line, b"x: 1")
    fields = COOKIES.without(request, b"a").fields
    lines = [b"x: 1\r\n"] if left is None else [b"CooKie: " + left + b"\r\n", b"x: 1\r\n"]
    assert [field.line for field in fields] == lines
    assert left is None or (fields[0].value, fields[0].name, fields[0].kind) == (left, b"cookie", Kind.FORWARD)


def test_what_is_no_place_keeps_the_token() -> None:
    request = head(b"x-copy: a", b"cookie: tok=a", query=b"?tok=a")
    assert DEFAULT.without(request, b"a") == request


def test_a_query_of_many_pieces_costs_little() -> None:
    """20,000 pieces, and a name that almost matches 20,000 times, are one pass of a linear search."""
    for query in (b"?" + b"a=&" * 20_000, b"?" + b"access_toke=&" * 4_000, b"?" + b"%61" * 20_000):
        request: RequestHead = head(query=query)
        assert DEFAULT.tokens(request) == []
        assert DEFAULT.without(request, b"a").query == query
