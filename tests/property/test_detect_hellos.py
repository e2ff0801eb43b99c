"""ClientHellos cut up, changed and made up: the answer never changes with more bytes, and only ValueError is raised."""

from __future__ import annotations

from hellos import hello, message, records, server_name
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.constants import ALPN_MESH
from proxy.detect import Opens, judge_opening
from proxy.detect.client_hello import ClientHello, read_client_hello

FIXED = settings(derandomize=True, deadline=None, max_examples=300)
MESH_HELLO = hello(b"orders.demo", b"h2", b"istio")


@FIXED
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_records_may_be_cut_anywhere(sizes: list[int]) -> None:
    whole = message([server_name(b"orders.demo")])
    first, place = b"", 0
    for size in sizes:
        first += records(whole[place : place + size])
        place += size
    first += records(whole[place:])
    assert read_client_hello(first) == ClientHello(server_name="orders.demo", alpn=())


@FIXED
@given(st.integers(0, len(MESH_HELLO) - 1), st.integers(0, 255))
def test_a_changed_byte_never_makes_the_answer_hang_or_change(place: int, value: int) -> None:
    changed = MESH_HELLO[:place] + bytes([value]) + MESH_HELLO[place + 1 :]
    answers = [judge_opening(changed[:end], mesh=ALPN_MESH, ended=False) for end in range(0, len(changed) + 1, 7)]
    known = [answer for answer in answers if answer is not None]
    assert all(answer == known[0] for answer in known)
    assert answers.index(known[0]) + len(known) == len(answers) if known else True
    assert judge_opening(changed, mesh=ALPN_MESH, ended=True) is not None


@FIXED
@given(st.binary(max_size=300), st.booleans())
def test_made_up_bytes_bring_nobody_in(tail: bytes, in_a_record: bool) -> None:
    first = records(b"\x01" + tail) if in_a_record else b"\x16\x03\x01" + tail
    opening = judge_opening(first, mesh=ALPN_MESH, ended=True)
    assert opening is not None
    assert opening.opens is not Opens.MESH_TLS
