"""The two Deployments of the control plane, with their Services and PodDisruptionBudgets."""

from __future__ import annotations

from typing import Final

from injector import names
from injector.install.plan import NAMESPACE_NAME, Document, Plan, container_security, metadata, pod_security, selector

STATE: Final = "/var/lib/remora"
"""An emptyDir: the authority's control socket, the webhook's certificate as files. Nothing that must outlive a pod."""
DEFAULTS_DIRECTORY: Final = "/etc/remora/defaults"
TRUST_DIRECTORY: Final = "/etc/remora/trust"

AUTHORITY_RESOURCES: Final[Document] = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}
"""`remora bench authority`: 48 MiB new, 154 with 100,000 certificates. No limit of CPU: it would throttle a burst of
new pods, each of which waits for its first certificate."""
INJECTOR_RESOURCES: Final[Document] = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}

GRACE_SECONDS: Final = 30


def authority(plan: Plan) -> list[Document]:
    """Give the authority's Deployment, Service and PodDisruptionBudget.

    The init container makes an authority if there is none; of several pods that start at once one does. All of its
    state is in Secrets and ConfigMaps of the namespace, so any replica can take over.
    """
    kube = ["--kube", "in-cluster", "--kube-state", names.AUTHORITY, "--key-source", f"secret:{names.AUTHORITY_KEYS}"]
    shared = ["--directory", f"{STATE}/authority", "--namespace", plan.namespace, *kube]
    mounts: list[Document] = [{"name": "state", "mountPath": STATE}]
    init_arguments = ["authority", "init", "--if-none", "--trust-domain", plan.trust_domain, *shared]
    init = _container(plan, "init", init_arguments, AUTHORITY_RESOURCES, mounts)
    serve_arguments = [
        *("authority", "serve", *shared, "--kube-bundle", names.TRUST_BUNDLE_MAP),
        *("--service-account", names.AUTHORITY),
        *("--listen", f"[::]:{names.AUTHORITY_PORT}", "--health-listen", f"[::]:{names.CONTROL_HEALTH_PORT}"),
    ]
    serve = _container(plan, "authority", serve_arguments, AUTHORITY_RESOURCES, mounts)
    serve |= {"ports": _ports(("signing", names.AUTHORITY_PORT)), **_probes()}
    for container in (init, serve):
        container["env"] = [_field("HOSTNAME", "metadata.name")]
    volumes: list[Document] = [{"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]
    return [
        _deployment(plan, names.AUTHORITY, [init], [serve], volumes),
        _service(plan, names.AUTHORITY, "signing", names.AUTHORITY_PORT, names.AUTHORITY_PORT),
        _budget(plan, names.AUTHORITY),
    ]


def injector(plan: Plan) -> list[Document]:
    """Give the injector's Deployment, Service and PodDisruptionBudget."""
    arguments = [
        *("injector", "serve", "--namespace", plan.namespace),
        *("--listen", f"[::]:{names.INJECTOR_PORT}", "--health-listen", f"[::]:{names.CONTROL_HEALTH_PORT}"),
        *("--tls-directory", f"{STATE}/tls"),
        *("--config", f"{DEFAULTS_DIRECTORY}/{names.DEFAULTS_FILE}"),
        *("--trust-bundle", f"{TRUST_DIRECTORY}/{names.BUNDLE_NAME}"),
        *("--kube", "in-cluster", "--tls-secret", names.INJECTOR_TLS),
        *("--webhook", names.INJECTOR, "--service", names.INJECTOR),
    ]
    mounts: list[Document] = [
        {"name": "state", "mountPath": STATE},
        {"name": "defaults", "mountPath": DEFAULTS_DIRECTORY, "readOnly": True},
        {"name": "trust", "mountPath": TRUST_DIRECTORY, "readOnly": True},
    ]
    serve = _container(plan, "injector", arguments, INJECTOR_RESOURCES, mounts)
    serve |= {"ports": _ports(("webhook", names.INJECTOR_PORT)), **_probes()}
    volumes: list[Document] = [
        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "defaults", "configMap": {"name": names.DEFAULTS}},
        # Optional: the authority makes it a moment later, and until then the injector says that it is not ready.
        {"name": "trust", "configMap": {"name": names.TRUST_BUNDLE_MAP, "optional": True}},
    ]
    return [
        _deployment(plan, names.INJECTOR, [], [serve], volumes),
        _service(plan, names.INJECTOR, "webhook", 443, names.INJECTOR_PORT),
        _budget(plan, names.INJECTOR),
    ]


def _deployment(
    plan: Plan, name: str, first: list[Document], containers: list[Document], volumes: list[Document]
) -> Document:
    spec: Document = {
        "serviceAccountName": name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(name)},
            }
        ],
    }
    if first:
        spec["initContainers"] = list(first)
    labels = {**selector(name), "app.kubernetes.io/part-of": "remora", names.INJECT: "disabled"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, name),
        "spec": {
            "replicas": plan.replicas,
            "selector": {"matchLabels": selector(name)},
            # One more comes up before one goes: with one replica too there is always one that answers.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(names.CONTROL_HEALTH_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {**spec, "containers": containers, "volumes": volumes},
            },
        },
    }


def _container(plan: Plan, name: str, arguments: list[str], resources: Document, mounts: list[Document]) -> Document:
    return {
        "name": name,
        "image": plan.image,
        "imagePullPolicy": plan.image_pull_policy,
        "args": arguments,
        "resources": resources,
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def _ports(serving: tuple[str, int]) -> list[Document]:
    health = ("health", names.CONTROL_HEALTH_PORT)
    return [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in (serving, health)]


def _probes() -> Document:
    def probe(path: str, **times: int) -> Document:
        return {"httpGet": {"path": path, "port": names.CONTROL_HEALTH_PORT}, **times}

    return {
        # A minute until the first answer: by then an authority has been found or made, a webhook's certificate too.
        "startupProbe": probe("/livez", periodSeconds=1, failureThreshold=60),
        "readinessProbe": probe("/readyz", periodSeconds=2, failureThreshold=2),
        "livenessProbe": probe("/livez", periodSeconds=10, failureThreshold=3, timeoutSeconds=5),
    }


def _service(plan: Plan, name: str, port_name: str, port: int, target: int) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, name),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(name),
            "ports": [
                {"name": port_name, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": "https"}
            ],
        },
    }


def _budget(plan: Plan, name: str) -> Document:
    # Not minAvailable: with one replica it would let no node be drained.
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(plan, name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(name)}},
    }


def _field(name: str, path: str) -> Document:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def namespace(plan: Plan) -> Document:
    """Give the control plane's own namespace: nothing in it is injected, everything in it is `restricted`."""
    labels = {
        NAMESPACE_NAME: plan.namespace,
        "app.kubernetes.io/part-of": "remora",
        names.INJECT: "disabled",
        "pod-security.kubernetes.io/enforce": "restricted",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plan.namespace, "labels": labels}}
