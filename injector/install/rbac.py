"""The rights of authority and injector: exactly the calls that each makes (`injector.access`), and no verb more.

A call whose object has a fixed name is granted for that name alone. `create` cannot be: Kubernetes does not know the
name of an object that is being made, so those are granted for the resource, in our own namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

from injector import access, names
from injector.access import Access
from injector.install.plan import Document, Plan, metadata

_GROUP = "rbac.authorization.k8s.io"


def rights(plan: Plan) -> list[Document]:
    """Give ServiceAccounts, Roles and bindings of both."""
    made: list[Document] = []
    for name, calls in ((names.AUTHORITY, access.AUTHORITY), (names.INJECTOR, access.INJECTOR)):
        made.append(_account(plan, name))
        made += _granted(plan, name, [call for call in calls if not call.is_cluster_wide], is_cluster_wide=False)
        made += _granted(plan, name, [call for call in calls if call.is_cluster_wide], is_cluster_wide=True)
    return made


def _account(plan: Plan, name: str) -> Document:
    # The token is asked for by the Deployment: a pod that somebody starts with this account gets none unasked.
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan, name),
        "automountServiceAccountToken": False,
    }


def _granted(plan: Plan, name: str, calls: Sequence[Access], *, is_cluster_wide: bool) -> list[Document]:
    if not calls:
        return []
    kind = "ClusterRole" if is_cluster_wide else "Role"
    # A ClusterRole belongs to no namespace: two installations would overwrite each other's without it in the name.
    shown = f"{name}-{plan.namespace}" if is_cluster_wide else name
    return [
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": kind,
            "metadata": metadata(plan, shown, namespaced=not is_cluster_wide),
            "rules": [_rule(call) for call in calls],
        },
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata(plan, shown, namespaced=not is_cluster_wide),
            "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": shown},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": plan.namespace}],
        },
    ]


def _rule(call: Access) -> Document:
    rule: Document = {"apiGroups": [call.api_group], "resources": [call.resource], "verbs": list(call.verbs)}
    return rule | {"resourceNames": list(call.names)} if call.names else rule
