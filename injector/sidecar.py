"""The sidecar as a pod has it: its container, the capture step, the volumes that it reads.

Least privilege throughout: uid and gid 1337, nothing of the root file system writable, no capability, nothing that it
mounts writable, a token that only the authority takes. The capture step alone has NET_ADMIN, and ends before anything
else begins.
"""

from __future__ import annotations

from typing import Final

from injector import names
from injector.ports import Ports
from injector.readers import duration_text
from injector.settings import Settings
from injector.values import Document

START_SECONDS: Final = 300
"""How long a sidecar may take to get its first certificate and policies before it is started anew. A start heals
nothing that waiting does not, so it is long; it only ends what hangs."""

DRAIN_DELAY: Final = 5.0
"""From the end of a pod's life to the refusal of new connections: as long as its address takes to leave everybody's
lists. Istio's MINIMUM_DRAIN_DURATION."""


def proxy(settings: Settings) -> Document:
    """Give the sidecar's container: an init container that stays, or one beside the others.

    No liveness probe: a restart cuts every open connection, and a sidecar that does not answer is not ready, which is
    all that a caller needs.
    """
    container: Document = {
        "name": names.PROXY,
        "image": settings.image,
        **_pull(settings),
        "args": ["proxy", "run", "--config", names.CONFIG_FILE, "--log-level", settings.log_level],
    }
    if settings.native_sidecar:
        container["restartPolicy"] = "Always"
    container |= {
        "ports": [{"name": "remora-health", "containerPort": names.HEALTH_PORT, "protocol": "TCP"}],
        "resources": resources(settings),
        "securityContext": _unprivileged(),
        "volumeMounts": _mounts(),
        "lifecycle": _lifecycle(settings),
    }
    if settings.native_sidecar:
        container["startupProbe"] = _probe(periodSeconds=1, failureThreshold=START_SECONDS, timeoutSeconds=2)
    container["readinessProbe"] = _probe(periodSeconds=2, failureThreshold=2, timeoutSeconds=2)
    return container


def capture(settings: Settings) -> Document:
    """Give the init container that sets the capture rules and looks whether they work.

    It is root, because NET_ADMIN counts for root alone here, and gives up all else. What the sidecar itself listens on
    stays out of capture: probes and scrapes reach the health port without an identity.
    """
    exclude = settings.exclude_inbound_ports | Ports.of([(names.HEALTH_PORT, names.HEALTH_PORT)])
    arguments = ["injector", "capture"]
    arguments += ["--inbound-port", str(names.INBOUND_PORT), "--outbound-port", str(names.OUTBOUND_PORT)]
    arguments += ["--uid", str(names.USER), "--gid", str(names.USER)]
    for flag, value in (
        ("--include-inbound-ports", str(settings.include_inbound_ports)),
        ("--exclude-inbound-ports", str(exclude)),
        ("--include-outbound-ports", str(settings.include_outbound_ports)),
        ("--exclude-outbound-ports", str(settings.exclude_outbound_ports)),
        ("--include-outbound-ip-ranges", ",".join(settings.include_outbound_ip_ranges)),
        ("--exclude-outbound-ip-ranges", ",".join(settings.exclude_outbound_ip_ranges)),
        ("--exclude-interfaces", ",".join(settings.exclude_interfaces)),
    ):
        if value:
            arguments += [flag, value]
    return {
        "name": names.CAPTURE,
        "image": settings.image,
        **_pull(settings),
        "args": arguments,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def volumes(settings: Settings) -> list[Document]:
    """Give the volumes that the sidecar reads; no other container has them.

    The token's mode is the kubelet's: it writes it for fsGroup, or for everybody where neither fsGroup nor one user for
    all containers is given, so that uid 1337 reads it in each case. The ConfigMaps may be missing: the sidecar then
    runs, says what it lacks, refuses everything, and heals when they appear.
    """
    facts = (
        ("name", "metadata.name"),
        ("namespace", "metadata.namespace"),
        ("labels", "metadata.labels"),
        ("config.yaml", f"metadata.annotations['{names.CONFIG}']"),
        (names.BUNDLE_NAME, f"metadata.annotations['{names.TRUST_BUNDLE}']"),
    )
    return [
        {
            "name": names.VOLUME_POD,
            "downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": field}} for path, field in facts]},
        },
        {
            "name": names.VOLUME_TOKEN,
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "audience": settings.token_audience,
                            "expirationSeconds": int(settings.token_lifetime),
                            "path": names.TOKEN_FILE.rpartition("/")[2],
                        }
                    }
                ]
            },
        },
        {"name": names.VOLUME_POLICY, "configMap": {"name": settings.policy_config_map, "optional": True}},
        {"name": names.VOLUME_SERVICES, "configMap": {"name": settings.services_config_map, "optional": True}},
    ]


def resources(settings: Settings) -> Document:
    """Give what the sidecar is promised and what it may use at most, as Kubernetes writes it."""
    made: Document = {}
    for kind, cpu, memory in (
        ("requests", settings.cpu_request, settings.memory_request),
        ("limits", settings.cpu_limit, settings.memory_limit),
    ):
        values = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}
        if values:
            made[kind] = values
    return made


def _pull(settings: Settings) -> Document:
    return {"imagePullPolicy": settings.image_pull_policy} if settings.image_pull_policy else {}


def _mounts() -> list[Document]:
    places = (
        (names.VOLUME_POD, names.POD_DIRECTORY),
        (names.VOLUME_TOKEN, names.TOKEN_FILE.rpartition("/")[0]),
        (names.VOLUME_POLICY, names.POLICY_DIRECTORY),
        (names.VOLUME_SERVICES, names.SERVICES_DIRECTORY),
    )
    return [{"name": name, "mountPath": path, "readOnly": True} for name, path in places]


def _lifecycle(settings: Settings) -> Document:
    drain = ["remora", "proxy", "drain", "--delay", duration_text(DRAIN_DELAY)]
    drain += ["--timeout", duration_text(settings.drain_timeout)]
    made: Document = {"preStop": {"exec": {"command": drain}}}
    if not settings.native_sidecar and settings.hold_application:
        # The kubelet starts the next container when this has ended.
        wait = ["remora", "proxy", "wait", "--timeout", f"{START_SECONDS}s"]
        made = {"postStart": {"exec": {"command": wait}}, **made}
    return made


def _probe(**times: int) -> Document:
    return {"httpGet": {"path": "/readyz", "port": names.HEALTH_PORT}, **times}


def _unprivileged() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": names.USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
