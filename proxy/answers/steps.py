"""What normalisation did to a path, step by step: the steps of `normalize_path` made visible one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.protocol.path import PathNormalization, normalize_path

_NONE, _BASE = PathNormalization.NONE, PathNormalization.BASE
_MERGE, _DECODE = PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES
_SLASH_ESCAPE: Final = re.compile(rb"%(?:2[fF]|5[cC])")
_ESCAPE: Final = re.compile(rb"%[0-9a-fA-F]{2}")
_UNRESERVED: Final = re.compile(rb"[A-Za-z0-9._~-]").fullmatch
_AUTHORITY: Final = re.compile(rb"[a-zA-Z]+://[^/?]*").match


class PathStep(NamedTuple):
    """One step that changed the path: its name, and the path after it."""

    name: str
    after: str


def path_steps(path: bytes, mode: PathNormalization) -> list[PathStep]:
    r"""List the steps that change `path` (no query) on the way to its normal form; raises what `normalize_path` raises.

    >>> path_steps(b"/public/%2e%2e\\private//x", PathNormalization.MERGE_SLASHES)[0]
    PathStep(name='\\ is /', after='/public/%2e%2e/private//x')
    >>> [step.after for step in path_steps(b"/public/%2e%2e\\private//x", PathNormalization.MERGE_SLASHES)[1:]]
    ['/public/../private//x', '/private//x', '/private/x']
    """
    normalize_path(path, mode)
    if path == b"*":
        return []
    stages: list[tuple[str, Callable[[bytes], bytes]]] = [("the fragment goes", lambda it: it.partition(b"#")[0])]
    if mode is _DECODE:
        stages.append(("%2F and %5C are /", lambda it: _SLASH_ESCAPE.sub(b"/", it)))
    if mode is not _NONE:
        stages.append(("\\ is /", lambda it: it.replace(b"\\", b"/")))
        stages.append(("unreserved characters are decoded", lambda it: _ESCAPE.sub(_decoded, it)))
        stages.append(("dot segments go", lambda it: normalize_path(it, _BASE)))
    if mode in (_MERGE, _DECODE):
        stages.append(("// is /", lambda it: normalize_path(it, _MERGE)))
    steps: list[PathStep] = []
    for name, stage in stages:
        after = stage(path)
        if after != path:
            steps.append(PathStep(name, after.decode("latin-1")))
        path = after
    return steps


def path_of(target: bytes) -> bytes:
    """Take the path out of a request target in any form, as it was sent.

    >>> path_of(b"http://orders.demo/a/../b?x=/"), path_of(b"/a?b"), path_of(b"http://orders.demo")
    (b'/a/../b', b'/a', b'/')
    """
    authority = _AUTHORITY(target)
    if authority is not None:
        target = target[authority.end() :] or b"/"
    return target.partition(b"?")[0] or b"/"


def _decoded(escape: re.Match[bytes]) -> bytes:
    byte = bytes((int(escape.group()[1:], 16),))
    return byte if _UNRESERVED(byte) else escape.group()
