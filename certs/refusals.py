"""Why the authority refuses: one word for each cause, the same in answers, audit lines, metrics and documentation.

A refusal costs its author nothing but the word: no signature is made, and what it says to the caller holds no secret.
"""

from __future__ import annotations

import enum
from typing import Final


class Refusal(enum.Enum):
    """The word for a cause, and the HTTP status that it is answered with."""

    REQUEST_MALFORMED = ("request_malformed", 400)
    REQUEST_TOO_LARGE = ("request_too_large", 413)
    CSR_MALFORMED = ("csr_malformed", 400)
    POSSESSION_NOT_PROVED = ("possession_not_proved", 400)
    KEY_TOO_WEAK = ("key_too_weak", 400)
    KEY_REVOKED = ("key_revoked", 403)
    LIFETIME_REFUSED = ("lifetime_refused", 400)
    CALLER_UNKNOWN = ("caller_unknown", 401)
    TOKEN_MALFORMED = ("token_malformed", 401)
    TOKEN_ALGORITHM_REFUSED = ("token_algorithm_refused", 401)
    TOKEN_ISSUER_UNKNOWN = ("token_issuer_unknown", 401)
    TOKEN_AUDIENCE_REFUSED = ("token_audience_refused", 401)
    TOKEN_EXPIRED = ("token_expired", 401)
    TOKEN_NOT_YET_VALID = ("token_not_yet_valid", 401)
    TOKEN_KEY_UNKNOWN = ("token_key_unknown", 401)
    TOKEN_SIGNATURE_INVALID = ("token_signature_invalid", 401)
    TOKEN_REFUSED = ("token_refused", 401)
    TOKEN_NOT_OF_A_WORKLOAD = ("token_not_of_a_workload", 403)
    POD_GONE = ("pod_gone", 403)
    POD_REPLACED = ("pod_replaced", 403)
    JOIN_TOKEN_UNKNOWN = ("join_token_unknown", 401)
    JOIN_TOKEN_USED = ("join_token_used", 401)
    JOIN_TOKEN_EXPIRED = ("join_token_expired", 401)
    IDENTITY_REVOKED = ("identity_revoked", 403)
    IDENTITY_CHANGED = ("identity_changed", 403)
    IDENTITY_INVALID = ("identity_invalid", 403)
    POLICY_DENIED = ("policy_denied", 403)
    RATE_LIMITED = ("rate_limited", 429)
    REVIEW_UNAVAILABLE = ("review_unavailable", 503)
    AUTHORITY_NOT_READY = ("authority_not_ready", 503)

    def __init__(self, word: str, status: int) -> None:
        self.word: Final = word
        self.status: Final = status


class Refused(ValueError):
    """A request that is not granted. `reason` is why; the message says so to its author, with the mend."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason
