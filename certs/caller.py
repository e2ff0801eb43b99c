"""Names who asks the authority for a certificate, once that is proved, and how it was proved.

A Caller is made by whatever authenticated the request, and by nothing else: what stands in it is believed. A name
that was only claimed never becomes a Caller; it may stand in an audit line, marked as unverified.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from certs.spiffe import SpiffeId


class How(enum.Enum):
    """The proof that a caller gave; the value is the word that audit lines and metrics use."""

    SERVICE_ACCOUNT_TOKEN = "service_account_token"  # noqa: S105 (a word, no secret)
    JOIN_TOKEN = "join_token"  # noqa: S105 (a word, no secret)
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRef:
    """A pod as Kubernetes tells it apart: a pod that was deleted and made again has the name, and another uid.

    `node` is the node that it runs on, None when its token does not say (before Kubernetes 1.30).
    """

    namespace: str
    name: str
    uid: str
    node: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} ({self.uid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller: the identity that the issued leaf will name.

    `pod` is the pod that a ServiceAccount token is bound to, and `account_uid` the uid of its ServiceAccount where the
    token says it; None for other proofs. `token_expires` is the end of the token that was presented, in seconds since
    the epoch, None when there was none. `peer` is the identity of the connection's client certificate, None when the
    connection had none; a token does not make it disappear.

    >>> orders = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
    >>> Caller(spiffe_id=orders, how=How.CERTIFICATE, peer=orders).how.value
    'certificate'
    """

    spiffe_id: SpiffeId
    how: How
    pod: PodRef | None = None
    account_uid: str | None = None
    token_expires: float | None = None
    peer: SpiffeId | None = None
