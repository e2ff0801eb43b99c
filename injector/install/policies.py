"""The ConfigMaps: what pods get by default, and what every sidecar of a namespace begins with.

A policy that is printed once is a user's from then on: `remora install` prints a namespace's ConfigMaps only where the
namespace is named, so that an upgrade brings nobody's policies back to the beginning.
"""

from __future__ import annotations

from injector import names
from injector.install.plan import Document, Plan, metadata
from injector.yaml_text import dump

STRICT_FILE = "strict.yaml"
DENY_FILE = "deny-by-default.yaml"


def defaults(plan: Plan) -> Document:
    """Give the ConfigMap of what pods get where no annotation says otherwise: only what is not the built-in value."""
    url = f"https://{names.AUTHORITY}.{plan.namespace}:{names.AUTHORITY_PORT}"
    identity = f"spiffe://{plan.trust_domain}/ns/{plan.namespace}/sa/{names.AUTHORITY}"
    values: Document = {
        "image": plan.image,
        "image-pull-policy": plan.image_pull_policy,
        "trust-domain": plan.trust_domain,
        "authority": url,
        "authority-identity": identity,
        **dict(plan.defaults),
    }
    return _config_map(plan, names.DEFAULTS, plan.namespace, {names.DEFAULTS_FILE: dump(values)})


def of_namespace(plan: Plan, namespace: str) -> list[Document]:
    """Give what the sidecars of a namespace mount: mutual TLS alone, nobody allowed, and no service known yet."""
    strict: Document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    deny: Document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny-by-default", "namespace": namespace},
        "spec": {},
    }
    files = {DENY_FILE: dump(deny), STRICT_FILE: dump(strict)}
    named = dict(plan.defaults)
    return [
        _config_map(plan, named.get("policy-config-map", names.POLICY), namespace, files),
        _config_map(
            plan,
            named.get("services-config-map", names.SERVICES),
            namespace,
            {names.SERVICES_FILE: dump({"services": []})},
        ),
    ]


def _config_map(plan: Plan, name: str, namespace: str, data: dict[str, str]) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, name) | {"namespace": namespace},
        "data": data,
    }
