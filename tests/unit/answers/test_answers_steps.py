"""The steps of a path, each named."""

from __future__ import annotations

import pytest

from proxy.answers.steps import PathStep, path_of, path_steps
from proxy.protocol.path import PathNormalization


def test_each_step_is_named() -> None:
    steps = path_steps(rb"/a/%41\b%2f../c//d#e", PathNormalization.DECODE_AND_MERGE_SLASHES)
    assert steps == [
        PathStep("the fragment goes", r"/a/%41\b%2f../c//d"),
        PathStep("%2F and %5C are /", r"/a/%41\b/../c//d"),
        PathStep("\\ is /", "/a/%41/b/../c//d"),
        PathStep("unreserved characters are decoded", "/a/A/b/../c//d"),
        PathStep("dot segments go", "/a/A/c//d"),
        PathStep("// is /", "/a/A/c/d"),
    ]


def test_a_path_in_normal_form_takes_no_step() -> None:
    assert path_steps(b"/orders/7", PathNormalization.BASE) == []
    assert path_steps(b"*", PathNormalization.BASE) == []


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"/a?b#c", b"/a"), (b"*", b"*"), (b"http://h", b"/"), (b"HTTPS://h:1/a/b?c", b"/a/b"), (b"http://h?x", b"/")],
)
def test_the_path_of_a_target(target: bytes, path: bytes) -> None:
    assert path_of(target) == path
