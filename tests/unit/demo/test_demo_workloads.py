"""The applications read who called from the one header that the sidecar writes."""

from __future__ import annotations

import pytest

from demo.workloads import caller_in


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        ("By=spiffe://a/b;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/web"),
        ("URI=spiffe://a/web;By=spiffe://a/b", "spiffe://a/web"),
        ("URI=spiffe://a/web,By=spiffe://a/b", "spiffe://a/web"),
        ("", "nobody"),
        ("By=spiffe://a/b;Hash=00", "nobody"),
    ],
)
def test_the_caller_is_in_the_header(header: str, caller: str) -> None:
    assert caller_in(header) == caller
