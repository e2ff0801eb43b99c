"""What `remora authority serve` makes of its arguments where they leave something open."""

from __future__ import annotations

import pytest

from proxy.authority.cli import _parser
from proxy.authority.serving import config_of

JWKS = ("--jwks", "keys.json", "--issuer", "https://kubernetes.default.svc")


@pytest.mark.parametrize(
    ("words", "is_enough"),
    [
        ((), True),
        (JWKS, False),
        ((*JWKS, "--no-require-token"), True),
        (("--require-token",), False),
    ],
)
def test_where_tokens_are_checked_a_certificate_alone_renews_nothing(words: tuple[str, ...], is_enough: bool) -> None:
    options = _parser().parse_args(["serve", "--directory", "ca", "--listen", "127.0.0.1:8443", *words])
    assert config_of(options).is_certificate_enough is is_enough
