"""Small meshes for the tests of NetworkPolicies: namespaces, Deployments and policies in a few words each."""

from __future__ import annotations

from typing import Any

from injector.mesh import Mesh, Origin
from injector.mesh_policies import read_policies
from injector.mesh_read import Sourced, read_mesh
from injector.yaml_text import dump
from proxy.policy.model import PolicySet

ME = "cluster.local/ns"


def namespace(name: str, inject: str = "enabled") -> dict[str, Any]:
    """Give a Namespace that asks for sidecars."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"remora.io/inject": inject}}}


def workload(
    name: str, place: str = "shop", *, ports: Any = (8080,), labels: Any = None, **more: Any
) -> dict[str, Any]:
    """Give a Deployment `name` with the label app and an account of the same name; `more` are annotations."""
    account, kind = more.pop("account", name), more.pop("kind", "Deployment")
    spec = {
        "serviceAccountName": account,
        "containers": [
            {"name": "app", "ports": [{"containerPort": p} if isinstance(p, int) else p for p in ports]},
        ],
        **more.pop("spec", {}),
    }
    template = {
        "metadata": {
            "labels": {"app": name} if labels is None else labels,
            "annotations": {f"remora.io/{key.replace('_', '-')}": value for key, value in more.items()},
        },
        "spec": spec,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": place},
        "spec": {"template": template},
    }


def policy(*rules: dict[str, Any], place: str = "shop", app: str = "", name: str = "p", **spec: Any) -> dict[str, Any]:
    """Give an AuthorizationPolicy, of one app or of the namespace."""
    whole: dict[str, Any] = {**spec, "rules": list(rules)} if rules else dict(spec)
    if app:
        whole["selector"] = {"matchLabels": {"app": app}}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": place},
        "spec": whole,
    }


def modes(mode: str, place: str = "shop", **spec: Any) -> dict[str, Any]:
    """Give a PeerAuthentication of a namespace."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "modes", "namespace": place},
        "spec": {"mtls": {"mode": mode}, **spec},
    }


def source(**fields: Any) -> dict[str, Any]:
    """Give a rule with one source."""
    return {"from": [{"source": fields}]}


def operation(**fields: Any) -> dict[str, Any]:
    """Give the half of a rule that says to what."""
    return {"to": [{"operation": fields}]}


def read(*documents: dict[str, Any]) -> tuple[Mesh, PolicySet]:
    """Read a mesh and its policies; each document is line 1, 2, 3 of `mesh.yaml`."""
    sources = [Sourced(document, Origin("mesh.yaml", line)) for line, document in enumerate(documents, 1)]
    written = [each for each in documents if str(each["apiVersion"]).startswith("security.istio.io/")]
    policies, _ = read_policies({"policies.yaml": "---\n".join(map(dump, written)).encode()}, {})
    return read_mesh(sources), policies
