"""Bytes from outside: answers of a Workload API and printed identities give a value or their error."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_messages import field, response, varint

from certs.testing import MemoryAuthority
from certs.workload_api import WorkloadApiError, parse_state, split_certificates, state_files
from proxy.identity.credential import CredentialError, read_printed, split_credential_bundle


@functools.cache
def good() -> bytes:
    memory = MemoryAuthority("cluster.local")
    bundles = {memory.neighbour.trust_domain: memory.neighbour.bundle}
    return response([(memory.svid("demo", "orders"), memory.bundle)], bundles)


@functools.cache
def credential() -> bytes:
    svid = MemoryAuthority("cluster.local").svid("demo", "orders")
    return svid.key_pem() + svid.chain_pem()


MESSAGES = st.recursive(
    st.binary(max_size=40),
    lambda inner: st.lists(st.tuples(st.integers(1, 6), inner), max_size=4).map(
        lambda fields: b"".join(field(number, content) for number, content in fields)
    ),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=200)
@given(st.one_of(st.binary(max_size=200), MESSAGES))
def test_an_answer_is_read_or_refused(message: bytes) -> None:
    try:
        state = parse_state(message)
    except WorkloadApiError:
        return
    assert set(state_files(state)) >= {"tls.crt", "tls.key", "ca.crt"}


@settings(derandomize=True, max_examples=200)
@given(st.data())
def test_one_byte_that_is_another_is_read_or_refused(data: st.DataObject) -> None:
    message = bytearray(good())
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    try:
        state_files(parse_state(bytes(message)))
    except WorkloadApiError:
        return


@settings(derandomize=True, max_examples=100)
@given(st.integers(0, 10**6))
def test_no_beginning_of_an_answer_is_taken_for_the_whole(length: int) -> None:
    message = good()[: length % len(good())]
    try:
        state = parse_state(message)
    except WorkloadApiError:
        return
    assert state.svids
    assert not state.federated, "cut between two fields, which a stream cannot: its messages have a length"


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_certificates_come_apart_as_they_were_put_together(contents: list[bytes]) -> None:
    def der(content: bytes) -> bytes:
        size = len(content)
        if size < 0x80:
            return b"\x30" + bytes((size,)) + content
        return b"\x30\x82" + size.to_bytes(2, "big") + content

    parts = tuple(der(content) for content in contents)
    assert split_certificates(b"".join(parts), "x") == parts


@settings(derandomize=True, max_examples=200)
@given(st.integers(0, 2**64 - 1))
def test_a_number_takes_as_many_bytes_as_it_needs(number: int) -> None:
    assert len(varint(number)) == max((number.bit_length() + 6) // 7, 1)
    with pytest.raises(WorkloadApiError, match="gave no identity"):
        parse_state(varint(99 << 3) + varint(number))


@settings(derandomize=True, max_examples=200)
@given(st.data())
def test_printed_bytes_are_read_or_refused(data: st.DataObject) -> None:
    printed = bytearray(data.draw(st.one_of(st.binary(max_size=100), st.just(credential()))))
    for _ in range(data.draw(st.integers(0, 3))):
        if printed:
            printed[data.draw(st.integers(0, len(printed) - 1))] ^= data.draw(st.integers(1, 255))
    for read in (read_printed, split_credential_bundle):
        try:
            files = read(bytes(printed))
        except CredentialError:
            continue
        assert "tls.key" in files or bytes(printed).lstrip().startswith(b"{")
