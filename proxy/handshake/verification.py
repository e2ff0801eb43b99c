"""Runs our rules inside OpenSSL's verification, so that a refused peer still gets an alert that says why.

    SSL_do_handshake --> OpenSSL builds the chain --> callback(ok, store)   for each certificate, root first
                                                       |  ok=0: OpenSSL found a fault -> our Reason, our alert
                                                       |  ok=1, depth > 0: go on
                                                       |  ok=1, depth 0: the whole chain stands -> Judge
                                                       v
                                        Verdict (identity | rejection) of this connection

What holds:

1. A callback never raises through C: any exception is a refusal, and cffi's own answer to an exception is refusal too.
2. A Verdict without identity is no admission. The Session checks that after the handshake, so a path on which OpenSSL
   would not call back (a resumed session) admits nobody.
3. The first rejection stands; later calls for the same connection only repeat it.
4. Callbacks find their connection by the SSL pointer in a weak map. They hold no Session and no socket, so a
   connection that is dropped in the middle of its handshake is freed at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from cryptography import x509

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.handshake.binding import ffi, lib
from proxy.handshake.faults import verify_error_for
from proxy.identity.failures import judge_failure
from proxy.identity.verify import Judge, Rejection, Trust, Usage
from proxy.types import PeerIdentity

_log = logging.getLogger(__name__)

_OWN_FAULT: Final = Rejection(
    reason=Reason.INTERNAL_ERROR,
    presented="",
    explanation="judging the peer failed by a fault of our own",
    mend="report it with the traceback that stands in the log before",
)
_REFUSE: Final = 0
_ACCEPT: Final = 1


class Verdict:
    """What the callbacks found out about one connection.

    `offered` are the peer's ALPN names, None if it has none, and `served` those that they were compared with.
    """

    __slots__ = ("__weakref__", "expected", "identity", "offered", "rejection", "served")

    def __init__(self, expected: frozenset[SpiffeId] | None) -> None:
        self.expected = expected
        self.identity: PeerIdentity | None = None
        self.rejection: Rejection | None = None
        self.offered: tuple[bytes, ...] | None = None
        self.served: Sequence[bytes] = ()


Verdicts = WeakValueDictionary[int, Verdict]
"""The connections in handshake, by the address of their SSL object."""


def address_of(ssl: Any) -> int:
    """Names an SSL object by its address, which is unique while the object lives."""
    return int(ffi.cast("uintptr_t", ssl))


def verify_callback(trust: Trust, usage: Usage, verdicts: Verdicts, clock: Callable[[], float]) -> Any:
    """Makes the callback for SSL_CTX_set_verify. Keep the result alive as long as any SSL of the context."""
    index = lib.SSL_get_ex_data_X509_STORE_CTX_idx()
    judge = Judge(trust, usage)

    def verify(ok: int, store: Any) -> int:
        reason = Reason.INTERNAL_ERROR
        verdict: Verdict | None = None
        try:
            verdict = verdicts.get(address_of(lib.X509_STORE_CTX_get_ex_data(store, index)))
            if verdict is not None:
                if verdict.rejection is None:
                    depth = lib.X509_STORE_CTX_get_error_depth(store)
                    if ok == 1 and depth > 0:
                        return _ACCEPT
                    verdict.rejection = _judge(ok, depth, store, verdict)
                if verdict.rejection is None:
                    return _ACCEPT
                reason = verdict.rejection.reason
        except Exception:
            _log.exception("a fault of our own while judging a peer; the peer is refused")
            if verdict is not None:
                verdict.rejection = _OWN_FAULT
        lib.X509_STORE_CTX_set_error(store, verify_error_for(reason))
        return _REFUSE

    def _judge(ok: int, depth: int, store: Any, verdict: Verdict) -> Rejection | None:
        try:
            chain = _chain_of(store)
            if ok != 1:
                number = lib.X509_STORE_CTX_get_error(store)
                text = ffi.string(lib.X509_verify_cert_error_string(number)).decode("ascii", "replace")
                certificates = [x509.load_der_x509_certificate(der) for der in chain]
                return judge_failure(number, text, depth, certificates, trust=trust, usage=usage)
            outcome = judge.judge(chain, now=clock(), expected=verdict.expected)
        except (ValueError, x509.InvalidVersion) as error:
            return _unreadable(error)
        if isinstance(outcome, Rejection):
            return outcome
        verdict.identity = outcome
        return None

    return ffi.callback("int(int, X509_STORE_CTX *)", verify, error=_REFUSE)


def alpn_callback(preference: Sequence[bytes], verdicts: Verdicts) -> Any:
    """Makes the server's ALPN callback: the first name of `preference` that the peer offers (RFC 7301 section 3.2).

    None in common: fatal alert no_application_protocol. It is not called for a peer that offers no ALPN.
    """
    refuse = lib.SSL_TLSEXT_ERR_ALERT_FATAL
    # OpenSSL is given pointers into these, so they must live as long as the callback: the closure sees to that.
    names = [(name, ffi.new("unsigned char[]", name), len(name)) for name in preference]

    def select(ssl: Any, out: Any, out_length: Any, offered: Any, offered_length: int, _argument: Any) -> int:
        try:
            wanted = _names_in(ffi.buffer(offered, offered_length)[:])
            verdict = verdicts.get(address_of(ssl))
            if verdict is not None:
                verdict.offered, verdict.served = wanted, preference
            for name, pointer, length in names:
                if name in wanted:
                    out[0] = pointer
                    out_length[0] = length
                    return int(lib.SSL_TLSEXT_ERR_OK)
        except Exception:
            _log.exception("a fault of our own while choosing ALPN; the peer is refused")
        return int(refuse)

    signature = "int(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"
    return ffi.callback(signature, select, error=refuse)


def _names_in(wire: bytes) -> tuple[bytes, ...]:
    names: list[bytes] = []
    place = 0
    while place < len(wire):
        end = place + 1 + wire[place]
        names.append(wire[place + 1 : end])
        place = end
    return tuple(names)


def _chain_of(store: Any) -> tuple[bytes, ...]:
    """Copies the chain as built so far as DER, leaf first. Raises ValueError."""
    stack = lib.X509_STORE_CTX_get1_chain(store)
    if stack == ffi.NULL:
        return ()
    # get1 made a reference to each certificate for us: all are given back, whatever happens on the way.
    pointers = [lib.sk_X509_value(stack, place) for place in range(lib.sk_X509_num(stack))]
    try:
        return tuple([der_of(pointer) for pointer in pointers])
    finally:
        for pointer in pointers:
            lib.X509_free(pointer)
        lib.sk_X509_free(stack)


def der_of(certificate: Any) -> bytes:
    """Writes an X509 of OpenSSL's as DER. Raises ValueError and MemoryError."""
    bio = lib.BIO_new(lib.BIO_s_mem())
    if bio == ffi.NULL:
        raise MemoryError("OpenSSL has no memory for a BIO")
    try:
        if lib.i2d_X509_bio(bio, certificate) != 1:
            raise ValueError("OpenSSL cannot write the certificate as DER")
        start = ffi.new("char **")
        length = lib.BIO_get_mem_data(bio, start)
        return bytes(ffi.buffer(start[0], length))
    finally:
        lib.BIO_free(bio)


def _unreadable(error: Exception) -> Rejection:
    return Rejection(
        reason=Reason.CERTIFICATE_MALFORMED,
        presented="",
        explanation=f"a certificate of the peer's chain cannot be decoded ({str(error)[:200]!r})",
        mend="issue it again with another tool",
    )
