"""Drives the vectors of `policy_vectors` through real sidecars: one for each settings, its policies swapped."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from callers import ALIAS, FAR, OWN, PROBE, Caller, authority_of, calls_as, connect
from mesh import Backend, Mesh, Sidecar, svid
from policy_swap import Mounted, http_or_echo
from policy_vectors import LABELS, Case, Group, Settings, groups


@functools.cache
def settings_with(*, opaque: bool) -> list[Settings]:
    """The settings under which there are cases of this kind, each once, in order."""
    found = [
        group.settings for group in groups() if group.rejected or any(case.opaque is opaque for case in group.cases)
    ]
    return list(dict.fromkeys(found))


def groups_of(settings: Settings) -> list[Group]:
    """The groups with these settings."""
    return [group for group in groups() if group.settings == settings]


@dataclass
class Driven:
    """A sidecar under some settings, and the application behind it."""

    orders: Sidecar
    backend: Backend
    mounted: Mounted
    requests: int = 0

    @staticmethod
    async def start(mesh: Mesh, settings: Settings) -> Driven:
        """Start both."""
        backend = await mesh.backend(http_or_echo)
        mounted = Mounted(mesh.directory / "mounted")
        trusted = [authority_of(name) for name in (OWN, ALIAS, FAR)]
        orders = await mesh.sidecar(
            "orders",
            certificate=svid("orders"),
            bundles={each.trust_domain: each.bundle for each in trusted},
            inbound=[
                {"port": port, "app": f"127.0.0.1:{backend.port}", "protocol": protocol}
                for port, protocol in settings.ports
            ],
            policies=None,
            path_normalization=settings.path_normalization,
            workload={"namespace": "demo", "service_account": "orders", "labels": LABELS},
            trust_domain_aliases=list(settings.trust_domain_aliases),
            policy={
                "directory": str(mounted.directory),
                "default": settings.default,
                "path_normalization": settings.path_normalization,
                "trusted_proxies": settings.trusted_proxies,
            },
            runtime=mounted.runtime,
        )
        return Driven(orders, backend, mounted)

    def take(self, group: Group) -> None:
        """Put the policies of a group in force; what must be rejected is, for its reason."""
        faults = self.mounted.swap(self.orders, {"policies.yaml": group.policies})
        assert bool(faults) == bool(group.rejected), (str(group), faults)
        assert group.rejected in "; ".join(faults), (str(group), faults)

    def _caller(self, case: Case) -> Caller:
        return calls_as(case.principal, ip=case.ip, port=case.port, sni=case.sni)

    def _port(self, group: Group, case: Case) -> int:
        place = [port for port, _ in group.settings.ports].index(case.port)
        return self.orders.app.bound_ports()["inbound"][place]

    async def request(self, group: Group, case: Case) -> Case:
        """Send the request of a case, and give the case with what came of it."""
        stream = connect(self._port(group, case), self._caller(case), alpn=(b"istio-http/1.1",))
        before = len(self.backend.requests)
        try:
            await stream.send(case.head)
            try:
                status = (await stream.message(to=case.method.encode())).status
            except (EOFError, ConnectionError):
                return replace(case, answer=0)
        finally:
            stream.close()
        self.requests += 1
        seen = self.backend.requests[before:]
        assert len(seen) == (status == 200), str(case)
        path = seen[0].target.decode("latin-1") if seen and case.path is not None else case.path
        return replace(case, answer=status, path=path)

    async def opaque(self, group: Group, case: Case) -> Case:
        """Open the connection of a case, and give the case with what came of it."""
        stream = connect(self._port(group, case), self._caller(case), alpn=(b"istio",))
        try:
            await stream.send(PROBE)
            echoed = await stream.exactly(len(PROBE)) == PROBE
        except (EOFError, ConnectionError):
            echoed = False
        finally:
            stream.close()
        return replace(case, answer=200 if echoed else 403)


def differences(pairs: Iterable[tuple[Case, Case]]) -> list[str]:
    """Say what is otherwise than it should be."""
    return [
        f"{case}: {found.answer} {found.path} {found.rule} and not {case.answer} {case.path} {case.rule}"
        for found, case in pairs
        if found != case
    ]


def name_of(settings: Settings) -> str:
    """Name settings by what is not usual in them."""
    parts: Sequence[str] = [
        settings.default,
        settings.path_normalization,
        *(f"{port}-{protocol}" for port, protocol in settings.ports),
        *settings.trust_domain_aliases,
        *([f"proxies-{settings.trusted_proxies}"] if settings.trusted_proxies else []),
    ]
    return " ".join(parts)
