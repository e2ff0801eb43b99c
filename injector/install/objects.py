"""Everything that is installed, in the order in which it is applied, with a line for the reader over each group."""

from __future__ import annotations

from dataclasses import dataclass

from injector.install import network, policies, rbac, webhook, workloads
from injector.install.plan import Document, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some objects and what they are for, in a sentence."""

    meaning: str
    objects: tuple[Document, ...]


def groups(plan: Plan) -> list[Group]:
    """Give the groups in the order of `kubectl apply`: what others name comes first, what stops pods comes last.

    The webhook is last: before its pods run, an API server that asks it would hold back the pods that it selects.
    """
    made = [
        Group(meaning="The namespace of the control plane: restricted, and never injected.", objects=_one(plan)),
        Group(
            meaning="Who authority and injector are, and the calls that each of them makes: no more.",
            objects=tuple(rbac.rights(plan)),
        ),
        Group(meaning="What sidecars get where no annotation says otherwise.", objects=(policies.defaults(plan),)),
        Group(meaning="Who may reach the control plane, and whom it may reach.", objects=tuple(network.policies(plan))),
        Group(meaning="The authority, which gives identities.", objects=tuple(workloads.authority(plan))),
        Group(meaning="The injector, which adds sidecars to pods.", objects=tuple(workloads.injector(plan))),
    ]
    for namespace in plan.mesh_namespaces:
        made.append(
            Group(
                meaning=f"What sidecars in {namespace} mount: mutual TLS alone, and nobody is allowed yet.",
                objects=tuple(policies.of_namespace(plan, namespace)),
            )
        )
    made.append(
        Group(
            meaning="Which pods the API server shows to the injector. Its caBundle is written by the injector itself.",
            objects=(webhook.webhook(plan),),
        )
    )
    return made


def removals(plan: Plan) -> list[Document]:
    """Give what an uninstallation deletes, in its order: first what would hold back pods, last the namespace.

    Each is an object's name and nothing more: `kubectl delete` needs no more, and an older or newer installation has
    the same names. What was made in the cluster (keys, certificates, the trust bundle) goes with the namespace.
    """
    objects = [item for group in groups(plan) for item in group.objects]
    return [_named(item) for item in reversed(objects)]


def _named(item: Document) -> Document:
    whole = item["metadata"]
    members = whole if isinstance(whole, dict) else {}
    kept = {key: members[key] for key in ("name", "namespace") if key in members}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": kept}


def _one(plan: Plan) -> tuple[Document, ...]:
    return (workloads.namespace(plan),)
