"""Builds what OpenSSL needs to know before a handshake: one set of contexts for one generation of keys and trust.

A new generation is a new object with new contexts, never a change of an old one: a connection keeps the generation
that it was made with, and a changed context would leave half of OpenSSL's state behind (a peer that was no longer
trusted came in by a resumed session of an old context). Resumption is off altogether, for the same reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from typing import Protocol as Face
from weakref import WeakValueDictionary

from cryptography import x509
from OpenSSL import SSL, crypto

from certs.keys import PrivateKey
from certs.store import IdentitySet
from proxy import constants
from proxy.handshake.binding import Calls, ffi, lib, select_calls
from proxy.handshake.verification import Verdicts, alpn_callback, verify_callback
from proxy.identity.verify import Trust, Usage
from proxy.types import Generation, Protocol

SERVER_PREFERENCE: Final[Mapping[Protocol, tuple[bytes, ...]]] = {
    Protocol.HTTP: constants.ALPN_PREFERENCE_HTTP,
    Protocol.TCP: constants.ALPN_PREFERENCE_TCP,
    Protocol.AUTO: constants.ALPN_PREFERENCE_HTTP,
}
CLIENT_OFFER: Final[Mapping[Protocol, tuple[bytes, ...]]] = {
    # istio-http/1.1 tells an Istio sidecar that this is mesh TLS with HTTP/1.1 inside; a plain mutual-TLS server
    # (nginx, Envoy without mesh names) finds http/1.1. HTTP/1.0 is not offered: we always speak 1.1 to servers.
    Protocol.HTTP: (constants.ALPN_ISTIO_HTTP_11, constants.ALPN_HTTP_11),
    Protocol.TCP: (constants.ALPN_ISTIO,),
    # Nothing is known of the content: `istio` alone is a promise about nothing but the mesh.
    Protocol.AUTO: (constants.ALPN_ISTIO,),
}

_CIPHERS_13: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""AES-128-GCM first: with AES instructions it is the fastest, and 128 bits are enough for a hop of seconds."""
_CIPHERS_12: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""The same for TLS 1.2: forward secrecy and AEAD only."""

_VERIFY_DEPTH: Final = 4
"""Intermediates between a leaf and its root. Meshes have one or two; each costs a signature check per handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsContext:
    """One OpenSSL context and the connections in handshake on it. `callbacks` is what C holds pointers to."""

    ssl: SSL.Context
    verdicts: Verdicts
    callbacks: tuple[Any, ...] = field(repr=False)


class Material(Face):
    """What a Session is made from: contexts, the calls of the byte path, and the number in records."""

    @property
    def calls(self) -> Calls: ...
    @property
    def generation(self) -> Generation: ...
    @property
    def admits_anonymous(self) -> bool: ...
    def server_context(self, protocol: Protocol) -> TlsContext: ...
    def client_context(self, protocol: Protocol) -> TlsContext: ...


