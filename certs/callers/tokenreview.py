"""Asks the Kubernetes API whether a ServiceAccount token is good (TokenReview, authentication.k8s.io/v1).

The API server knows what no signature tells: that the ServiceAccount and the bound pod still exist. What it answers
is judged here; the question travels by `certs.kube`. A token that condemns itself is not worth the question:
`check_unproved` comes first, so that whoever sends nonsense does not drive the API server.
"""

from __future__ import annotations

from collections.abc import Mapping

from certs.caller import Caller
from certs.callers.claims import (
    MAX_LIFETIME,
    caller_of,
    check_audience,
    check_header,
    check_times,
    read_claims,
)
from certs.refusals import Refusal, Refused
from certs.spiffe import TrustDomain

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
NODE_NAME = "authentication.kubernetes.io/node-name"


def check_unproved(token: str, *, audience: str, now: float, max_lifetime: float = MAX_LIFETIME) -> None:
    """Refuses a token that condemns itself: no JWT, an algorithm of no cluster, another audience, out of its time.

    Nothing is believed of one that passes. Raises Refused: TOKEN_MALFORMED, TOKEN_ALGORITHM_REFUSED,
    TOKEN_AUDIENCE_REFUSED, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_REFUSED (its lifetime).

    >>> check_unproved("t", audience="remora", now=0.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    certs.refusals.Refused: the token is no JWT of three parts; mount a projected ServiceAccount token, ...
    """
    header, claims = read_claims(token)
    check_header(header)
    if "aud" in claims:  # without it the token is for the API server's own audience, as that one will say
        check_audience(claims["aud"], audience)
    check_times(claims, now, max_lifetime=max_lifetime)


def review_request(token: str, audience: str) -> dict[str, object]:
    """Makes the TokenReview to create. It holds the token: it is for the API server and for no log.

    >>> review_request("t", "remora")["spec"]
    {'token': 't', 'audiences': ['remora']}
    """
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }


def read_review(
    response: Mapping[str, object],
    token: str,
    *,
    trust_domain: TrustDomain,
    audience: str,
    now: float,
    max_lifetime: float = MAX_LIFETIME,
    allow_without_pod: bool = False,
) -> Caller:
    """Judges the API server's answer for `token` at `now` (seconds since the epoch); returns whom it stands for.

    The token's own times are read once the server has said that it is authentic. `status.audiences` must hold ours:
    a server that does not know audiences leaves it out, and then the token may be meant for somebody else.
    Raises Refused: TOKEN_REFUSED, TOKEN_AUDIENCE_REFUSED, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID,
    TOKEN_NOT_OF_A_WORKLOAD, TOKEN_MALFORMED, and REVIEW_UNAVAILABLE for an answer that is no TokenReview.

    >>> answer = {"kind": "TokenReview", "status": {"error": "token has expired"}}
    >>> cluster = TrustDomain("cluster.local")
    >>> read_review(answer, "t", trust_domain=cluster, audience="remora", now=0.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    certs.refusals.Refused: the Kubernetes API does not accept the token; read the token file again, ...
    """
    status = response.get("status")
    if response.get("kind") != "TokenReview" or not isinstance(status, dict):
        raise Refused(
            Refusal.REVIEW_UNAVAILABLE,
            "the Kubernetes API answered with something other than a TokenReview; check the configured address",
        )
    if status.get("authenticated") is not True or status.get("error"):
        # The server's words are not passed on: they are for its operator, and may quote what was sent.
        raise Refused(
            Refusal.TOKEN_REFUSED,
            "the Kubernetes API does not accept the token; read the token file again, and check that its audience is "
            f"{audience!r} and that the pod and its ServiceAccount still exist",
        )
    check_audience(status.get("audiences"), audience)
    user = status.get("user")
    extra = user.get("extra") if isinstance(user, dict) else None
    extra = extra if isinstance(extra, dict) else {}
    expires = check_times(read_claims(token)[1], now, max_lifetime=max_lifetime)
    return caller_of(
        trust_domain=trust_domain,
        username=user.get("username") if isinstance(user, dict) else None,
        pod_name=_single(extra, POD_NAME),
        pod_uid=_single(extra, POD_UID),
        node=_single(extra, NODE_NAME),
        token_expires=expires,
        allow_without_pod=allow_without_pod,
    )


def _single(extra: Mapping[str, object], name: str) -> object:
    if name not in extra:
        return None
    values = extra[name]
    if not isinstance(values, list) or len(values) != 1:
        raise Refused(
            Refusal.TOKEN_MALFORMED,
            f"the Kubernetes API does not give exactly one {name} for the token; mount a projected token",
        )
    return values[0]
