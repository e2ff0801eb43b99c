"""A cluster for `remora check`: what `remora install` prints is in it, and what its parts make while they run."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from injector import names
from injector.certificate import advance, ca_bundle, dns_names
from injector.inject import inject_pod
from injector.install.objects import groups
from injector.install.plan import Plan
from injector.settings import Settings
from tests.kube_server import Document, KubeServer

IMAGE = "registry.example/remora:1.0"
PLAN = Plan(image=IMAGE, mesh_namespaces=("shop",))
RESOURCES = {
    "Namespace": "namespaces",
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
}


def nodes(kube: KubeServer, kernel: str = "6.1.0-28-amd64") -> None:
    """Give the cluster two nodes."""
    facts = {"operatingSystem": "linux", "kernelVersion": kernel, "kubeletVersion": "v1.31.4"}
    for name in ("node-a", "node-b"):
        kube.put("nodes", "", name, {"status": {"nodeInfo": facts}})


def installed(kube: KubeServer) -> None:
    """Put an installation that works into the cluster, with a namespace `shop` of three injected pods."""
    nodes(kube)
    for group in groups(PLAN):
        for item in group.objects:
            _apply(kube, item)
    kube.put("namespaces", "", "shop", {"metadata": {"labels": {names.INJECT: "enabled"}}})
    _certificate(kube)
    for name in (names.AUTHORITY, names.INJECTOR):
        _change(kube, "deployments", PLAN.namespace, name, {"readyReplicas": 2})
        _change(kube, "poddisruptionbudgets", PLAN.namespace, name, {"disruptionsAllowed": 1})
        endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]
        labels = {"kubernetes.io/service-name": name}
        kube.put(
            "endpointslices", PLAN.namespace, f"{name}-x1", {"metadata": {"labels": labels}, "endpoints": endpoints}
        )
    for number in range(3):
        kube.put("pods", "shop", f"orders-{number}", injected())
    kube.admit = lambda document: (201, injected() | {"metadata": {"name": "remora-check-x"}})


def plain(labels: dict[str, str] | None = None) -> Document:
    """Make a running pod without a sidecar."""
    return {
        "metadata": {"labels": labels or {"app": "orders"}},
        "spec": {"containers": [{"name": "app", "image": "orders"}]},
        "status": {"phase": "Running"},
    }


def injected(image: str = IMAGE, *, ready: bool = True) -> Document:
    """Make a running pod with its sidecar."""
    pod = plain()
    made = inject_pod(
        pod["metadata"],
        pod["spec"],
        settings=Settings(image=image),
        trust_bundle="-----BEGIN CERTIFICATE-----\n",
        owner_kind="Pod",
    )
    status = {"phase": "Running", "initContainerStatuses": [{"name": names.PROXY, "ready": ready}]}
    return {"metadata": made.metadata, "spec": made.spec, "status": status}


def _apply(kube: KubeServer, item: dict[str, Any]) -> None:
    if item["kind"] in RESOURCES:
        metadata = item["metadata"]
        kube.put(RESOURCES[item["kind"]], metadata.get("namespace", ""), metadata["name"], item)


def _change(kube: KubeServer, resource: str, namespace: str, name: str, status: Document) -> None:
    kube.put(resource, namespace, name, {**kube.objects[resource, namespace, name], "status": status})


def _certificate(kube: KubeServer) -> None:
    step = advance({}, dns_names(names.INJECTOR, PLAN.namespace), datetime.datetime.now(datetime.UTC))
    assert step is not None
    data = {name: base64.b64encode(content).decode() for name, content in step.files.items()}
    kube.put("secrets", PLAN.namespace, names.INJECTOR_TLS, {"data": data})
    webhook = kube.objects["mutatingwebhookconfigurations", "", names.INJECTOR]
    for entry in webhook["webhooks"]:
        entry["clientConfig"]["caBundle"] = base64.b64encode(ca_bundle(step.files)).decode()
    bundle = ca_bundle(step.files).decode()
    kube.put("configmaps", PLAN.namespace, names.TRUST_BUNDLE_MAP, {"data": {names.BUNDLE_NAME: bundle}})
