"""Every way in which a connection or a request can fail, and what follows from it.

`Reason` is the one list. A member's word is the same in logs, metrics, access records, admin pages and
documentation, and its `Consequence` says what the peer sees: the TLS alert before a connection stands, the HTTP
status or gRPC status after. Shells never choose a status or an alert of their own.

The exceptions are one family by stage. They carry a Reason and a sentence for a person: what happened, the likely
cause, the next step. A peer that went away is an outcome (a Reason in the record), not an exception.
"""

from __future__ import annotations

import enum
import errno
import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """What a Reason means on the wire.

    `status` is the HTTP status (0: no answer can be given), `grpc_status` the gRPC code, `h2_code` the HTTP/2 error
    code (RFC 9113 section 7), `alert` the TLS alert sent to the peer ("" when the fault is not one of the handshake),
    `flags` Istio's short response flag ("-" for none) and `level` the log level of the one line that reports it.
    `body` is all that a caller is told where the sentence for the operator would tell it too much. `details` is what
    Envoy writes into `response_code_details` ("" where it names a rule).
    """

    status: int = 0
    grpc_status: int = 14
    h2_code: int = 0
    alert: str = ""
    flags: str = "-"
    level: int = logging.INFO
    body: bytes = b""
    details: str = ""


def _tls(alert: str, level: int = logging.WARNING) -> Consequence:
    return Consequence(grpc_status=16, h2_code=0x0C, alert=alert, level=level)


def _bad_request(status: int = 400) -> Consequence:
    return Consequence(status=status, grpc_status=13, h2_code=0x01, flags="DPE")


def _upstream(status: int, flags: str, grpc_status: int = 14) -> Consequence:
    return Consequence(status=status, grpc_status=grpc_status, h2_code=0x02, flags=flags, level=logging.WARNING)


def _limit(status: int, flags: str = "OM") -> Consequence:
    return Consequence(status=status, grpc_status=8, h2_code=0x0B, flags=flags, level=logging.WARNING)


def _denied() -> Consequence:
    return Consequence(status=403, grpc_status=7, h2_code=0x08, body=b"RBAC: access denied")


def _token(body: bytes, status: int = 401) -> Consequence:
    details = f"jwt_authn_access_denied{{{body.decode('ascii').replace(' ', '_')}}}"
    return Consequence(status=status, grpc_status=16 if status == 401 else 7, h2_code=0x08, body=body, details=details)