class TlsGeneration:
    """The contexts of one identity set and one trust, for both directions and every kind of ALPN.

    `identity_set` is what we present, `trust` whom we believe, `generation` the number in records. TLS 1.3 only,
    unless `allow_tls12`. `calls` are the calls of the byte path (`binding.select_calls`); their buffer belongs to the
    event loop that uses this generation, so no two threads may share one. `admits_anonymous` lets a client come that
    shows no certificate; one that it shows is judged all the same. Raises `OpenSSL.SSL.Error` when OpenSSL does not
    take the material, which `certs.store` has judged before.
    """

    __slots__ = ("_clients", "_servers", "admits_anonymous", "calls", "generation", "identity_set", "trust")

    def __init__(
        self,
        identity_set: IdentitySet,
        trust: Trust,
        generation: Generation,
        *,
        allow_tls12: bool = False,
        admits_anonymous: bool = False,
        calls: Calls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.identity_set = identity_set
        self.trust = trust
        self.generation = generation
        self.admits_anonymous = admits_anonymous
        self.calls = select_calls() if calls is None else calls

        def build(peer: Usage, names: Mapping[Protocol, tuple[bytes, ...]]) -> Mapping[Protocol, TlsContext]:
            # Protocols with the same ALPN names share a context.
            demand = SSL.VERIFY_PEER
            if not (admits_anonymous and peer is Usage.CLIENT):
                demand |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            made = {
                offer: _build(identity_set, trust, peer, offer, demand, allow_tls12, clock) for offer in names.values()
            }
            return {protocol: made[offer] for protocol, offer in names.items()}

        # All are built at once, in about 1 ms: a fault of the material shows at the swap and not at a connection.
        self._servers = build(Usage.CLIENT, SERVER_PREFERENCE)
        self._clients = build(Usage.SERVER, CLIENT_OFFER)

    def server_context(self, protocol: Protocol) -> TlsContext:
        """The context for accepting on a port of this protocol."""
        return self._servers[protocol]

    def client_context(self, protocol: Protocol) -> TlsContext:
        """The context for dialling a service of this protocol."""
        return self._clients[protocol]


class CallingMaterial:
    """What a client dials with that may have no certificate yet: it offers http/1.1, and is no server.

    `identity_set` is what it presents when asked, None for nothing; `trust` whom it believes.
    """

    __slots__ = ("_context", "admits_anonymous", "calls", "generation")

    def __init__(
        self, identity_set: IdentitySet | None, trust: Trust, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.generation = Generation(0)
        self.admits_anonymous = False
        self.calls = select_calls()
        demand = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        offer = (constants.ALPN_HTTP_11,)
        self._context = _build(identity_set, trust, Usage.SERVER, offer, demand, False, clock)

    def client_context(self, protocol: Protocol) -> TlsContext:
        """The context for dialling."""
        return self._context

    def server_context(self, protocol: Protocol) -> TlsContext:
        """There is none. Raises TypeError."""
        raise TypeError(f"nobody is accepted on {protocol.value} with the material of a client")


class PublicMaterial:
    """What a server shows to anybody: it asks for no certificate, serves http/1.1, and is no client.

    TLS 1.2 and 1.3, Mozilla's "intermediate", for who polls a bundle from outside the mesh (SPIFFE Federation section
    5.2). `chain` is leaf first. Raises `OpenSSL.SSL.Error` when OpenSSL does not take it or the key does not fit.
    """

    __slots__ = ("_context", "admits_anonymous", "calls", "generation")

    def __init__(self, chain: Sequence[x509.Certificate], key: PrivateKey, generation: Generation) -> None:
        self.generation = generation
        self.admits_anonymous = True
        self.calls = select_calls()
        context = _context(allow_tls12=True)
        _present(context, chain, key)
        context.set_verify(SSL.VERIFY_NONE)
        verdicts: Verdicts = WeakValueDictionary()
        self._context = TlsContext(
            ssl=context, verdicts=verdicts, callbacks=(_select_alpn(context, (constants.ALPN_HTTP_11,), verdicts),)
        )

    def server_context(self, protocol: Protocol) -> TlsContext:
        """The context for accepting."""
        return self._context

    def client_context(self, protocol: Protocol) -> TlsContext:
        """There is none. Raises TypeError."""
        raise TypeError(f"nobody is dialled for {protocol.value} with the material of a public server")


def _build(
    identity_set: IdentitySet | None,
    trust: Trust,
    peer: Usage,
    alpn: tuple[bytes, ...],
    demand: int,
    allow_tls12: bool,
    clock: Callable[[], float],
) -> TlsContext:
    context = _context(allow_tls12=allow_tls12)
    if identity_set is not None:
        _present(context, identity_set.chain, identity_set.key)
    _believe(context, trust)
    verdicts: Verdicts = WeakValueDictionary()
    verify = verify_callback(trust, peer, verdicts, clock)
    # Not `Context.set_verify`: behind its helper every refusal reaches the peer as the alert internal_error.
    lib.SSL_CTX_set_verify(context._context, demand, verify)
    if peer is Usage.SERVER:
        context.set_alpn_protos(list(alpn))
        return TlsContext(ssl=context, verdicts=verdicts, callbacks=(verify,))
    return TlsContext(ssl=context, verdicts=verdicts, callbacks=(verify, _select_alpn(context, alpn, verdicts)))


def _context(*, allow_tls12: bool) -> SSL.Context:
    """Make a context with all that holds for every one of ours."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION if allow_tls12 else SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_CIPHERS_13)
    context.set_cipher_list(_CIPHERS_12)
    context.set_options(
        SSL.OP_NO_TICKET
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | lib.SSL_OP_NO_RENEGOTIATION  # TLS 1.2: a second handshake would ask the callbacks after the decision
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A client that tries to resume must get a full handshake and not an error about a missing session context.
    context.set_session_id(b"remora")
    # Partial writes and moving buffers are pyOpenSSL's default, named here because the engine rests on them.
    context.set_mode(
        lib.SSL_MODE_ENABLE_PARTIAL_WRITE | lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | lib.SSL_MODE_RELEASE_BUFFERS
    )
    return context


def _select_alpn(context: SSL.Context, preference: Sequence[bytes], verdicts: Verdicts) -> Any:
    """Have a server choose its ALPN name, and give the callback that the context points to."""
    select = alpn_callback(preference, verdicts)
    # Not `set_alpn_select_callback`: it cannot send no_application_protocol.
    lib.SSL_CTX_set_alpn_select_cb(context._context, select, ffi.NULL)
    return select


def _present(context: SSL.Context, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    context.use_certificate(chain[0])
    for intermediate in chain[1:]:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(key)
    context.check_privatekey()


def _believe(context: SSL.Context, trust: Trust) -> None:
    store = context.get_cert_store()
    if store is None:
        raise RuntimeError("OpenSSL gave a context without a certificate store")
    for anchor in trust.anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    flags = crypto.X509StoreFlags.X509_STRICT
    if any(anchor.issuer != anchor.subject for anchor in trust.anchors):
        # X509-SVID section 6 only advises that roots be self-signed; without this an intermediate vouches for nobody.
        flags |= crypto.X509StoreFlags.PARTIAL_CHAIN
    store.set_flags(flags)
    context.set_verify_depth(_VERIFY_DEPTH)
