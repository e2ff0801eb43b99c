"""Lists of what exists -> `Known`: a list of one's own, or what `kubectl get -o yaml` prints.

    namespaces: [demo, shop]
    identities: [demo/web, cluster.local/ns/shop/sa/cart]
    workloads:
    - {namespace: demo, account: orders, labels: {app: orders}}

Of Kubernetes, Namespace, ServiceAccount, Pod and everything with a Pod template count; other kinds are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from proxy.documents import Checker, Node, parse
from proxy.errors import ConfigError, Fault
from proxy.policy.lint.scene import Known, KnownWorkload

_TEMPLATED: Final = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController")


def read_known(files: Mapping[str, bytes]) -> Known:
    """Read every list and join them. Raises ConfigError with every fault.

    >>> read_known({"known.yaml": b"identities: [demo/web]"}).namespaces
    frozenset({'demo'})
    """
    faults: list[Fault] = []
    reader = _Reader()
    for file, data in sorted(files.items()):
        documents, syntax = parse(data, file)
        reader.checker = Checker(file)
        for document in documents:
            reader.document(document)
        faults += syntax + reader.checker.faults
    if faults:
        raise ConfigError(sorted(faults))
    return reader.known()


class _Reader:
    def __init__(self) -> None:
        self.checker = Checker("")
        self._namespaces: set[str] = set()
        self._accounts: set[str] = set()
        self._workloads: list[KnownWorkload] = []

    def known(self) -> Known:
        """Join what was read: who has a workload or an account has a namespace."""
        accounts = self._accounts | {f"{each.namespace}/{each.service_account}" for each in self._workloads}
        namespaces = self._namespaces | {account.partition("/")[0] for account in accounts}
        return Known(namespaces=frozenset(namespaces), accounts=frozenset(accounts), workloads=tuple(self._workloads))

    def document(self, node: Node) -> None:
        if node.value is None:
            return
        fields = self.checker.any_mapping(node, "the list")
        if "kind" not in fields:
            self._own(node)
            return
        kind = self.checker.string(fields["kind"], "kind")
        if kind.endswith("List"):
            for item in self.checker.sequence(fields.get("items"), "items"):
                self.document(item)
            return
        metadata = self.checker.any_mapping(fields.get("metadata"), "metadata")
        name = self.checker.string(metadata.get("name"), "metadata.name")
        namespace = self.checker.string(metadata.get("namespace"), "metadata.namespace", "default")
        if kind == "Namespace":
            self._namespaces.add(name)
        elif kind == "ServiceAccount":
            self._accounts.add(f"{namespace}/{name}")
        elif kind == "Pod":
            self._pod(node, namespace)
        else:
            for template in self._templates(kind, fields.get("spec")):
                self._pod(template, namespace)

    def _templates(self, kind: str, spec: Node | None) -> Iterator[Node]:
        if kind == "CronJob":
            job = self.checker.any_mapping(spec, "spec").get("jobTemplate")
            spec = self.checker.any_mapping(job, "spec.jobTemplate").get("spec")
        elif kind not in _TEMPLATED:
            return
        template = self.checker.any_mapping(spec, "spec").get("template")
        if template is not None:
            yield template

    def _pod(self, node: Node, namespace: str) -> None:
        fields = self.checker.any_mapping(node, "the pod")
        metadata = self.checker.any_mapping(fields.get("metadata"), "metadata")
        account = self.checker.any_mapping(fields.get("spec"), "spec").get("serviceAccountName")
        self._workloads.append(
            KnownWorkload(
                namespace=namespace,
                service_account=self.checker.string(account, "serviceAccountName", "default"),
                labels=self.checker.string_mapping(metadata.get("labels"), "metadata.labels"),
            )
        )

    def _own(self, node: Node) -> None:
        checker = self.checker
        fields = checker.mapping(node, "the list", ("namespaces", "identities", "workloads"))
        self._namespaces.update(checker.string_list(fields.get("namespaces"), "namespaces"))
        for i, item in enumerate(checker.sequence(fields.get("identities"), "identities")):
            text = checker.string(item, f"identities[{i}]")
            parts = text.removeprefix("spiffe://").split("/")
            if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
                parts = [parts[2], parts[4]]
            if len(parts) == 2 and all(parts):
                self._accounts.add("/".join(parts))
            elif text:
                hint = "write <namespace>/<account> or <trust domain>/ns/<namespace>/sa/<account>"
                checker.fault(item, f"`identities[{i}]` names no ServiceAccount", hint)
        for i, item in enumerate(checker.sequence(fields.get("workloads"), "workloads")):
            where = f"workloads[{i}]"
            of_workload = checker.mapping(item, where, ("namespace", "account", "labels"), required=("namespace",))
            self._workloads.append(
                KnownWorkload(
                    namespace=checker.string(of_workload.get("namespace"), f"{where}.namespace"),
                    service_account=checker.string(of_workload.get("account"), f"{where}.account", "default"),
                    labels=checker.string_mapping(of_workload.get("labels"), f"{where}.labels"),
                )
            )
