"""Whether whoever installs may: the verbs of `kubectl apply` on every kind that `remora install` prints.

And whether they may grant what they grant: Kubernetes lets nobody give away, by a Role, a right that they do not have,
unless they may `escalate` and `bind` roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from injector import access
from injector.check import Finding, fail, listed, ok

VERBS: Final = ("get", "create", "patch")
"""Of `kubectl apply`: it looks, then makes or changes."""
MEND: Final = "install as a user who has it, such as one bound to the ClusterRole cluster-admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A kind that is installed, as the API names it."""

    kind: str
    api_group: str
    resource: str
    is_cluster_wide: bool = False


NEEDED: Final = (
    Needed(kind="Namespace", api_group="", resource="namespaces", is_cluster_wide=True),
    Needed(kind="ServiceAccount", api_group="", resource="serviceaccounts"),
    Needed(kind="Role", api_group="rbac.authorization.k8s.io", resource="roles"),
    Needed(kind="RoleBinding", api_group="rbac.authorization.k8s.io", resource="rolebindings"),
    Needed(kind="ClusterRole", api_group="rbac.authorization.k8s.io", resource="clusterroles", is_cluster_wide=True),
    Needed(
        kind="ClusterRoleBinding",
        api_group="rbac.authorization.k8s.io",
        resource="clusterrolebindings",
        is_cluster_wide=True,
    ),
    Needed(kind="ConfigMap", api_group="", resource="configmaps"),
    Needed(kind="NetworkPolicy", api_group="networking.k8s.io", resource="networkpolicies"),
    Needed(kind="Deployment", api_group="apps", resource="deployments"),
    Needed(kind="Service", api_group="", resource="services"),
    Needed(kind="PodDisruptionBudget", api_group="policy", resource="poddisruptionbudgets"),
    Needed(
        kind="MutatingWebhookConfiguration",
        api_group="admissionregistration.k8s.io",
        resource="mutatingwebhookconfigurations",
        is_cluster_wide=True,
    ),
)

May = Callable[[Mapping[str, str]], bool]
"""Asks whether we may do something; takes the resourceAttributes of a SelfSubjectAccessReview."""


def rights(may: May, namespace: str) -> Iterator[Finding]:
    """Judge whether we may install into a namespace. Calls `may` once for an administrator, some 60 times for others.

    >>> [finding.line for finding in rights(lambda attributes: True, "remora-system")]
    ['ok    we may do everything in this cluster']
    """
    if may({"group": "*", "resource": "*", "verb": "*"}):
        yield ok("rights", "we may do everything in this cluster")
        return
    lacking = list(_lacking(may, namespace))
    for kind, verbs in lacking:
        yield fail("rights", f"we may not {listed(verbs)} a {kind} as `kubectl apply` does", MEND)
    granted = list(_not_grantable(may, namespace))
    if granted:
        yield fail(
            "rights",
            f"we may not grant what we do not have ourselves: {listed(granted)}",
            f"{MEND}, or one who may `escalate` and `bind` roles and clusterroles",
        )
    if not lacking and not granted:
        yield ok("rights", "we may apply everything that `remora install` prints")


def _lacking(may: May, namespace: str) -> Iterator[tuple[str, list[str]]]:
    for needed in NEEDED:
        place = {} if needed.is_cluster_wide else {"namespace": namespace}
        asked = {"group": needed.api_group, "resource": needed.resource, **place}
        verbs = [verb for verb in VERBS if not may({**asked, "verb": verb})]
        if verbs:
            yield needed.kind, verbs


def _not_grantable(may: May, namespace: str) -> Iterator[str]:
    calls = (*access.AUTHORITY, *access.INJECTOR)
    for is_cluster_wide in (False, True):
        place = {} if is_cluster_wide else {"namespace": namespace}
        kind = "clusterroles" if is_cluster_wide else "roles"
        over = {"group": "rbac.authorization.k8s.io", "resource": kind, **place}
        if may({**over, "verb": "escalate"}) and may({**over, "verb": "bind"}):
            continue
        ours = [call for call in calls if call.is_cluster_wide is is_cluster_wide]
        for verb, group, resource, name in dict.fromkeys(single for call in ours for single in _singles(call)):
            named = {"name": name} if name else {}
            if not may({"verb": verb, "group": group, "resource": resource, **named, **place}):
                yield f"{verb} {resource}" + (f" {name}" if name else "")


def _singles(call: access.Access) -> Iterable[tuple[str, str, str, str]]:
    for verb in call.verbs:
        for name in call.names or ("",):
            yield verb, call.api_group, call.resource, name