class Reason(enum.Enum):
    """Why something ended as it did. `reason.word` is the stable name, `reason.consequence` what the peer sees."""

    word: str
    consequence: Consequence

    # Members are singletons: Enum's own hash is a call into Python (0.15 µs), and every count is a dict of Reasons.
    __hash__ = object.__hash__

    def __new__(cls, word: str, consequence: Consequence | None = None) -> Reason:
        member = object.__new__(cls)
        member._value_ = member.word = word
        member.consequence = consequence or Consequence()
        return member

    OK = "ok"

    # --- who the peer is: faults of its certificate, found inside the verify callback ---
    CERTIFICATE_REQUIRED = "certificate_required", _tls("certificate_required")
    CERTIFICATE_EXPIRED = "certificate_expired", _tls("certificate_expired")
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid", _tls("bad_certificate")
    CERTIFICATE_MALFORMED = "certificate_malformed", _tls("bad_certificate")
    CHAIN_INVALID = "chain_invalid", _tls("bad_certificate")
    CHAIN_TOO_LONG = "chain_too_long", _tls("bad_certificate")
    SIGNATURE_INVALID = "signature_invalid", _tls("bad_certificate")
    NAME_CONSTRAINT_VIOLATED = "name_constraint_violated", _tls("bad_certificate")
    ISSUER_UNKNOWN = "issuer_unknown", _tls("unknown_ca")
    TRUST_DOMAIN_UNKNOWN = "trust_domain_unknown", _tls("unknown_ca")
    ROOT_OF_OTHER_TRUST_DOMAIN = "root_of_other_trust_domain", _tls("unknown_ca")
    URI_SAN_MISSING = "uri_san_missing", _tls("bad_certificate")
    URI_SAN_NOT_ALONE = "uri_san_not_alone", _tls("bad_certificate")
    SPIFFE_ID_INVALID = "spiffe_id_invalid", _tls("bad_certificate")
    SPIFFE_ID_WITHOUT_PATH = "spiffe_id_without_path", _tls("bad_certificate")
    SAN_NOT_CRITICAL = "san_not_critical", _tls("bad_certificate")
    LEAF_IS_CA = "leaf_is_ca", _tls("bad_certificate")
    KEY_USAGE_MISSING = "key_usage_missing", _tls("unsupported_certificate")
    KEY_USAGE_NOT_CRITICAL = "key_usage_not_critical", _tls("bad_certificate")
    DIGITAL_SIGNATURE_MISSING = "digital_signature_missing", _tls("unsupported_certificate")
    LEAF_MAY_SIGN_CERTIFICATES = "leaf_may_sign_certificates", _tls("bad_certificate")
    LEAF_MAY_SIGN_CRLS = "leaf_may_sign_crls", _tls("bad_certificate")
    EXTENDED_KEY_USAGE_LACKING = "extended_key_usage_lacking", _tls("unsupported_certificate")
    KEY_TOO_WEAK = "key_too_weak", _tls("bad_certificate")
    SIGNING_CERTIFICATE_INVALID = "signing_certificate_invalid", _tls("bad_certificate")
    SERVER_IDENTITY_UNEXPECTED = "server_identity_unexpected", _tls("bad_certificate")
    CERTIFICATE_REVOKED = "certificate_revoked", _tls("certificate_revoked")
    REVOCATIONS_UNKNOWN = "revocations_unknown", _tls("internal_error")

    # --- the handshake itself ---
    NOT_TLS = "not_tls", _tls("", logging.INFO)
    TLS_VERSION_UNSUPPORTED = "tls_version_unsupported", _tls("protocol_version")
    TLS_NO_COMMON_PARAMETERS = "tls_no_common_parameters", _tls("handshake_failure")
    ALPN_UNKNOWN = "alpn_unknown", _tls("no_application_protocol")
    HANDSHAKE_FAILED = "handshake_failed", _tls("handshake_failure")
    HANDSHAKE_TIMEOUT = "handshake_timeout", _tls("")
    HANDSHAKE_PEER_CLOSED = "handshake_peer_closed", _tls("", logging.INFO)
    PEER_REJECTED_US = (
        "peer_rejected_us",
        Consequence(status=503, grpc_status=14, h2_code=0x0C, flags="UF", level=logging.WARNING),
    )

    # --- our own material ---
    NOT_READY = "not_ready", Consequence(status=503, grpc_status=14, h2_code=0x07, flags="NR", level=logging.WARNING)

    # --- policy ---
    DENIED_BY_POLICY = "denied_by_policy", _denied()
    DENIED_BY_DEFAULT = "denied_by_default", _denied()
    DENIED_PROTOCOL_OPAQUE = "denied_protocol_opaque", _denied()
    PEER_CERTIFICATE_ENDED = "peer_certificate_ended", Consequence(status=0, grpc_status=16, h2_code=0x0C)
    TRUST_ENDED = "trust_ended", _upstream(503, "UF", 16)

    # --- JSON Web Tokens; the bodies are Envoy's ---
    TOKEN_MALFORMED = "token_malformed", _token(b"Jwt is not in the form of Header.Payload.Signature")
    TOKEN_ALGORITHM_REFUSED = "token_algorithm_refused", _token(b"Jwt header [alg] is not supported")
    TOKEN_ISSUER_UNKNOWN = "token_issuer_unknown", _token(b"Jwt issuer is not configured")
    TOKEN_KEY_UNKNOWN = "token_key_unknown", _token(b"Jwks doesn't have key to match kid or alg from Jwt")
    TOKEN_KEYS_UNAVAILABLE = "token_keys_unavailable", _token(b"Jwks remote fetch is failed")
    TOKEN_SIGNATURE_INVALID = "token_signature_invalid", _token(b"Jwt verification fails")
    TOKEN_EXPIRED = "token_expired", _token(b"Jwt is expired")
    TOKEN_NOT_YET_VALID = "token_not_yet_valid", _token(b"Jwt not yet valid")
    TOKEN_AUDIENCE_REFUSED = "token_audience_refused", _token(b"Audiences in Jwt are not allowed", 403)
    TOKENS_CONFLICT = "tokens_conflict", _token(b"Jwt verification fails")

    # --- what a client sent that two parsers could read differently (RFC 9112) ---
    REQUEST_LINE_INVALID = "request_line_invalid", _bad_request()
    METHOD_INVALID = "method_invalid", _bad_request()
    METHOD_REFUSED = "method_refused", _bad_request(405)
    TARGET_INVALID = "target_invalid", _bad_request()
    PATH_INVALID = "path_invalid", _bad_request()
    VERSION_UNSUPPORTED = "version_unsupported", _bad_request()
    HEADER_INVALID = "header_invalid", _bad_request()
    HEADER_NAME_UNDERSCORE = "header_name_underscore", _bad_request()
    HOST_MISSING = "host_missing", _bad_request()
    HOST_REPEATED = "host_repeated", _bad_request()
    HOST_INVALID = "host_invalid", _bad_request()
    CONTENT_LENGTH_INVALID = "content_length_invalid", _bad_request()
    CONTENT_LENGTH_REPEATED = "content_length_repeated", _bad_request()
    TRANSFER_ENCODING_INVALID = "transfer_encoding_invalid", _bad_request()
    TRANSFER_ENCODING_REPEATED = "transfer_encoding_repeated", _bad_request()
    FRAMING_CONFLICT = "framing_conflict", _bad_request()
    BARE_LINE_FEED = "bare_line_feed", _bad_request()
    CHUNK_INVALID = "chunk_invalid", _bad_request()
    TRAILER_INVALID = "trailer_invalid", _bad_request()
    UPGRADE_INVALID = "upgrade_invalid", _bad_request()
    EXPECTATION_UNKNOWN = "expectation_unknown", _bad_request(417)
    REQUEST_INCOMPLETE = "request_incomplete", Consequence(status=400, grpc_status=1, h2_code=0x08, flags="DC")
    HTTP2_NOT_SERVED = "http2_not_served", _bad_request(505)

    # --- limits ---
    HEAD_TOO_LARGE = "head_too_large", _limit(431, "DPE")
    TOO_MANY_HEADERS = "too_many_headers", _limit(431, "DPE")
    HEAD_TIMEOUT = "head_timeout", _limit(408, "DPE")
    CONNECTION_LIMIT = "connection_limit", _limit(503)
    HANDSHAKE_LIMIT = "handshake_limit", _limit(503)
    BUFFER_LIMIT = "buffer_limit", _limit(503)
    IDLE_TIMEOUT = "idle_timeout", Consequence(status=408, grpc_status=4, h2_code=0x00, flags="SI")
    POOL_LIMIT = "pool_limit", _upstream(503, "UO", 8)
    FILE_DESCRIPTORS_EXHAUSTED = "file_descriptors_exhausted", _limit(503)
    DETECTION_TIMEOUT = "detection_timeout", Consequence(level=logging.INFO)

    # --- upstream ---
    UPSTREAM_CONNECT_FAILED = "upstream_connect_failed", _upstream(503, "UF")
    UPSTREAM_CONNECT_TIMEOUT = "upstream_connect_timeout", _upstream(503, "UF")
    UPSTREAM_NAME_UNRESOLVED = "upstream_name_unresolved", _upstream(503, "DF")
    UPSTREAM_HANDSHAKE_FAILED = "upstream_handshake_failed", _upstream(503, "UF")
    UPSTREAM_IDENTITY_REJECTED = "upstream_identity_rejected", _upstream(503, "UF")
    UPSTREAM_CLOSED = "upstream_closed", _upstream(503, "UC")
    UPSTREAM_RESET = "upstream_reset", _upstream(503, "UR")
    UPSTREAM_RESPONSE_INVALID = "upstream_response_invalid", _upstream(502, "UPE", 13)
    UPSTREAM_RESPONSE_INCOMPLETE = "upstream_response_incomplete", _upstream(502, "UC", 13)
    UPSTREAM_TIMEOUT = "upstream_timeout", _upstream(504, "UT", 4)

    # --- where a captured connection was going ---
    NOT_CAPTURED = "not_captured", Consequence(h2_code=0x0B, flags="NR", level=logging.WARNING)
    SERVICE_UNKNOWN = "service_unknown", _upstream(502, "NR")

    # --- how it ended ---
    DOWNSTREAM_CLOSED = "downstream_closed", Consequence(grpc_status=1, h2_code=0x08, flags="DC")
    DOWNSTREAM_RESET = "downstream_reset", Consequence(grpc_status=1, h2_code=0x08, flags="DC")
    DRAINED = "drained", Consequence(status=503, grpc_status=14, h2_code=0x00)
    DRAIN_DEADLINE = "drain_deadline", Consequence(status=503, grpc_status=14, h2_code=0x08, level=logging.WARNING)
    INTERNAL_ERROR = "internal_error", Consequence(status=500, grpc_status=13, h2_code=0x02, level=logging.ERROR)


