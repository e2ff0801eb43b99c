"""Decides whether the pod that a token is bound to is still the same one and still runs, and its ServiceAccount too.

A token outlives its pod by up to its lifetime. Whoever copied one from a pod that is gone must not get a certificate
with it, and a new pod of the same name (a StatefulSet makes them) is not the old one: its uid differs. The same is true
of a ServiceAccount, which a TokenReview looks at and an offline verification does not.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from certs.caller import Caller
from certs.callers.claims import SKEW
from certs.refusals import Refusal, Refused

_ENDED: Final = ("Succeeded", "Failed")


def check_pod(caller: Caller, document: Mapping[str, object] | None, now: float) -> None:
    """Refuses a caller whose pod is not what its token says; `document` is the Pod, None when there is none (404).

    `now` is in seconds since the epoch. POD_REPLACED when name, uid, ServiceAccount or node (a pod never moves) differ;
    POD_GONE when it is not there, has ended, or its deletionTimestamp is over. That timestamp is the end of the grace
    period and not its begin (Kubernetes adds the grace when it sets it); 60 s are allowed for the clocks. A caller
    without a pod passes: whether there may be one was decided with its token.

    >>> from certs.caller import How, PodRef
    >>> from certs.spiffe import SpiffeId
    >>> orders = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
    >>> pod = PodRef(namespace="demo", name="orders-0", uid="7-a")
    >>> check_pod(Caller(spiffe_id=orders, how=How.SERVICE_ACCOUNT_TOKEN, pod=pod), None, now=0.0)
    Traceback (most recent call last):
    certs.refusals.Refused: the pod demo/orders-0 (7-a) is gone; a new pod brings its own token
    """
    pod = caller.pod
    if pod is None:
        return
    if document is None:
        raise Refused(Refusal.POD_GONE, f"the pod {pod} is gone; a new pod brings its own token")
    metadata, spec, status = (_object(document, name) for name in ("metadata", "spec", "status"))
    if (metadata.get("namespace"), metadata.get("name"), metadata.get("uid")) != (pod.namespace, pod.name, pod.uid):
        raise Refused(Refusal.POD_REPLACED, f"the pod {pod} was replaced by another; that one brings its own token")
    if spec.get("serviceAccountName") != caller.spiffe_id.service_account:
        raise Refused(
            Refusal.POD_REPLACED,
            f"the pod {pod} does not run as the ServiceAccount of {caller.spiffe_id}; use the pod's own token",
        )
    if pod.node is not None and spec.get("nodeName") != pod.node:
        raise Refused(
            Refusal.POD_REPLACED,
            f"the pod {pod} runs on another node than its token says; use the pod's own token",
        )
    if status.get("phase") in _ENDED:
        raise Refused(Refusal.POD_GONE, f"the pod {pod} has ended ({status['phase']}); a new pod brings its own token")
    ends = metadata.get("deletionTimestamp")
    if ends is not None and now >= _time(ends) + SKEW:
        raise Refused(Refusal.POD_GONE, f"the pod {pod} is deleted and its grace is over; a new pod brings its token")


def check_account(caller: Caller, document: Mapping[str, object] | None) -> None:
    """Refuses, with TOKEN_REFUSED, a caller whose ServiceAccount is gone or was made anew since its token.

    `document` is the ServiceAccount, None when there is none (404). A caller whose token names no uid passes: the API
    server has judged it.

    >>> from certs.caller import How
    >>> from certs.spiffe import SpiffeId
    >>> orders = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
    >>> caller = Caller(spiffe_id=orders, how=How.SERVICE_ACCOUNT_TOKEN, account_uid="5-a")
    >>> check_account(caller, None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    certs.refusals.Refused: the ServiceAccount of spiffe://cluster.local/ns/demo/sa/orders is gone ...
    """
    if caller.account_uid is None:
        return
    metadata = _object(document or {}, "metadata")
    who = caller.spiffe_id
    if (metadata.get("namespace"), metadata.get("name"), metadata.get("uid")) != (
        who.namespace,
        who.service_account,
        caller.account_uid,
    ):
        raise Refused(
            Refusal.TOKEN_REFUSED,
            f"the ServiceAccount of {who} is gone or was made anew since the token was issued; start the pod anew",
        )


def _object(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _time(value: object) -> float:
    try:
        parsed = datetime.datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        # What cannot be read is taken as over long ago: no certificate on a guess.
        return float("-inf")
    return parsed.timestamp()
