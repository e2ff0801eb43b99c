"""The normal form of a path is a fixed point, and holds nothing that an application could still fold."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolError, Reason
from proxy.protocol.path import PathNormalization, normalize_path

PATHS = st.one_of(
    st.text("/.%2eE5cCfF0\\;a#", max_size=24).map(lambda tail: b"/" + tail.encode()),
    st.lists(
        st.sampled_from([b"/", b"..", b".", b"%2e", b"%2F", b"%5c", b"\\", b"%", b"%25", b";", b"a", b"%00", b"%41"]),
        max_size=12,
    ).map(lambda parts: b"/" + b"".join(parts)),
)
DECODED_UNRESERVED = re.compile(rb"%(?:2[dDeE]|3[0-9]|4[1-9A-Fa-f]|5[0-9aAfF]|6[1-9A-Fa-f]|7[0-9aAeE])")


def maybe_normal(path: bytes, mode: PathNormalization) -> bytes | None:
    try:
        return normalize_path(path, mode)
    except ProtocolError as refusal:
        if refusal.reason is not Reason.PATH_INVALID:
            raise
        return None


@settings(derandomize=True, deadline=None, max_examples=1_500)
@given(PATHS, st.sampled_from(PathNormalization))
def test_normal_form(path: bytes, mode: PathNormalization) -> None:
    normal = maybe_normal(path, mode)
    if normal is None:
        return
    assert normal.startswith(b"/")
    assert normalize_path(normal, mode) == normal
    assert b"#" not in normal
    assert b"%00" not in normal
    assert not re.search(rb"/\.\.?;", normal)
    if mode is PathNormalization.NONE:
        return
    assert b"\\" not in normal
    assert not re.search(rb"/\.\.?(/|$)", normal)
    assert not DECODED_UNRESERVED.search(normal)
    if mode is not PathNormalization.BASE:
        assert b"//" not in normal
    if mode is PathNormalization.DECODE_AND_MERGE_SLASHES:
        assert not re.search(rb"%(2[fF]|5[cC])", normal)


@settings(derandomize=True, deadline=None, max_examples=600)
@given(PATHS)
def test_a_refusal_is_never_lifted_by_a_stricter_mode(path: bytes) -> None:
    modes = list(PathNormalization)
    accepted = [maybe_normal(path, mode) is not None for mode in modes]
    assert accepted == sorted(accepted, reverse=True)
