"""Reads what a ServiceAccount's token says, the same for both ways of proving it (offline and by TokenReview).

Nothing here verifies a signature. `read_claims` only unpacks; its callers say whether the token is believed.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Final

from certs.caller import Caller, How, PodRef
from certs.refusals import Refusal, Refused
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain
from certs.strict_json import parse_json

MAX_TOKEN_CHARACTERS: Final = 16 * 1024
"""A projected token has about 1 KiB; a header or body field beyond 16 KiB is nobody's token."""

MAX_LIFETIME: Final = 24 * 3600.0
"""A projected token lives for an hour by default and the kubelet renews it. One of a year is a password: refused."""

SKEW: Final = 60.0
"""A minute between two machines' clocks is ordinary; more would let a token live on noticeably after its end."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
"""Those of a key that has a public half (RFC 7518 section 3.1), as kube-apiserver takes them."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,128}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_PROJECTED: Final = "mount a projected ServiceAccount token, as the injector does"


def read_claims(token: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Unpacks header and claims of a JWT (RFC 7519) without believing them; Refused with TOKEN_MALFORMED otherwise.

    A member that stands twice is refused: two readers could see two tokens. So is a part in another spelling than the
    one of RFC 4648 section 5 (STRICTER than its section 3.5): a token that was changed in its unused bits is no token.

    >>> read_claims("eyJhbGciOiJub25lIn0.e30.")[0]["alg"]
    'none'
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Refused(
            Refusal.TOKEN_MALFORMED, f"the token is longer than {MAX_TOKEN_CHARACTERS} characters; {_PROJECTED}"
        )
    parts = token.split(".")
    if len(parts) != 3:
        raise Refused(Refusal.TOKEN_MALFORMED, f"the token is no JWT of three parts; {_PROJECTED}")
    header, claims = _part(parts[0], "header"), _part(parts[1], "claims")
    if parts[2]:
        try:
            _decoded(parts[2])
        except ValueError:
            raise Refused(
                Refusal.TOKEN_MALFORMED, f"the token's signature is cut short or is no base64url; {_PROJECTED}"
            ) from None
    return header, claims


def check_times(claims: Mapping[str, object], now: float, *, max_lifetime: float = MAX_LIFETIME) -> float:
    """Checks exp, nbf and the lifetime of a token at `now` (seconds since the epoch); returns its exp.

    `exp` is required, `iat` too: without it the lifetime is unknown. 60 s of skew are allowed for the clocks, none
    for the lifetime (exp - iat, both by the issuer's clock).

    >>> check_times({"iat": 1000, "exp": 4600}, 2000.0)
    4600.0
    """
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    begins = _seconds(claims, "nbf") if "nbf" in claims else issued
    if now >= expires + SKEW:
        raise Refused(
            Refusal.TOKEN_EXPIRED,
            f"the token expired {now - expires:.0f} seconds ago; read the token file again before each request",
        )
    if now < max(begins, issued) - SKEW:
        raise Refused(
            Refusal.TOKEN_NOT_YET_VALID,
            f"the token begins in {max(begins, issued) - now:.0f} seconds; set the clocks of both machines",
        )
    if not 0 < expires - issued <= max_lifetime:
        raise Refused(
            Refusal.TOKEN_REFUSED,
            f"the token lives for {expires - issued:.0f} seconds, more than {max_lifetime:.0f} or less than none; "
            "set expirationSeconds of the projected token to 3600",
        )
    return expires


def check_header(header: Mapping[str, object]) -> str:
    """Returns the algorithm of a token's header; Refused with TOKEN_ALGORITHM_REFUSED unless a cluster signs by it.

    A header that demands an extension (RFC 7515 section 4.1.11, RFC 7797) is Refused with TOKEN_MALFORMED.

    >>> check_header({"alg": "ES256"})
    'ES256'
    """
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused(
            Refusal.TOKEN_ALGORITHM_REFUSED,
            f"the token's algorithm is none of {', '.join(ALGORITHMS)}; bring the token that the kubelet mounts",
        )
    if "crit" in header or "b64" in header:
        raise Refused(
            Refusal.TOKEN_MALFORMED, f"the token's header demands an extension that no cluster uses; {_PROJECTED}"
        )
    return algorithm


def check_audience(audiences: object, ours: str) -> None:
    """Refuses a token that was not made for us: `aud` (a text or a list of texts, RFC 7519 4.1.3) must hold `ours`.

    >>> check_audience(["remora"], "remora")
    """
    listed = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(listed, list) or ours not in listed:
        raise Refused(
            Refusal.TOKEN_AUDIENCE_REFUSED,
            f"the token is not made for the audience {ours!r}; set it as the audience of the projected token",
        )


def caller_of(
    *,
    trust_domain: TrustDomain,
    username: object,
    pod_name: object,
    pod_uid: object,
    node: object = None,
    account_uid: str | None = None,
    token_expires: float,
    allow_without_pod: bool = False,
) -> Caller:
    """Makes the Caller that a believed token stands for.

    `username` is `system:serviceaccount:<namespace>:<name>`. Pod name and uid come together or not at all; without
    a pod it is Refused with TOKEN_NOT_OF_A_WORKLOAD, unless `allow_without_pod`. `node` is the pod's, None if unsaid.

    >>> who = {"username": "system:serviceaccount:demo:orders", "pod_name": "orders-0", "pod_uid": "7-a"}
    >>> caller = caller_of(trust_domain=TrustDomain("cluster.local"), token_expires=1.0, **who)
    >>> str(caller.spiffe_id), str(caller.pod)
    ('spiffe://cluster.local/ns/demo/sa/orders', 'demo/orders-0 (7-a)')
    """
    prefix, namespace, name = _account(username)
    if prefix != "system:serviceaccount" or not _LABEL.fullmatch(namespace) or not _SUBDOMAIN.fullmatch(name):
        raise Refused(Refusal.TOKEN_NOT_OF_A_WORKLOAD, f"the token names no ServiceAccount; {_PROJECTED}")
    pod: PodRef | None = None
    if pod_name is not None or pod_uid is not None:
        if not isinstance(pod_name, str) or not _SUBDOMAIN.fullmatch(pod_name):
            raise Refused(Refusal.TOKEN_MALFORMED, f"the token's pod has no valid name; {_PROJECTED}")
        if not isinstance(pod_uid, str) or not _UID.fullmatch(pod_uid):
            raise Refused(Refusal.TOKEN_MALFORMED, f"the token's pod has no valid uid; {_PROJECTED}")
        if node is not None and (not isinstance(node, str) or not _SUBDOMAIN.fullmatch(node)):
            raise Refused(Refusal.TOKEN_MALFORMED, f"the token's node has no valid name; {_PROJECTED}")
        pod = PodRef(namespace=namespace, name=pod_name, uid=pod_uid, node=node)
    elif not allow_without_pod:
        raise Refused(Refusal.TOKEN_NOT_OF_A_WORKLOAD, f"the token is bound to no pod; {_PROJECTED}")
    try:
        spiffe_id = SpiffeId.for_service_account(trust_domain, namespace, name)
    except SpiffeIdError as error:
        raise Refused(Refusal.IDENTITY_INVALID, str(error)) from None
    return Caller(
        spiffe_id=spiffe_id,
        how=How.SERVICE_ACCOUNT_TOKEN,
        pod=pod,
        account_uid=account_uid,
        token_expires=token_expires,
    )


def _account(username: object) -> tuple[str, str, str]:
    if not isinstance(username, str) or username.count(":") != 3:
        return "", "", ""
    prefix, namespace, name = username.rsplit(":", 2)
    return prefix, namespace, name


def _part(text: str, name: str) -> Mapping[str, object]:
    try:
        document = parse_json(_decoded(text))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused(Refusal.TOKEN_MALFORMED, f"the token's {name} cannot be read; {_PROJECTED}")
    return document


def _decoded(text: str) -> bytes:
    """Decodes base64url without padding; raises ValueError for any other spelling of the same bytes."""
    if not _SEGMENT.fullmatch(text):
        raise ValueError("it is no base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # binascii.Error is a ValueError
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode("ascii"):
        raise ValueError("its last character has bits that belong to no byte")
    return raw


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value):
        return float(value)
    raise Refused(Refusal.TOKEN_MALFORMED, f"the token's {name} is no time in seconds; {_PROJECTED}")
