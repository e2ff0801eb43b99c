"""What the service is told when it starts, from the arguments of `remora authority serve`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from certs.kube import KubeServer
from certs.rates import Rate
from certs.service import ADDRESS_RATE, IDENTITY_RATE
from certs.signing import Lifetimes
from proxy.config_values import Address
from proxy.https.config import WebFiles

DEFAULT_AUDIENCE: Final = "remora-authority"
"""The audience of projected ServiceAccount tokens: a token for another service must not give a certificate here."""

DEFAULT_NAMESPACE: Final = "remora-system"
DEFAULT_ACCOUNT: Final = "remora-authority"
"""The authority's own identity is spiffe://<trust domain>/ns/remora-system/sa/remora-authority."""

STDOUT: Final = "stdout"

TICK: Final = 1.0
"""Seconds between two looks at what is due. Rotations wait for minutes; a look at nothing costs some microseconds."""

CONNECTIONS: Final = 1024
"""Open connections of the signing port, each 35 KiB. A sidecar polls every five minutes and closes in between."""

FEDERATION_CONNECTIONS: Final = 128
"""Open connections of the federation listener. Each of some foreign sidecars polls every five minutes and hangs up."""

FEDERATION_HANDSHAKES: Final = 64
"""Under way at once, half of the usual: whoever comes from outside the mesh is behind those of the mesh."""

OWN_LIFETIME: Final = datetime.timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """How ServiceAccount tokens are judged.

    With `server` the Kubernetes API is asked: for each token (TokenReview), or only for its keys and for the pod when
    `is_offline`. Without it the keys come from `jwks_file`, the issuer is `issuer`, and no pod can be looked up.
    `allows_without_pod` takes tokens that are bound to no pod.
    """

    audience: str = DEFAULT_AUDIENCE
    server: KubeServer | None = None
    is_offline: bool = False
    jwks_file: Path | None = None
    issuer: str = ""
    allows_without_pod: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationListen:
    """The listener for other trust domains. With `web` it is known by that (https_web), without by our own SVID."""

    listen: Address
    web: WebFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything that `serve` needs beside the store.

    `health` None: no health listener; `federation` None: no listener for others; `policy` None: the shipped one.
    """

    directory: Path
    listen: Address
    health: Address | None = None
    federation: FederationListen | None = None
    namespace: str = DEFAULT_NAMESPACE
    service_account: str = DEFAULT_ACCOUNT
    policy: Path | None = None
    audit_log: str = STDOUT
    tokens: TokenSource | None = None
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    own_lifetime: datetime.timedelta = OWN_LIFETIME
    is_certificate_enough: bool = True
    identity_rate: Rate = IDENTITY_RATE
    address_rate: Rate = ADDRESS_RATE
    replica: str = "authority"
    tick: float = TICK
    connections: int = CONNECTIONS
