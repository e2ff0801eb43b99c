"""Turns what OpenSSL says of a failed handshake into our Reasons, and our Reasons into TLS alerts.

Two directions, two tables. Outward: OpenSSL picks the alert for a refused certificate from the X509_V_ERR_* number
that the verify callback leaves behind, so each alert is asked for by a number that is known to give it (measured with
OpenSSL 4.0). Inward: the numbers of OpenSSL's error queue (sslerr.h, part of its ABI) become Reasons; a received alert
N arrives there as 1000 + N (RFC 8446 section 6.2 has the N).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Final

from proxy.errors import HandshakeError, Reason
from proxy.handshake.binding import QueueEntry

UNEXPECTED_EOF: Final = 294
"""SSL_R_UNEXPECTED_EOF_WHILE_READING: the peer's TCP end without close_notify."""

_RECORD_LAYER_FAILURE: Final = 313
"""SSL_R_RECORD_LAYER_FAILURE: put on top of the entry that names the cause."""
_RECEIVED_ALERT: Final = 1000
_LAST_ALERT: Final = 1255

ALERTS: Final[Mapping[int, str]] = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""RFC 8446 section 6.2 and RFC 7301 section 3.2, by number."""

_VERIFY_ERROR_OF_ALERT: Final[Mapping[str, int]] = {
    "bad_certificate": 28,  # X509_V_ERR_CERT_REJECTED
    "unsupported_certificate": 26,  # X509_V_ERR_INVALID_PURPOSE
    "unknown_ca": 20,  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    "certificate_expired": 10,  # X509_V_ERR_CERT_HAS_EXPIRED
    "certificate_revoked": 23,  # X509_V_ERR_CERT_REVOKED
}
_VERIFY_ERROR_INTERNAL: Final = 1
"""X509_V_ERR_UNSPECIFIED: the peer is told internal_error, for it is our fault and not its certificate's."""

_ALERTS_THAT_REFUSE_US: Final = frozenset(
    {
        "handshake_failure",
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
        "decrypt_error",
        "certificate_required",
    }
)

_NOT_TLS: Final = Reason.NOT_TLS
_NO_COMMON: Final = Reason.TLS_NO_COMMON_PARAMETERS
_REASONS: Final[Mapping[int, Reason]] = {
    101: _NO_COMMON,  # no suitable key share
    118: _NO_COMMON,  # no suitable signature algorithm
    193: _NO_COMMON,  # no shared cipher
    295: _NO_COMMON,  # no suitable groups
    297: _NO_COMMON,  # no suitable digest algorithm
    376: _NO_COMMON,  # no shared signature algorithms
    410: _NO_COMMON,  # no shared groups
    155: _NOT_TLS,  # https proxy request
    156: _NOT_TLS,  # http request
    252: _NOT_TLS,  # unknown protocol
    267: _NOT_TLS,  # wrong version number: of the record, which every TLS version writes as 3.x
    443: _NOT_TLS,  # bad record type
    258: Reason.TLS_VERSION_UNSUPPORTED,  # unsupported protocol
    396: Reason.TLS_VERSION_UNSUPPORTED,  # version too low
    420: Reason.TLS_VERSION_UNSUPPORTED,  # missing supported versions extension
    199: Reason.CERTIFICATE_REQUIRED,  # peer did not return a certificate
    135: Reason.CERTIFICATE_MALFORMED,  # cert length mismatch
    247: Reason.CERTIFICATE_MALFORMED,  # unknown certificate type
    304: Reason.CERTIFICATE_MALFORMED,  # bad ecc cert
    235: Reason.ALPN_UNKNOWN,  # no application protocol
    397: Reason.KEY_TOO_WEAK,  # ca key too small
    399: Reason.KEY_TOO_WEAK,  # ee key too small
}
_CERTIFICATE_LIBRARIES: Final = frozenset({11, 13})
"""X.509 and ASN.1: their entries in a handshake mean that the peer's Certificate message could not be decoded."""

_EXPLANATIONS: Final[Mapping[Reason, str]] = {
    Reason.NOT_TLS: (
        "the first bytes are no TLS; it spoke plaintext to a port that requires mutual TLS; "
        "send the call through a sidecar, or name another port"
    ),
    Reason.TLS_VERSION_UNSUPPORTED: (
        "it offers no TLS version that is spoken here (1.3; 1.2 only where that is allowed); "
        "update it, or allow TLS 1.2 explicitly"
    ),
    Reason.TLS_NO_COMMON_PARAMETERS: (
        "it shares no cipher suite, group or signature algorithm with us; "
        "offer AES-GCM or ChaCha20 and one of X25519MLKEM768, X25519, P-256"
    ),
    Reason.CERTIFICATE_REQUIRED: (
        "it presented no certificate, and this port requires one; send the call through a sidecar of the mesh"
    ),
    Reason.CERTIFICATE_MALFORMED: "its certificate cannot be decoded; issue it again with another tool",
    Reason.KEY_TOO_WEAK: "its key is too weak; use P-256, P-384, Ed25519 or RSA of at least 2048 bits",
}


