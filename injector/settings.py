"""How one pod is injected: every setting with its type, as annotations and the defaults file give it.

The values are checked: whoever holds a `Settings` need not look again. `injector.annotations` has the table of keys.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from injector import names
from injector.ports import ALL, NONE, Ports

_NONE: Final[Mapping[int, str]] = MappingProxyType({})
_NO_LISTENERS: Final[Mapping[str, int]] = MappingProxyType({})

AUDIENCE: Final = "remora-authority"
"""The audience of the projected token: as `remora authority serve` wants it."""


class Capture(enum.Enum):
    """How the pod's traffic gets into the sidecar."""

    REDIRECT = "redirect"
    """By rules in the kernel, which an init container with NET_ADMIN sets."""
    PORTS = "ports"
    """By addresses that others dial, without any privilege."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one pod. Durations are seconds, quantities and images as written; "" means not set."""

    image: str = "remora:latest"
    image_pull_policy: str = ""
    cpu_request: str = "100m"
    cpu_limit: str = ""
    memory_request: str = "64Mi"
    memory_limit: str = "256Mi"
    log_level: str = "info"
    access_log: str = "stdout"
    workers: int = 1

    capture: Capture = Capture.REDIRECT
    include_inbound_ports: Ports = ALL
    exclude_inbound_ports: Ports = NONE
    include_outbound_ports: Ports = NONE
    exclude_outbound_ports: Ports = NONE
    include_outbound_ip_ranges: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    exclude_outbound_ip_ranges: tuple[str, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    opaque_ports: Ports = NONE
    skip_sniff_ports: Ports = NONE
    inbound_ports: Mapping[int, str] = field(default_factory=lambda: _NONE)
    outbound_listeners: Mapping[str, int] = field(default_factory=lambda: _NO_LISTENERS)
    unknown_outbound: str = "reject"

    rewrite_probes: bool = True
    native_sidecar: bool = True
    hold_application: bool = True
    drain_timeout: float = 20.0
    merge_metrics: bool = True

    policy_config_map: str = names.POLICY
    services_config_map: str = names.SERVICES
    policy_default: str = "deny"
    root_namespace: str = "istio-system"

    trust_domain: str = "cluster.local"
    authority: str = f"https://{names.AUTHORITY}.{names.NAMESPACE}:{names.AUTHORITY_PORT}"
    authority_identity: str = ""
    token_audience: str = AUDIENCE
    token_lifetime: float = 3600.0
    certificate_lifetime: float = 0.0
