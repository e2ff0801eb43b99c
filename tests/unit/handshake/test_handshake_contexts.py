"""What the contexts of a generation promise, as OpenSSL holds it."""

from __future__ import annotations

import functools

import pytest
from OpenSSL import SSL

from certs.keys import generate_key
from certs.store import IdentitySet, judge_set
from certs.testing import MemoryAuthority, set_files
from proxy.handshake.binding import DirectCalls, QueueEntry, drain_error_queue, lib
from proxy.handshake.contexts import CLIENT_OFFER, SERVER_PREFERENCE, CallingMaterial, PublicMaterial, TlsGeneration
from proxy.handshake.verification import _names_in
from proxy.identity.verify import Trust
from proxy.types import Generation, Protocol


@functools.cache
def material() -> tuple[IdentitySet, Trust]:
    memory = MemoryAuthority("cluster.local")
    files = set_files(memory.svid("demo", "orders"), memory.bundles)
    identity_set = judge_set(files, memory.trust_domain, memory.now)
    return identity_set, Trust.of(memory.trust_domain, identity_set.bundles)


def generation(*, allow_tls12: bool = False) -> TlsGeneration:
    return TlsGeneration(*material(), Generation(1), allow_tls12=allow_tls12, calls=DirectCalls())


def contexts(made: TlsGeneration) -> list[SSL.Context]:
    return [end(protocol).ssl for end in (made.server_context, made.client_context) for protocol in Protocol]


def public() -> PublicMaterial:
    identity_set, _ = material()
    return PublicMaterial(identity_set.chain, identity_set.key, Generation(1))


@pytest.mark.parametrize("allow_tls12", [False, True])
def test_every_context_requires_a_verified_peer(allow_tls12: bool) -> None:
    for context in contexts(generation(allow_tls12=allow_tls12)):
        assert context.get_verify_mode() == SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


def test_a_public_server_asks_nobody_for_a_certificate_and_dials_nobody() -> None:
    assert public().server_context(Protocol.HTTP).ssl.get_verify_mode() == SSL.VERIFY_NONE
    with pytest.raises(TypeError, match="nobody is dialled"):
        public().client_context(Protocol.HTTP)
    with pytest.raises(TypeError, match="nobody is accepted"):
        CallingMaterial(*material()).server_context(Protocol.HTTP)


def test_a_public_server_is_not_made_with_the_key_of_another() -> None:
    identity_set, _ = material()
    with pytest.raises(SSL.Error):
        PublicMaterial(identity_set.chain, generate_key(), Generation(1))
    drain_error_queue()


@pytest.mark.parametrize("allow_tls12", [False, True])
def test_every_context_resumes_nothing(allow_tls12: bool) -> None:
    made = contexts(generation(allow_tls12=allow_tls12))
    for context in (*made, public().server_context(Protocol.HTTP).ssl):
        assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
        options = lib.SSL_CTX_get_options(context._context)
        for needed in (SSL.OP_NO_TICKET, SSL.OP_NO_COMPRESSION, lib.SSL_OP_NO_RENEGOTIATION):
            assert options & needed
        assert not options & lib.SSL_OP_IGNORE_UNEXPECTED_EOF
        modes = context.set_mode(0)
        for needed in (
            lib.SSL_MODE_RELEASE_BUFFERS,
            lib.SSL_MODE_ENABLE_PARTIAL_WRITE,
            lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER,
        ):
            assert modes & needed


def test_contexts_are_built_once_and_shared_by_what_they_offer() -> None:
    made = generation()
    assert made.server_context(Protocol.HTTP) is made.server_context(Protocol.AUTO)
    assert made.server_context(Protocol.HTTP) is not made.server_context(Protocol.TCP)
    assert made.client_context(Protocol.TCP) is made.client_context(Protocol.AUTO)
    assert len({id(context) for context in contexts(made)}) == 4
    other = generation()
    assert not {id(context) for context in contexts(made)} & {id(context) for context in contexts(other)}


def test_http2_is_neither_offered_nor_chosen() -> None:
    names = {name for table in (SERVER_PREFERENCE, CLIENT_OFFER) for offer in table.values() for name in offer}
    assert names == {b"istio-http/1.1", b"istio-http/1.0", b"http/1.1", b"istio"}


@pytest.mark.parametrize("protocol", Protocol)
def test_whatever_we_offer_our_server_serves(protocol: Protocol) -> None:
    assert set(CLIENT_OFFER[protocol]) <= set(SERVER_PREFERENCE[protocol])


@pytest.mark.parametrize(
    ("wire", "names"),
    [(b"", ()), (b"\x02h2", (b"h2",)), (b"\x02h2\x08http/1.1", (b"h2", b"http/1.1")), (b"\x00\x01a", (b"", b"a"))],
)
def test_alpn_names_on_the_wire(wire: bytes, names: tuple[bytes, ...]) -> None:
    assert _names_in(wire) == names


def test_the_error_queue_is_read_oldest_first_and_left_empty() -> None:
    drain_error_queue()
    lib.ERR_put_error(20, 0, 156, b"test", 1)
    lib.ERR_put_error(20, 0, 1048, b"test", 1)
    first, second = drain_error_queue()
    assert first == QueueEntry(20, 156, "http request")
    assert (second.library, second.number, second.of_tls) == (20, 1048, True)
    assert "unknown ca" in second.text
    assert drain_error_queue() == []
