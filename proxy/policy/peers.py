"""PeerAuthentication: which ports take mutual TLS only.

The narrowest scope that says something wins: the workload's own (by selector), its namespace, the whole mesh (the
root namespace). UNSET says nothing. With nothing said at all the answer is STRICT, except under the default
`allow-all`, which is Istio's world and Istio's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.documents import quoted
from proxy.errors import Fault
from proxy.policy.model import MtlsMode, PeerAuthentication, PolicyDefault, PolicySettings, Workload, selects


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerModes:
    """The mode of every port: `ports` where a port has its own, `mode` elsewhere; `source` says who set `mode`."""

    mode: MtlsMode
    ports: Mapping[int, MtlsMode]
    source: str

    def requires_mtls(self, port: int) -> bool:
        """Say whether a peer without a verified certificate is refused on this workload port."""
        return self.ports.get(port, self.mode) is MtlsMode.STRICT


def resolve_modes(
    policies: Iterable[PeerAuthentication], workload: Workload, settings: PolicySettings
) -> tuple[PeerModes, list[Fault]]:
    """Find the modes that hold for a workload; the warnings name what has no effect.

    `policies` come in the order of (file, document): files carry no age, so of two for one scope the first counts.
    """
    warnings: list[Fault] = []
    scopes: dict[str, PeerAuthentication] = {}
    for policy in policies:
        in_root = policy.namespace == settings.root_namespace
        if in_root and policy.selector:
            warnings.append(_fault(policy, "has a selector in the root namespace and no effect", "remove the selector"))
            continue
        if not in_root and policy.namespace != workload.namespace:
            continue
        scope = "workload" if policy.selector else "mesh" if in_root else "namespace"
        if not selects(policy.selector, workload.labels):
            continue
        first = scopes.setdefault(scope, policy)
        if first is not policy:
            message = (
                f"has the same scope as {quoted(first.name)} ({first.origin.file}:{first.origin.line}), which wins"
            )
            warnings.append(_fault(policy, message, "keep one of the two"))
    mode, source = MtlsMode.UNSET, ""
    for scope in ("mesh", "namespace", "workload"):  # from wide to narrow: the narrowest that speaks stays
        policy_of_scope = scopes.get(scope)
        if policy_of_scope is not None and policy_of_scope.mode is not MtlsMode.UNSET:
            mode, source = (
                policy_of_scope.mode,
                f"PeerAuthentication {policy_of_scope.namespace}/{policy_of_scope.name}",
            )
    if mode is MtlsMode.UNSET:
        mode = MtlsMode.PERMISSIVE if settings.default is PolicyDefault.ALLOW_ALL else MtlsMode.STRICT
        source = "no PeerAuthentication says otherwise"
    own = scopes.get("workload")
    ports = own.ports if own is not None else {}
    return PeerModes(
        mode=mode,
        ports={port: mode if of_port is MtlsMode.UNSET else of_port for port, of_port in ports.items()},
        source=source,
    ), warnings


def _fault(policy: PeerAuthentication, message: str, hint: str) -> Fault:
    return Fault(
        file=policy.origin.file,
        line=policy.origin.line,
        column=policy.origin.column,
        message=f"PeerAuthentication {quoted(policy.name)} {message}",
        hint=hint,
    )
