"""What of a pod would go round its sidecar: each named with the container and the field, never silently passed over.

A sidecar stands between a pod and the network by rules that the pod's own kernel keeps. Whoever may change those rules,
or is taken for the sidecar by them, is not held by them. These are warnings: there are pods that need such rights, and
whoever runs one should know what the mesh no longer promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from injector import names
from injector.ports import ALL, app_containers, declared
from injector.settings import Capture, Settings
from injector.values import mapping, mappings
from proxy.documents import shown

_CAPABILITIES: Final = {
    "ALL": "may change the capture rules",
    "NET_ADMIN": "may change the capture rules",
    "SYS_ADMIN": "may enter the sidecar's namespaces",
    "SYS_PTRACE": "may read the sidecar's memory, and the key in it, where processes are shared",
    "NET_RAW": "may send packets past the capture rules",
    "SETUID": "may become uid 1337, which the capture rules take for the sidecar",
    "SETGID": "may become gid 1337, which the capture rules take for the sidecar",
}
_HOST_PATHS: Final = ("/", "/proc", "/run", "/var/run", "/var/lib/kubelet", "/run/containerd", "/run/crio")
_SOCKETS: Final = ("docker.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock")


def ways_round(spec: Mapping[str, object], settings: Settings) -> Iterator[str]:
    """Name what of a pod would go round its sidecar, a sentence each."""
    yield from _host(spec)
    own = app_containers(spec)
    first = [each for each in mappings(spec.get("initContainers")) if each.get("restartPolicy") != "Always"]
    pod = mapping(spec.get("securityContext"))
    for container in (*first, *own, *mappings(spec.get("ephemeralContainers"))):
        yield from _container(container, pod, settings)
    if settings.capture is Capture.REDIRECT:
        yield from _outside_capture(spec, settings)
        if first and not settings.native_sidecar:
            yield (
                f"init container {first[0].get('name')} runs before the sidecar while its calls are captured already: "
                f"they fail; use a native sidecar, or exclude what it calls by {names.PREFIX}exclude-outbound-ports"
            )
    else:
        yield from _without_capture(spec, settings)
    for port in declared(spec):
        if port.protocol != "TCP":
            yield (
                f"port {port.number} of container {port.container} is {shown(port.protocol)}, which is not encrypted"
                " and not authorized: only TCP passes the sidecar"
            )


def _host(spec: Mapping[str, object]) -> Iterator[str]:
    if spec.get("hostPID") is True:
        yield "hostPID: the pod's root sees the node's processes, and may enter the network of any of them"
    if spec.get("shareProcessNamespace") is True:
        yield "shareProcessNamespace: a container with root or SYS_PTRACE can read the sidecar's key from its memory"
    for volume in mappings(spec.get("volumes")):
        path = mapping(volume.get("hostPath")).get("path")
        if isinstance(path, str) and _reaches_the_node(path):
            yield f"volume {volume.get('name')} is the node's {shown(path)}: who reads it can reach other pods"


def _reaches_the_node(path: str) -> bool:
    plain = "/" + path.strip("/")
    return plain in _HOST_PATHS or plain.rpartition("/")[2] in _SOCKETS


def _container(container: Mapping[str, object], pod: Mapping[str, object], settings: Settings) -> Iterator[str]:
    name = f"container {container.get('name')}"
    own = mapping(container.get("securityContext"))
    if settings.capture is Capture.REDIRECT:
        for field in ("runAsUser", "runAsGroup"):
            place = "its" if field in own else "the pod's"
            if own.get(field, pod.get(field)) == names.USER:
                yield (
                    f"{name} runs with {place} {field} {names.USER}, which the capture rules take for the sidecar: all "
                    "that it sends goes round it; choose another number"
                )
    if own.get("privileged") is True:
        yield f"{name} is privileged: it may change the capture rules and enter the sidecar's namespaces"
        return
    added = mapping(own.get("capabilities")).get("add")
    for capability in added if isinstance(added, list) else []:
        word = str(capability).upper().removeprefix("CAP_")
        if word in _CAPABILITIES:
            yield f"{name} has the capability {word}: it {_CAPABILITIES[word]}"
    for port in mappings(container.get("ports")):
        if port.get("hostPort"):
            yield (
                f"{name} has hostPort {shown(repr(port['hostPort']))}: callers of the node's address come without an "
                "identity, and are refused where mutual TLS is strict"
            )


def _outside_capture(spec: Mapping[str, object], settings: Settings) -> Iterator[str]:
    for port in declared(spec):
        if port.protocol != "TCP":
            continue
        left_out = port.number not in settings.include_inbound_ports or port.number in settings.exclude_inbound_ports
        if left_out:
            yield (
                f"port {port.number} of container {port.container} is not captured: its callers are neither "
                "authenticated nor authorized"
            )
    for key, value in (
        ("exclude-outbound-ports", settings.exclude_outbound_ports),
        ("exclude-outbound-ip-ranges", ",".join(settings.exclude_outbound_ip_ranges)),
        ("exclude-interfaces", ",".join(settings.exclude_interfaces)),
    ):
        if value:
            yield f"{names.PREFIX}{key} {value}: what the pod sends there has no identity and no encryption"
    if settings.include_outbound_ip_ranges != Settings().include_outbound_ip_ranges:
        shown_ranges = ",".join(settings.include_outbound_ip_ranges) or "none"
        yield f"{names.PREFIX}include-outbound-ip-ranges {shown_ranges}: calls to other addresses are not captured"
    elif settings.include_inbound_ports != ALL and not list(declared(spec)):
        yield f"{names.PREFIX}include-inbound-ports {settings.include_inbound_ports}: other ports are not captured"


def _without_capture(spec: Mapping[str, object], settings: Settings) -> Iterator[str]:
    numbers = sorted({port.number for port in declared(spec) if port.protocol == "TCP"} | set(settings.inbound_ports))
    if numbers:
        shown_numbers = ", ".join(str(number) for number in numbers)
        yield (
            f"{names.PREFIX}capture ports: callers that dial {shown_numbers} of the pod itself go round the sidecar "
            "unless the application listens on 127.0.0.1 alone, or a NetworkPolicy forbids it"
        )
    else:
        yield (
            f"{names.PREFIX}capture ports, and no container declares a port: nothing reaches the pod by its sidecar; "
            f"declare its ports, or name them by {names.PREFIX}inbound-ports"
        )
