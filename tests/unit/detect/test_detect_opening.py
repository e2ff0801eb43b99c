"""How a connection opens on a port that takes plaintext too."""

from __future__ import annotations

import pytest
from hellos import hello, message, records

from proxy.constants import ALPN_MESH
from proxy.detect import Opening, Opens, judge_opening

NOBODY: frozenset[bytes] = frozenset()


@pytest.mark.parametrize("name", [b"istio", b"istio-http/1.1", b"istio-http/1.0", b"istio-h2", b"istio-peer-exchange"])
def test_a_mesh_name_is_ours_to_terminate(name: bytes) -> None:
    for offered in ((name,), (b"h2", name), (name, b"http/1.1")):
        opening = judge_opening(hello(b"orders.demo", *offered), mesh=ALPN_MESH, ended=False)
        assert opening == Opening(opens=Opens.MESH_TLS, server_name="orders.demo")


@pytest.mark.parametrize("offered", [(), (b"h2",), (b"http/1.1", b"h2"), (b"istio-",), (b"ISTIO",), (b"istio\x00",)])
def test_other_tls_is_the_applications(offered: tuple[bytes, ...]) -> None:
    opening = judge_opening(hello(b"shop.example", *offered), mesh=ALPN_MESH, ended=False)
    assert opening == Opening(opens=Opens.OTHER_TLS, server_name="shop.example")


def test_where_no_tls_is_terminated_mesh_names_mean_nothing() -> None:
    opening = judge_opening(hello(b"orders.demo", b"istio"), mesh=NOBODY, ended=False)
    assert opening == Opening(opens=Opens.OTHER_TLS, server_name="orders.demo")


def test_a_malformed_hello_brings_nobody_in() -> None:
    whole = message([])
    broken = records(whole[:-2] + b"\x00\x09")
    assert judge_opening(broken, mesh=ALPN_MESH, ended=False) == Opening(opens=Opens.OTHER_TLS)


def test_half_a_hello_is_waited_for_unless_no_more_comes() -> None:
    first = hello(b"orders.demo", b"istio")
    for length in range(1, len(first)):
        assert judge_opening(first[:length], mesh=ALPN_MESH, ended=False) is None
        # Without its end it can be no handshake: let the application have what there is, without identity.
        assert judge_opening(first[:length], mesh=ALPN_MESH, ended=True) == Opening(opens=Opens.OTHER_TLS)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b"\x00", b"*1\r\n", b"\x16GET", b"\x15\x03\x01\x00\x02\x02\x28"]
)
def test_everything_else_is_plaintext_as_soon_as_it_can_be_told(first: bytes) -> None:
    assert judge_opening(first, mesh=ALPN_MESH, ended=False) == Opening(opens=Opens.PLAINTEXT)


def test_silence_is_nothing_until_it_ends() -> None:
    assert judge_opening(b"", mesh=ALPN_MESH, ended=False) is None
    assert judge_opening(b"", mesh=ALPN_MESH, ended=True) == Opening(opens=Opens.PLAINTEXT)
