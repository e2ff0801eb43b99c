"""Judges a pod by the Pod Security Standards, as the admission controller of Kubernetes does at the newest version.

Written from the text of the standards (Kubernetes documentation, "Pod Security Standards"), for the levels `baseline`
and `restricted`; Linux pods alone. Each violation names the field. A pod of which nothing is said here is admitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

BASELINE_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)
SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    )
)
SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))
RESTRICTED_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)


def baseline(spec: Spec) -> list[str]:
    """Name what the level `baseline` forbids in a pod's spec."""
    found = [f"spec.{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"spec.volumes[{volume['name']}].hostPath" for volume in spec.get("volumes", ()) if "hostPath" in volume]
    context = spec.get("securityContext") or {}
    found += _contexts("spec", context)
    found += [
        f"spec.securityContext.sysctls[{each['name']}]"
        for each in context.get("sysctls", ())
        if each["name"] not in SAFE_SYSCTLS
    ]
    for place, container in containers(spec):
        own = container.get("securityContext") or {}
        found += _contexts(place, own)
        if own.get("privileged"):
            found.append(f"{place}.securityContext.privileged")
        if own.get("procMount", "Default") != "Default":
            found.append(f"{place}.securityContext.procMount")
        added = (own.get("capabilities") or {}).get("add") or ()
        found += [f"{place} adds {name}" for name in added if name not in BASELINE_CAPABILITIES]
        found += [f"{place} hostPort {port['hostPort']}" for port in container.get("ports", ()) if port.get("hostPort")]
        found += [f"{place}.{path}.host" for path, action in _actions(container) if action.get("host")]
    return found


def restricted(spec: Spec) -> list[str]:
    """Name what the level `restricted` forbids in a pod's spec: all that `baseline` does, and more."""
    found = baseline(spec)
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        found += [f"spec.volumes[{volume['name']}].{kind}" for kind in sorted(kinds - RESTRICTED_VOLUMES)]
    pod = spec.get("securityContext") or {}
    if pod.get("runAsUser") == 0:
        found.append("spec.securityContext.runAsUser is 0")
    for place, container in containers(spec):
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{place}.securityContext.allowPrivilegeEscalation is not false")
        if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
            found.append(f"{place} has no runAsNonRoot")
        if own.get("runAsUser") == 0:
            found.append(f"{place}.securityContext.runAsUser is 0")
        profile = (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            found.append(f"{place} has no seccompProfile")
        capabilities = own.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            found.append(f"{place} does not drop ALL")
        added = capabilities.get("add") or ()
        found += [f"{place} adds {name}" for name in added if name != "NET_BIND_SERVICE"]
    return list(dict.fromkeys(found))


def containers(spec: Spec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give every container of a pod with its place."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield f"spec.{kind}[{container['name']}]", container


def _contexts(place: str, context: Mapping[str, Any]) -> list[str]:
    found = []
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        found.append(f"{place}.securityContext.seccompProfile")
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        found.append(f"{place}.securityContext.appArmorProfile")
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        found.append(f"{place}.securityContext.windowsOptions.hostProcess")
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        found.append(f"{place}.securityContext.seLinuxOptions")
    return found


def _actions(container: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give what probes and hooks call, each with its path; a host in one of them is forbidden since 1.34."""
    probes = {name: container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")}
    hooks = {f"lifecycle.{name}": action or {} for name, action in (container.get("lifecycle") or {}).items()}
    for path, probe in {**probes, **hooks}.items():
        if isinstance(probe, Mapping):
            for kind in ("httpGet", "tcpSocket"):
                yield f"{path}.{kind}", probe.get(kind) or {}
