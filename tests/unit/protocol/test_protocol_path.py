"""The normal form of a path, vector by vector (policy language, section on path normalization)."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol.path import PathNormalization, normalize_path

NONE, BASE = PathNormalization.NONE, PathNormalization.BASE
MERGE, DECODE = PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES
MODES = (NONE, BASE, MERGE, DECODE)

# in, then out under NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES
VECTORS = [
    (b"/", b"/", b"/", b"/", b"/"),
    (b"/app#foo", b"/app", b"/app", b"/app", b"/app"),
    (b"/app/", b"/app/", b"/app/", b"/app/", b"/app/"),
    (b"/app/../admin", b"/app/../admin", b"/admin", b"/admin", b"/admin"),
    (b"/app//", b"/app//", b"/app//", b"/app/", b"/app/"),
    (b"/app/%2f", b"/app/%2f", b"/app/%2f", b"/app/%2f", b"/app/"),
    (b"/app%2f/", b"/app%2f/", b"/app%2f/", b"/app%2f/", b"/app/"),
    (b"/xyz%30..//abc", b"/xyz%30..//abc", b"/xyz0..//abc", b"/xyz0../abc", b"/xyz0../abc"),
    (b"/app/%2E./admin", b"/app/%2E./admin", b"/admin", b"/admin", b"/admin"),
    (rb"/app\admin", rb"/app\admin", b"/app/admin", b"/app/admin", b"/app/admin"),
    (rb"/app/\/\/\admin", rb"/app/\/\/\admin", b"/app//////admin", b"/app/admin", b"/app/admin"),
    (
        b"/%2Fapp%5cadmin%5Cabc",
        b"/%2Fapp%5cadmin%5Cabc",
        b"/%2Fapp%5cadmin%5Cabc",
        b"/%2Fapp%5cadmin%5Cabc",
        b"/app/admin/abc",
    ),
    (
        rb"/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc",
        rb"/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc",
        b"/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
        b"/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
        b"/app/admin/abc",
    ),
    (b"/app//../admin", b"/app//../admin", b"/app/admin", b"/app/admin", b"/app/admin"),
    (b"/app//../../admin", b"/app//../../admin", b"/admin", b"/admin", b"/admin"),
    (b"/..", b"/..", b"/", b"/", b"/"),
    (b"/a/..", b"/a/..", b"/", b"/", b"/"),
    (b"/a/b/.", b"/a/b/.", b"/a/b/", b"/a/b/", b"/a/b/"),
    (b"/.well-known/x", b"/.well-known/x", b"/.well-known/x", b"/.well-known/x", b"/.well-known/x"),
    (b"//", b"//", b"//", b"/", b"/"),
    (b"*", b"*", b"*", b"*", b"*"),
]

NEVER_NORMALISED = [
    b"/0x2e0x2e/admin",
    b"/0x2e/admin",
    b"/%252e%252e/admin",
    b"/%252E%252E/admin",
    b"/%252fadmin",
    b"/%255cadmin",
    b"/%25c0%25ae/admin",
    b"/%c0%ae%c0%ae/admin",
    b"/%c0%afadmin",
    b"/%c1%9cadmin",
    b"/%e0%80%ae/admin",
    b"/%u002e%u002e/admin",
    b"/.../admin",
    b"/..../admin",
    b"/;/admin",
    b"/admin;a=b",
    b"/admin;a=b/x",
    b"/admin,a=b",
    b"/Admin",
    b"/ADMIN",
    b"/admin%",
    b"/admin%4",
    b"/admin%zz",
]

UNRESERVED = b"-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0].decode())
def test_vector(vector: tuple[bytes, ...]) -> None:
    assert tuple(normalize_path(vector[0], mode) for mode in MODES) == vector[1:]


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"/%c0%2e%c0%2e/admin", b"/%c0.%c0./admin"), (b"/%c0%2fadmin", b"/%c0/admin")],
)
def test_decodes_around_invalid_utf8(path: bytes, expected: bytes) -> None:
    assert normalize_path(path, DECODE) == expected


@pytest.mark.parametrize("path", NEVER_NORMALISED, ids=lambda path: path.decode())
def test_leaves_alone_what_only_looks_like_something(path: bytes) -> None:
    assert {normalize_path(path, mode) for mode in MODES} == {path}


@pytest.mark.parametrize("code", range(1, 256))
@pytest.mark.parametrize("form", ["%%%02x", "%%%02X"])
def test_every_escape_under_decode_and_merge(code: int, form: str) -> None:
    path = b"/admin" + (form % code).encode()
    if code in (0x2F, 0x5C):
        expected = b"/admin/"
    elif code in UNRESERVED:
        expected = b"/admin" + bytes((code,))
    else:
        expected = path
    assert normalize_path(path, DECODE) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "path",
    [
        b"/admin%00",
        b"/%00",
        b"/..;/admin",
        b"/user/..;foo=bar/admin",
        b"/.;/admin",
        b"/user/.;x",
        b"/user/..;",
        b"/%2e%2e;/x",
        b"/.%2E;a=b/x",
        b"/%2e;/x",
    ],
    ids=lambda path: path.decode(),
)
def test_refuses_in_every_mode(path: bytes, mode: PathNormalization) -> None:
    with pytest.raises(ProtocolError) as refusal:
        normalize_path(path, mode)
    assert refusal.value.reason is Reason.PATH_INVALID


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (b"/%%32e%%32e/private", BASE),
        (b"/%2%65/private", BASE),
        (b"/%%300", BASE),
        (b"/%%32fadmin", DECODE),
        (b"/%%35cadmin", DECODE),
        (rb"/a\..;/x", BASE),
        (b"/a%5c..;/x", DECODE),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else value.value,
)
def test_refuses_what_decoding_would_only_begin_to_show(path: bytes, mode: PathNormalization) -> None:
    with pytest.raises(ProtocolError) as refusal:
        normalize_path(path, mode)
    assert refusal.value.reason is Reason.PATH_INVALID


def test_a_long_path_costs_linear_time() -> None:
    long = b"/" + b"../a/" * 12_000 + b"%2e" * 1_000
    assert normalize_path(long, DECODE) == b"/a/" + b"." * 1_000
