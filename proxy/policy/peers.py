"""PeerAuthentication: which ports take mutual TLS, plaintext, or either.

    workload (selector, own namespace)  >  namespace  >  mesh (root namespace)      UNSET: ask the next
    port of the workload's policy       >  that policy's mode                       UNSET: the workload's mode

Of several policies of one scope the first in (file, document) counts alone, even when it says UNSET. An empty selector
is none, and a selector in the root namespace has no effect, ports included. With nothing said at all the answer is
STRICT, except under the default `allow-all`, which is Istio's world and Istio's answer.

A change of mode speaks to connections that stand, too: STRICT ends those without identity. DISABLE ends none: it says
how new connections are read, and nothing in it forbids a caller whose identity is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.policy.model import MtlsMode, PeerAuthentication, PolicyDefault, PolicySettings, Workload, selects


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerModes:
    """The mode of every port: `ports` where a port has its own, `mode` elsewhere; none is UNSET.

    `source` says who set `mode`, `ports_source` who set `ports`.
    """

    mode: MtlsMode
    ports: Mapping[int, MtlsMode]
    source: str
    ports_source: str = ""

    def at(self, port: int) -> MtlsMode:
        """Give the mode of a workload port."""
        return self.ports.get(port, self.mode)

    def said_by(self, port: int) -> str:
        """Name the policy that set the mode of a workload port, or say that none did."""
        return self.ports_source if port in self.ports else self.source

    def requires_mtls(self, port: int) -> bool:
        """Say whether a peer without a verified certificate is refused on this workload port."""
        return self.at(port) is MtlsMode.STRICT


def resolve_modes(policies: Iterable[PeerAuthentication], workload: Workload, settings: PolicySettings) -> PeerModes:
    """Find the modes that hold for a workload.

    `policies` come in the order of (file, document): files carry no age, so of two for one scope the first counts.
    """
    scopes: dict[str, PeerAuthentication] = {}
    for policy in policies:
        in_root = policy.namespace == settings.root_namespace
        if (in_root and policy.selector) or (not in_root and policy.namespace != workload.namespace):
            continue
        scope = "workload" if policy.selector else "mesh" if in_root else "namespace"
        if selects(policy.selector, workload.labels):
            scopes.setdefault(scope, policy)
    mode, source = MtlsMode.UNSET, ""
    for scope in ("mesh", "namespace", "workload"):  # from wide to narrow: the narrowest that speaks stays
        speaks = scopes.get(scope)
        if speaks is not None and speaks.mode is not MtlsMode.UNSET:
            mode, source = speaks.mode, _named(speaks)
    if mode is MtlsMode.UNSET:
        mode = MtlsMode.PERMISSIVE if settings.default is PolicyDefault.ALLOW_ALL else MtlsMode.STRICT
        source = "no PeerAuthentication says otherwise"
    own = scopes.get("workload")
    set_ports = {} if own is None else own.ports
    return PeerModes(
        mode=mode,
        # A port that is UNSET there is a port like all others.
        ports={port: of_port for port, of_port in set_ports.items() if of_port is not MtlsMode.UNSET},
        source=source,
        ports_source="" if own is None else _named(own),
    )


def _named(policy: PeerAuthentication) -> str:
    return f"PeerAuthentication {policy.namespace}/{policy.name}"
