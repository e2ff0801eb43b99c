"""What a Workload API answers: what is read from its bytes, what is made of it, and what is refused."""

from __future__ import annotations

import datetime
import functools

import pytest
from workload_messages import ders, field, number_field, response, svid_message, varint

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import judge_set
from certs.testing import MemoryAuthority, set_files
from certs.workload_api import MAX_SVIDS, WorkloadApiError, parse_state, split_certificates, state_files


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


def orders() -> bytes:
    return svid_message(memory().svid("demo", "orders"), memory().bundle)


def test_an_answer_becomes_the_files_of_a_mounted_set() -> None:
    svid, neighbour = memory().svid("demo", "orders"), memory().neighbour
    state = parse_state(response([(svid, memory().bundle)], {neighbour.trust_domain: neighbour.bundle}))
    files = state_files(state)
    expected = set_files(svid, {memory().trust_domain: memory().bundle})
    assert files == {**expected, f"bundles/{neighbour.trust_domain}.pem": neighbour.bundle.to_pem()}
    identity = judge_set(files, memory().trust_domain, datetime.datetime.now(datetime.UTC))
    assert set(identity.bundles) == {memory().trust_domain, neighbour.trust_domain}


def test_a_federated_bundle_without_roots_ends_its_domain() -> None:
    empty = TrustBundle(trust_domain=TrustDomain("ended.example"), certificates=())
    state = parse_state(response([(memory().svid("demo", "orders"), memory().bundle)], {empty.trust_domain: empty}))
    identity = judge_set(state_files(state), memory().trust_domain, datetime.datetime.now(datetime.UTC))
    assert identity.bundles[empty.trust_domain].certificates == ()


def test_the_expected_identity_is_chosen_and_else_the_first() -> None:
    web, shop = memory().svid("demo", "web"), memory().svid("demo", "shop")
    state = parse_state(response([(web, memory().bundle), (shop, memory().bundle)]))
    assert state.chosen(shop.spiffe_id).spiffe_id == shop.spiffe_id
    assert state.chosen(SpiffeId.parse("spiffe://cluster.local/other")).spiffe_id == web.spiffe_id
    assert state.chosen().spiffe_id == web.spiffe_id
    assert state_files(state, shop.spiffe_id)["tls.crt"] == shop.chain_pem()


def test_our_own_domain_among_the_federated_is_passed_over() -> None:
    svid, bundle = memory().svid("demo", "orders"), memory().bundle
    assert "bundles/cluster.local.pem" not in state_files(
        parse_state(response([(svid, bundle)], {svid.spiffe_id.trust_domain: bundle}))
    )


def test_what_is_unknown_is_passed_over() -> None:
    message = field(1, orders() + field(99, b"later") + number_field(98, 7))
    message += number_field(50, 1) + varint(51 << 3 | 1) + bytes(8) + varint(52 << 3 | 5) + bytes(4)
    [svid] = parse_state(message).svids
    assert str(svid.spiffe_id) == "spiffe://cluster.local/ns/demo/sa/orders"


def test_hint_and_revocation_lists_are_kept() -> None:
    svid = svid_message(memory().svid("demo", "orders"), memory().bundle, "internal")
    state = parse_state(field(1, svid) + field(2, b"list"))
    assert (state.svids[0].hint, state.crls) == ("internal", (b"list",))


def test_a_key_of_a_bundle_may_be_a_bare_name() -> None:
    entry = field(1, b"other.example") + field(2, ders(memory().bundle))
    [(domain, roots)] = parse_state(field(1, orders()) + field(3, entry)).federated
    assert (domain, len(roots)) == ("other.example", 1)


def without(number: int) -> bytes:
    """The message of an identity that lacks one field."""
    svid, bundle = memory().svid("demo", "orders"), memory().bundle
    whole = svid_message(svid, bundle)
    kept = b""
    at = 0
    while at < len(whole):
        tag, length, begin = whole[at], 0, at + 1
        for shift in range(0, 35, 7):
            length |= (whole[begin] & 0x7F) << shift
            begin += 1
            if whole[begin - 1] < 0x80:
                break
        if tag >> 3 != number:
            kept += whole[at : begin + length]
        at = begin + length
    return kept


BROKEN = {
    "nothing": (b"", "gave no identity"),
    "no chain": (field(1, without(2)), "chain, key or bundle is missing"),
    "no key": (field(1, without(3)), "chain, key or bundle is missing"),
    "no roots": (field(1, without(4)), "chain, key or bundle is missing"),
    "no name": (field(1, without(1)), "identity 1: "),
    "a name with a newline": (field(1, without(1) + field(1, b"spiffe://cluster.local/a\n")), "identity 1: "),
    "a number for an identity": (number_field(1, 5), "a number stands where bytes belong"),
    "a number for a key": (field(1, without(3) + number_field(3, 5)), "a number stands where bytes belong"),
    "cut": (field(1, orders())[:-1], "longer than the message"),
    "a number that does not end": (b"\xff" * 11, "does not end"),
    "a group": (varint(1 << 3 | 3), "unknown type"),
    "text": (b"HTTP/1.1 400 Bad Request", "."),
    "a chain that is cut": (field(1, without(2) + field(2, b"\x30\x82\x01\x00")), "no whole DER certificates"),
    "a chain of something else": (field(1, without(2) + field(2, b"\x04\x01\x00")), "no whole DER certificates"),
    "an endless length": (field(1, without(2) + field(2, b"\x30\x80\x00\x00")), "no whole DER certificates"),
    "a bundle of nobody": (field(1, orders()) + field(3, field(1, b"") + field(2, b"")), "a federated bundle: "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_half_an_answer_is_none(case: str) -> None:
    message, sentence = BROKEN[case]
    with pytest.raises(WorkloadApiError) as caught:
        parse_state(message)
    if sentence != ".":
        assert sentence in str(caught.value)


def test_the_number_of_identities_is_bounded() -> None:
    with pytest.raises(WorkloadApiError, match="more than"):
        parse_state(field(1, orders()) * (MAX_SVIDS + 1))


def test_no_error_and_no_repr_shows_a_key() -> None:
    state = parse_state(field(1, orders()))
    assert state.svids[0].key.hex()[:40] not in repr(state)
    assert "key=" not in repr(state)
    with pytest.raises(WorkloadApiError) as caught:
        parse_state(field(1, without(4)))
    assert repr(state.svids[0].key) not in str(caught.value)


def test_certificates_are_taken_apart_by_their_lengths() -> None:
    one, two = b"\x30\x81\x80" + bytes(128), b"\x30\x82\x01\x00" + bytes(256)
    assert split_certificates(one + two + b"\x30\x00", "x") == (one, two, b"\x30\x00")
    assert split_certificates(b"", "x") == ()