class RefusedByPeer(ConnectionResetError):
    """A fatal alert with which the peer refused *us*, received after our side of the handshake was done.

    In TLS 1.3 a client has finished before the server looks at its certificate, so the refusal comes with the first
    read. It is a broken connection for those who move bytes; `reason` and `alert` are for the record.
    """

    reason = Reason.PEER_REJECTED_US

    def __init__(self, alert: str) -> None:
        super().__init__(errno.ECONNRESET, refusal(alert))
        self.alert = alert


def verify_error_for(reason: Reason) -> int:
    """Names the X509_V_ERR_* number that makes OpenSSL send the alert of a Reason."""
    return _VERIFY_ERROR_OF_ALERT.get(reason.consequence.alert, _VERIFY_ERROR_INTERNAL)


def received_alert(entries: Sequence[QueueEntry]) -> str:
    """Finds the fatal alert that the peer sent, by its name in RFC 8446; "" if it sent none."""
    for entry in reversed(entries):
        if entry.of_tls and _RECEIVED_ALERT <= entry.number <= _LAST_ALERT:
            number = entry.number - _RECEIVED_ALERT
            return ALERTS.get(number, f"alert_{number}")
    return ""


def refusal(alert: str) -> str:
    """Says that the peer refused us, with the likely cause and the next step."""
    cause = {
        "unknown_ca": "our root is not in its bundle, or our trust domain is unknown there; compare both bundles",
        "certificate_expired": "our certificate has expired in its eyes; look at our rotation and at both clocks",
        "certificate_required": "it wants a client certificate and got none",
        "no_application_protocol": "it serves none of the ALPN names that we offer; compare `protocol` on both sides",
        "protocol_version": "it does not speak our TLS versions (1.3; 1.2 only where that is allowed)",
    }.get(alert, "the reason is in the log of the peer")
    return f"the peer refused us with the TLS alert {alert}: {cause}"


def broken_connection(entries: Sequence[QueueEntry]) -> OSError:
    """Makes the exception for a TLS fault on a connection that stood: always a kind of ConnectionResetError."""
    alert = received_alert(entries)
    if alert in _ALERTS_THAT_REFUSE_US:
        return RefusedByPeer(alert)
    if alert:
        return ConnectionResetError(errno.ECONNRESET, f"the peer ended the connection with the TLS alert {alert}")
    if any(entry.of_tls and entry.number == UNEXPECTED_EOF for entry in entries):
        return truncated()
    return ConnectionResetError(errno.ECONNRESET, f"the TLS connection broke: {_words(entries)}")


def truncated() -> ConnectionResetError:
    """Makes the exception for a TCP end without close_notify: bytes may be missing (RFC 8446 section 6.1)."""
    return ConnectionResetError(errno.ECONNRESET, "the peer closed TCP without close_notify: data may be missing")


def closed_in_handshake(number: int) -> HandshakeError:
    """Makes the error for a peer that went away in the middle; `number` is the errno, 0 for an ordinary end."""
    how = os.strerror(number) if number else "it closed the connection"
    return HandshakeError(
        f"the peer went away during the handshake ({how}); a probe or a port scan does so, and a peer that gave up "
        "waiting",
        Reason.HANDSHAKE_PEER_CLOSED,
    )


def failed_handshake(entries: Sequence[QueueEntry]) -> HandshakeError:
    """Makes the error for a handshake that OpenSSL ended, from what it left in the error queue."""
    if any(entry.of_tls and entry.number == UNEXPECTED_EOF for entry in entries):
        return closed_in_handshake(0)
    alert = received_alert(entries)
    if alert:
        return HandshakeError(refusal(alert), Reason.PEER_REJECTED_US)
    words = _words(entries)
    for entry in reversed(entries):
        reason = _REASONS.get(entry.number) if entry.of_tls else None
        if reason is None and entry.library in _CERTIFICATE_LIBRARIES:
            reason = Reason.CERTIFICATE_MALFORMED
        if reason is not None:
            return HandshakeError(f"the handshake failed: {_EXPLANATIONS.get(reason, words)}", reason)
    return HandshakeError(
        f"the handshake failed: {words}; the peer broke the protocol, or something between changed bytes",
        Reason.HANDSHAKE_FAILED,
    )


def _words(entries: Sequence[QueueEntry]) -> str:
    """The newest entry that says more than that something failed below it."""
    for entry in reversed(entries):
        if entry.number != _RECORD_LAYER_FAILURE:
            return entry.text
    return "OpenSSL gives no cause"
