"""The MutatingWebhookConfiguration: which pods an API server shows to the injector.

Two entries, because selectors are joined by *and* while we want *or*: pods of a namespace that asks for sidecars,
unless the pod says no, and pods that ask for one themselves, in a namespace that does not. The label of a pod wins, as
everywhere. There is no caBundle: the injector makes its own authority and writes it here (`injector.bootstrap`), and
`kubectl apply` leaves a field alone that it never set.
"""

from __future__ import annotations

from typing import Final

from injector import names
from injector.install.plan import NAMESPACE_NAME, Document, Plan, metadata

YES: Final = ["enabled", "true"]
NO: Final = ["disabled", "false"]

TIMEOUT_SECONDS: Final = 5
"""A review takes a millisecond. Less refuses pods while a node is busy; more holds all back when we are gone."""


def webhook(plan: Plan) -> Document:
    """Give the configuration with its two entries, by namespace and by pod."""
    never = _requirement(NAMESPACE_NAME, "NotIn", [*names.NEVER, plan.namespace])
    by_namespace = _entry(
        plan,
        "namespace.injector.remora.io",
        namespaces=[never, _requirement(names.INJECT, "In", YES)],
        pods=[_requirement(names.INJECT, "NotIn", NO)],
    )
    by_pod = _entry(
        plan,
        "pod.injector.remora.io",
        namespaces=[never, _requirement(names.INJECT, "NotIn", YES)],
        pods=[_requirement(names.INJECT, "In", YES)],
    )
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": metadata(plan, names.INJECTOR, namespaced=False),
        "webhooks": [by_namespace, by_pod],
    }


def _entry(plan: Plan, name: str, *, namespaces: list[Document], pods: list[Document]) -> Document:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {
                "name": names.INJECTOR,
                "namespace": plan.namespace,
                "path": names.INJECTOR_PATH,
                "port": 443,
            }
        },
        "failurePolicy": plan.failure_policy,
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": pods},
        # Asked again when a later webhook changed the pod: a container that it added may hold probes too.
        "reinvocationPolicy": "IfNeeded",
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    }


def _requirement(key: str, operator: str, values: list[str]) -> Document:
    return {"key": key, "operator": operator, "values": list(values)}
