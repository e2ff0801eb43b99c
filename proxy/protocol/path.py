"""The normal form of a path: what policy judges and what is forwarded are these same bytes.

An application decodes escapes, folds dot segments and collapses slashes in its own way. A proxy that judged
`/public/../private` by its first letters would let the application serve `/private`. So a path is brought into normal
form once, before anybody looks at it, and the received spelling is kept for the record only.

Facts that hold of every result, whatever the mode:

1. It is a fixed point: normalising it again changes nothing. `/%%32e` would decode to `/%2e`, which the next decoder
   reads as `/.`; such a path is refused.
2. It holds no `%00`, no fragment and no segment `.;…` or `..;…`.
3. It holds no byte that was not in the input, apart from decoded unreserved characters and `/`.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from proxy.errors import ProtocolError, Reason


class PathNormalization(enum.Enum):
    """How far a path is normalised, in the words of the mesh configuration. Each mode includes the one before it."""

    NONE = "none"
    """The path as it came, without its fragment."""
    BASE = "base"
    r"""`\` is `/`, unreserved escapes are decoded once, dot segments are removed (RFC 3986 section 6.2.2)."""
    MERGE_SLASHES = "merge_slashes"
    """Also `//` is `/`."""
    DECODE_AND_MERGE_SLASHES = "decode_and_merge_slashes"
    """Also `%2F` and `%5C` are slashes, before anything else."""


_WORTH_A_LOOK: Final = re.compile(rb"[%\\#]|/[/.]").search
_UNRESERVED_ESCAPE: Final = re.compile(
    rb"%(?:2[dDeE]|3[0-9]|4[1-9A-Fa-f]|5[0-9aAfF]|6[1-9A-Fa-f]|7[0-9aAeE])",
)
"""RFC 3986 section 2.3: `-`, `.`, digits, letters, `_` and `~`."""
_SLASH_ESCAPE: Final = re.compile(rb"%(?:2[fF]|5[cC])")
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:/|\Z)").search
_DOT_PARAMETER: Final = re.compile(rb"/\.\.?;").search
_SLASHES: Final = re.compile(rb"//+")


def normalize_path(path: bytes, mode: PathNormalization) -> bytes:
    r"""Bring the path of a request target (no query) into the normal form of `mode`.

    A path without `%`, `\`, `#`, `//` and `/.` costs one scan (0.2 µs). Malformed escapes (`%zz`) and the case of the
    escapes that stay are kept. Raises ProtocolError with PATH_INVALID for `%00`, for a segment that is `.` or `..`
    followed by `;` (servers that know path parameters read it as a dot segment, others as a name), and for a path
    whose decoding yields new escapes.
    """
    if _WORTH_A_LOOK(path) is None or not path.startswith(b"/"):
        return path
    path = path.partition(b"#")[0]
    if b"%00" in path:
        raise ProtocolError("the path holds an encoded NUL (%00); remove it", Reason.PATH_INVALID)
    if mode is PathNormalization.NONE:
        _refuse_dot_parameter(_decode_unreserved(path))
        return path
    if mode is PathNormalization.DECODE_AND_MERGE_SLASHES:
        path = _SLASH_ESCAPE.sub(b"/", path)
    path = path.replace(b"\\", b"/")
    decoded = _decode_unreserved(path)
    if decoded != path:
        _refuse_new_escapes(decoded, mode)
    _refuse_dot_parameter(decoded)
    if _DOT_SEGMENT(decoded) is not None:
        decoded = _remove_dot_segments(decoded)
    if mode is PathNormalization.BASE:
        return decoded
    return _SLASHES.sub(b"/", decoded)


def _decode_unreserved(path: bytes) -> bytes:
    """Decode once every escape of an unreserved character; the result is not scanned again."""
    if b"%" not in path:
        return path
    return _UNRESERVED_ESCAPE.sub(lambda escape: bytes((int(escape.group()[1:], 16),)), path)


def _refuse_new_escapes(decoded: bytes, mode: PathNormalization) -> None:
    decodes_slashes = mode is PathNormalization.DECODE_AND_MERGE_SLASHES
    if (
        _UNRESERVED_ESCAPE.search(decoded)
        or b"%00" in decoded
        or (decodes_slashes and _SLASH_ESCAPE.search(decoded) is not None)
    ):
        raise ProtocolError(
            "the path is encoded twice (decoding it yields new escapes); encode each byte once, `%` itself as %25",
            Reason.PATH_INVALID,
        )


def _refuse_dot_parameter(decoded: bytes) -> None:
    if _DOT_PARAMETER(decoded) is not None:
        raise ProtocolError(
            "a path segment is `.` or `..` with a `;` parameter, which servers read in different ways; leave it out",
            Reason.PATH_INVALID,
        )


def _remove_dot_segments(path: bytes) -> bytes:
    """Remove `.` and `..` as RFC 3986 section 5.2.4 does; `..` at the root stays at the root."""
    segments = path.split(b"/")
    kept: list[bytes] = []
    for segment in segments[1:]:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
