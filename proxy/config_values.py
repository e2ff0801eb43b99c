"""The configuration as values: what `proxy/config.py` makes of the file, after every check.

Whoever holds a `Config` need check nothing: services that listeners name exist, addresses parse, identities are
valid, limits are within their bounds. Times are float seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from certs.spiffe import SpiffeId, TrustDomain
from proxy.limits import Limits
from proxy.types import Protocol

PolicyDefaultName = Literal["deny", "allow-authenticated", "allow-all", "audit"]
PathNormalizationName = Literal["none", "base", "merge_slashes", "decode_and_merge_slashes"]
LoopName = Literal["uvloop", "asyncio"]
SpeaksFirstName = Literal["client", "server"]
UnknownName = Literal["reject", "passthrough"]
RevokedName = Literal["reset", "close"]
ProfileName = Literal["https_web", "https_spiffe"]
CrlName = Literal["fail-closed", "warn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port. `host` is an IP address in canonical form without brackets, or a DNS name where allowed."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_name(self) -> bool:
        """The host is a DNS name, to be resolved."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    @property
    def is_loopback(self) -> bool:
        """The host is an address of this machine alone; a name is not, whatever it resolves to."""
        return not self.is_name and ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixSocket:
    """A unix socket by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig:
    """Who this sidecar stands for; `labels` are what policy selectors look at.

    `directory` is where the downward API says name, namespace and labels, "" where the configuration file does.
    """

    namespace: str
    service_account: str
    name: str
    labels: Mapping[str, str]
    directory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFiles:
    """The directory that holds tls.crt, tls.key, ca.crt and bundles/, and perhaps crl.der or crl.pem.

    `crl` says what holds for new connections while the revocation list is missing or past its nextUpdate.
    """

    directory: str
    crl: CrlName = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityAuthority:
    """The authority that issues our certificate: where it is, by which token we ask, and how we know it.

    `url` is as written, `address` what is dialled. `token_file` is read anew for each certificate. `bundle_file` holds
    the roots by which the authority is believed the first time, `identity` is who must answer. `lifetime` is what is
    asked for, None for what the authority usually gives; `timeout` bounds one conversation.
    """

    url: str
    address: Address
    token_file: str
    bundle_file: str
    identity: SpiffeId
    lifetime: float | None = None
    timeout: float = 10.0
    crl: CrlName = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCredentialBundle:
    """One PEM file with key and chain, as Kubernetes pod certificates are delivered, and where trust is read from.

    `bundle_file` holds the roots of our trust domain (a projected ClusterTrustBundle); `bundles` is a directory with
    `<trust domain>.json` or `.pem` of other domains, "" for none.
    """

    file: str
    bundle_file: str
    bundles: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCommand:
    """A program that prints an identity; `run` are its path and arguments, no shell is between.

    `timeout` is in seconds; `bundle_file` holds the roots of our trust domain where the program prints none, "" else.
    """

    run: tuple[str, ...]
    timeout: float = 30.0
    bundle_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityWorkloadApi:
    """The SPIFFE Workload API, such as a SPIRE agent offers it, on a unix socket."""

    socket: UnixSocket


IdentitySource = IdentityFiles | IdentityAuthority | IdentityCredentialBundle | IdentityCommand | IdentityWorkloadApi


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedDomain:
    """A foreign trust domain whose bundle is polled: three parameters, none of which is inferred from another.

    With https_spiffe `identity` is the SPIFFE ID that the endpoint must show and `bundle_file` the bootstrap bundle of
    that ID's trust domain. With https_web `ca_file` may hold the roots to verify it by, "" means the system's.
    """

    trust_domain: TrustDomain
    url: str
    profile: ProfileName
    identity: SpiffeId | None = None
    bundle_file: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundPort:
    """One port that peers reach: `port` is what policies see, `app` where the application listens.

    With capture, `listen` is None, and so is `app` where it is the address that the peer has dialled.
    `speaks_first` counts where plaintext is taken (PeerAuthentication PERMISSIVE or DISABLE): where the server speaks
    first, a client that stays silent for `limits.detection_timeout` speaks plaintext.
    """

    listen: Address | None
    port: int
    app: Address | None
    protocol: Protocol
    speaks_first: SpeaksFirstName = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundListener:
    """One address that the application dials; what it sends goes to the service named.

    With `captures`, rules in the kernel bring everything that the application dials, and `service` is "".
    """

    listen: Address
    service: str
    captures: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where a service is and who must answer there.

    `mutual` false means plaintext to the endpoint (`tls: none`), and then `identities` is empty. `timeout` is the time
    from the end of a request to the head of its answer. `addresses` are the original destinations that mean it.
    """

    name: str
    hosts: tuple[str, ...]
    endpoints: tuple[Address, ...]
    protocol: Protocol
    timeout: float
    mutual: bool
    identities: frozenset[SpiffeId]
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundConfig:
    """What the application may call: `services` by name, and the listeners that lead to them.

    `unknown` says what becomes of captured connections to an address that is none of a service's.
    `directory` is where more services come from, "" for nowhere; while they are not read, it is not whole.
    """

    listeners: tuple[OutboundListener, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    unknown: UnknownName = "reject"
    directory: str = ""
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Where policies are mounted, what holds where none speaks, and how connections end that it no longer allows.

    `trusted_proxies` is how many addresses at the end of x-forwarded-for proxies of ours wrote. `revoked` says how an
    opaque connection or a tunnel ends that is no longer allowed: TCP reset, or close.
    """

    directory: str
    default: PolicyDefaultName = "deny"
    path_normalization: PathNormalizationName = "base"
    root_namespace: str = "istio-system"
    trusted_proxies: int = 0
    jwks_allow_loopback: bool = False
    revoked: RevokedName = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """The listener for people: an address on loopback, or a unix socket."""

    listen: Address | UnixSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """A probe by HTTP: any status from 200 to 399 is success. With TLS the certificate is not looked at."""

    port: int
    path: str = "/"
    is_tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """A probe that opens a connection and no more."""

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcProbe:
    """A probe by grpc.health.v1.Health/Check, in plaintext as the kubelet's."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is asked of the application when somebody asks for `path`; `timeout` is in seconds."""

    path: str
    action: HttpGet | TcpProbe | GrpcProbe
    timeout: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationMetrics:
    """Where the application's own metrics are, which one scrape gives beside ours."""

    port: int
    path: str = "/metrics"
    is_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """The listener for probes and scrapes, and what is done there for the application.

    `quits_for_loopback` lets a Job's container end the sidecar by POST /quitquitquit from loopback.
    """

    listen: Address
    probes: tuple[Probe, ...] = ()
    application_metrics: ApplicationMetrics | None = None
    quits_for_loopback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """`access_log` is "stdout", "off" or the path of a file."""

    access_log: str = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How the process runs; `watch_interval` is how often mounted files are looked at.

    With more than one of `workers`, a supervisor runs that many processes as one sidecar.
    """

    loop: LoopName = "uvloop"
    workers: int = 1
    watch_interval: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One configuration file, whole and checked."""

    workload: WorkloadConfig
    trust_domain: TrustDomain
    trust_domain_aliases: tuple[TrustDomain, ...]
    identity: IdentitySource
    inbound: tuple[InboundPort, ...]
    """With capture, what is known of ports; every other one is captured too."""
    outbound: OutboundConfig
    policy: PolicyConfig
    admin: ListenConfig | None
    health: HealthConfig | None
    telemetry: TelemetryConfig
    limits: Limits
    runtime: RuntimeConfig
    federation: tuple[FederatedDomain, ...] = ()
    federation_cache: str = ""
    inbound_capture: Address | None = None
    """Where rules in the kernel bring every connection of peers (`inbound.mode: capture`)."""