class RemoraError(Exception):
    """The root of what Remora raises. `reason` fixes the consequence, the message is for a person."""

    reason: Reason = Reason.INTERNAL_ERROR

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fault:
    """One thing wrong in a file: `file:line:column: what is wrong; what to write instead`.

    `line` and `column` count from 1; 0 means that the fault belongs to the file as a whole. `code` is the stable id
    of a finding of lint (`RM0101`), "" for what cannot be taken.
    """

    file: str
    line: int = 0
    column: int = 0
    message: str
    hint: str = ""
    code: str = ""

    @property
    def place(self) -> str:
        """Say where: `file:line:column`, or the file alone."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.place}: {self.message}{hint}" + (f" [{self.code}]" if self.code else "")


def reason_of(failure: OSError, otherwise: Reason) -> Reason:
    """Give the Reason that a broken connection carries itself (a peer that refused us by an alert), or `otherwise`."""
    reason = getattr(failure, "reason", None)
    return reason if isinstance(reason, Reason) else otherwise


class BufferOverrun(OSError):
    """More is held for a peer than one connection may hold, though its source was told to stop."""

    reason = Reason.BUFFER_LIMIT


class InternalFault(OSError):
    """A break that the sidecar itself is to blame for."""

    reason = Reason.INTERNAL_ERROR


class TrustEnded(OSError):
    """A break of our making: who is at the other end is no longer vouched for."""

    reason = Reason.TRUST_ENDED

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the server is no longer vouched for, or may not answer for this service")


class ConfigError(RemoraError):
    """A file that cannot be taken: carries every fault found in it, in order."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class HandshakeError(RemoraError):
    """A TLS handshake that failed. `presented` is the identity that the peer showed, "" if none was seen."""

    reason = Reason.HANDSHAKE_FAILED

    def __init__(self, message: str, reason: Reason | None = None, presented: str = "") -> None:
        super().__init__(message, reason)
        self.presented = presented


class ProtocolError(RemoraError):
    """Bytes that break HTTP. `side` is "downstream" for a request and "upstream" for an answer."""

    reason = Reason.REQUEST_LINE_INVALID

    def __init__(self, message: str, reason: Reason, side: str = "downstream") -> None:
        super().__init__(message, reason)
        self.side = side


class UpstreamError(RemoraError):
    """The next hop could not be reached or did not answer as it must."""

    reason = Reason.UPSTREAM_CONNECT_FAILED


class LimitExceeded(RemoraError):
    """A limit of the configuration was reached."""

    reason = Reason.CONNECTION_LIMIT
