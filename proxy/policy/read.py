"""Policy files -> `PolicySet`: which documents speak to us, what stands around a spec, and in which order they count.

Documents are taken as users have them, `kubectl get -o yaml` included. What is another kind is skipped and said;
what may be meant for us and is not understood rejects the whole set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from proxy.documents import Checker, Node, did_you_mean, nearest, parse, quoted
from proxy.errors import Fault
from proxy.policy.model import (
    Action,
    AuthorizationPolicy,
    MtlsMode,
    Origin,
    PeerAuthentication,
    PolicySet,
    PolicySettings,
    RequestAuthentication,
    Workload,
)
from proxy.policy.read_rules import HOMES as HOMES_OF_RULES
from proxy.policy.read_rules import RulesReader
from proxy.policy.read_tokens import HOMES as HOMES_OF_TOKENS
from proxy.policy.read_tokens import TokensReader

GROUP: Final = "security.istio.io"
API_VERSIONS: Final = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
KINDS: Final = ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
_LISTS: Final = ("List", *(f"{kind}List" for kind in KINDS))
DRY_RUN: Final = "istio.io/dry-run"
MAX_TARGETS: Final = 16

_DOCUMENT_KEYS: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA_KEYS: Final = (
    "name",
    "namespace",
    "annotations",
    "labels",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_AUTHORIZATION_KEYS: Final = ("selector", "targetRef", "targetRefs", "action", "provider", "rules")
_PEER_KEYS: Final = ("selector", "mtls", "portLevelMtls")
_REQUEST_KEYS: Final = ("selector", "targetRef", "targetRefs", "jwtRules")
_HOMES: Final[Mapping[str, str]] = MappingProxyType(
    HOMES_OF_RULES
    | HOMES_OF_TOKENS
    | dict.fromkeys(("name", "namespace", "annotations", "labels"), "`metadata`")
    | dict.fromkeys(_AUTHORIZATION_KEYS, "`spec` of an AuthorizationPolicy")
    | dict.fromkeys(_PEER_KEYS, "`spec` of a PeerAuthentication")
    | dict.fromkeys(_REQUEST_KEYS, "`spec` of a RequestAuthentication")
    | dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), "the document itself, not indented")
    | {"selector": "`spec`", "matchLabels": "`spec.selector`", "mode": "`spec.mtls` of a PeerAuthentication"}
)
"""Where each key belongs, for those who indent too little or too much."""

# Other projects have a kind of the same name; theirs is no mistake.
_FOREIGN_GROUPS: Final = ("policy.linkerd.io", "projectcalico.org", "cilium.io", "consul.hashicorp.com")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z")  # RFC 1123 subdomain, as Kubernetes wants it
# Go's ParseBool, which is what reads the annotation in a cluster
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


def read_files(
    files: Mapping[str, bytes], workload: Workload, settings: PolicySettings
) -> tuple[PolicySet, list[Fault], list[Fault]]:
    """Read every policy file in the order of names; returns the set, the faults and the warnings."""
    authorization: list[AuthorizationPolicy] = []
    peer_authentication: list[PeerAuthentication] = []
    request_authentication: list[RequestAuthentication] = []
    faults: list[Fault] = []
    warnings: list[Fault] = []
    for file in sorted(files):
        documents, syntax = parse(files[file], file)
        reader = _FileReader(file, workload, settings)
        for i, document in enumerate(documents):
            for policy in reader.document(document, i):
                match policy:
                    case AuthorizationPolicy():
                        authorization.append(policy)
                    case PeerAuthentication():
                        peer_authentication.append(policy)
                    case RequestAuthentication():
                        request_authentication.append(policy)
        faults += syntax
        faults += reader.checker.faults
        warnings += reader.checker.warnings
    policies = PolicySet(
        authorization=tuple(authorization),
        peer_authentication=tuple(peer_authentication),
        request_authentication=tuple(request_authentication),
    )
    return policies, faults, warnings


Policy = AuthorizationPolicy | PeerAuthentication | RequestAuthentication


class _FileReader:
    def __init__(self, file: str, workload: Workload, settings: PolicySettings) -> None:
        self.checker = Checker(file, _HOMES)
        self._workload = workload
        self._settings = settings

    def document(self, node: Node, index: int) -> Iterator[Policy]:
        """Read one document, which may be a List of others."""
        if node.value is None:
            return
        if not isinstance(node.value, dict):
            self.checker.fault(node, f"a document must be a mapping with apiVersion and kind, not {node.kind}")
            return
        fields = self.checker.any_mapping(node, "the document")
        kind = self.checker.string(fields.get("kind"), "kind")
        if "kind" not in fields or "apiVersion" not in fields:
            missing = "kind" if "kind" not in fields else "apiVersion"
            near = nearest(missing, [key for key in fields if len(key) <= 2 * len(missing)][:64])
            example = API_VERSIONS[0] if missing == "apiVersion" else KINDS[0]
            hint = f"rename the key {quoted(near)}" if near else f"write `{missing}: {example}`, for example"
            self.checker.fault(node, f"the document lacks `{missing}`", hint)
            return
        if kind in _LISTS:
            self.checker.mapping(node, kind, ("apiVersion", "kind", "metadata", "items"), required=("items",))
            for item in self.checker.sequence(fields.get("items"), "items"):
                if isinstance(item.value, dict) and item.value.get("kind", item).value in _LISTS:
                    self.checker.fault(item, "a list inside a list is not read", "write the documents out")
                else:
                    yield from self.document(item, index)
        elif self._is_ours(node, kind, self.checker.string(fields["apiVersion"], "apiVersion")):
            policy = self._policy(node, kind, index)
            if policy is not None:
                yield policy

    def _is_ours(self, node: Node, kind: str, version: str) -> bool:
        """Skip what is another kind; refuse what looks as if one of ours was meant."""
        if not kind or not version:
            return False
        group = version.rpartition("/")[0]
        is_near = kind.lower() in [known.lower() for known in KINDS]
        if group == GROUP or (is_near and group not in _FOREIGN_GROUPS):
            if kind not in KINDS:
                self.checker.fault(node.at("kind"), f"unknown kind {quoted(kind)}", did_you_mean(kind, KINDS))
                return False
            if version not in API_VERSIONS:
                message = f"unknown apiVersion {quoted(version)} of {kind}"
                self.checker.fault(node.at("apiVersion"), message, f"write {' or '.join(API_VERSIONS)}")
                return False
            return True
        message = f"a {quoted(kind)} of {quoted(version)} is no policy: skipped"
        self.checker.warning(node.at("kind"), message, code="RM0506")
        return False

    def _policy(self, node: Node, kind: str, index: int) -> Policy | None:
        fields = self.checker.mapping(node, kind, _DOCUMENT_KEYS, required=("metadata", "spec"))
        metadata = self.checker.mapping(fields.get("metadata"), "metadata", _METADATA_KEYS, required=("name",))
        name = self._name(metadata.get("name"), "metadata.name", "")
        namespace = self._name(metadata.get("namespace"), "metadata.namespace", self._workload.namespace)
        origin = Origin(file=self.checker.file, document=index, line=node.line, column=node.column)
        spec = fields.get("spec")
        if spec is None:
            return None
        if kind == "PeerAuthentication":
            return self._peer_authentication(spec, namespace, name, origin)
        if kind == "RequestAuthentication":
            return self._request_authentication(spec, namespace, name, origin)
        return self._authorization(spec, namespace, name, origin, self._dry_run(metadata.get("annotations")))

    def _name(self, node: Node | None, where: str, default: str) -> str:
        text = self.checker.string(node, where, default)
        if node is not None and text and not (len(text) <= 253 and _NAME.match(text)):
            hint = "use lower-case letters, digits, '-' and '.'"
            self.checker.fault(node, f"`{where}`: {quoted(text)} is no name of Kubernetes", hint)
        return text

    def _dry_run(self, annotations: Node | None) -> bool:
        node = self.checker.any_mapping(annotations, "metadata.annotations").get(DRY_RUN)
        text = self.checker.string(node, f"metadata.annotations.{DRY_RUN}", "false")
        if node is not None and text not in (*_TRUE, *_FALSE):
            message = f"`{DRY_RUN}` is {quoted(text)}, which is neither true nor false"
            self.checker.fault(node, message, 'write "true" or "false"')
        return text in _TRUE

    def _selector(self, node: Node | None) -> Mapping[str, str]:
        fields = self.checker.mapping(node, "spec.selector", ("matchLabels",))
        labels_node = fields.get("matchLabels")
        labels = self.checker.string_mapping(labels_node, "spec.selector.matchLabels")
        for key, value in labels.items():
            place = labels_node.at(key) if labels_node is not None else (0, 0)
            if not key:
                self.checker.fault(place, "a label of the selector has no name", "write it as name: value")
            elif "*" in key or "*" in value:
                self.checker.fault(place, f"the label {quoted(key)} has a star", "labels are compared exactly")
        if node is not None and not labels:
            hint = "leave it out to say so"
            self.checker.warning(node, "an empty selector takes every workload in scope", hint, "RM0508")
        return MappingProxyType(labels)

    def _authorization(
        self, spec: Node, namespace: str, name: str, origin: Origin, dry_run: bool
    ) -> AuthorizationPolicy | None:
        checker = self.checker
        fields = checker.mapping(spec, "spec", _AUTHORIZATION_KEYS)
        target = fields.get("targetRefs") or fields.get("targetRef")
        if target is not None:
            self._target(spec, target, fields, name)
            return None
        action = self._action(fields.get("action"))
        if "provider" in fields:
            checker.fault(spec.at("provider"), "`provider` is not supported yet", "remove it")
        return AuthorizationPolicy(
            namespace=namespace,
            name=name,
            origin=origin,
            action=action,
            rules=RulesReader(checker, namespace).read(fields.get("rules"), action, spec),
            selector=self._selector(fields.get("selector")),
            dry_run=dry_run,
        )

    def _target(self, spec: Node, target: Node, fields: dict[str, Node], name: str) -> None:
        if "selector" in fields:
            message = "`selector` and `targetRefs` exclude each other"
            self.checker.fault(spec.at("selector"), message, "keep `selector` to speak to workloads")
        if isinstance(target.value, list) and len(target.value) > MAX_TARGETS:
            self.checker.fault(target, f"more than {MAX_TARGETS} targetRefs", "split the policy")
        message = f"the policy {quoted(name)} has targetRefs and so speaks to gateways: skipped"
        self.checker.warning(target, message, "use `selector` to speak to workloads", "RM0507")

    def _action(self, node: Node | None) -> Action:
        if node is not None and node.value == "CUSTOM":
            self.checker.fault(node, "the action CUSTOM is not supported yet", "use ALLOW, DENY or AUDIT")
            return Action.ALLOW
        return Action(self.checker.choice(node, "spec.action", [action.value for action in Action], "ALLOW"))

    def _peer_authentication(self, spec: Node, namespace: str, name: str, origin: Origin) -> PeerAuthentication:
        checker = self.checker
        fields = checker.mapping(spec, "spec", _PEER_KEYS)
        selector = self._selector(fields.get("selector"))
        ports_node = fields.get("portLevelMtls")
        ports: dict[int, MtlsMode] = {}
        for key, value in checker.any_mapping(ports_node, "spec.portLevelMtls").items():
            if not (key.isascii() and key.isdigit() and len(key) <= 5 and 1 <= int(key) <= 65535):
                place = ports_node.at(key) if ports_node is not None else (0, 0)
                checker.fault(
                    place, f"`spec.portLevelMtls`: {quoted(key)} is no port", "write a number from 1 to 65535"
                )
                continue
            ports[int(key)] = self._mode(value, f"spec.portLevelMtls.{key}")
        if ports_node is not None and not selector:
            checker.fault(ports_node, "`spec.portLevelMtls` needs a selector with labels", "write `selector`")
        elif ports_node is not None and ports_node.value == {}:
            checker.fault(ports_node, "`spec.portLevelMtls` is empty", "write a port, or leave it out")
        return PeerAuthentication(
            namespace=namespace,
            name=name,
            origin=origin,
            mode=self._mode(fields.get("mtls"), "spec.mtls"),
            ports=MappingProxyType(ports),
            selector=selector,
        )

    def _request_authentication(
        self, spec: Node, namespace: str, name: str, origin: Origin
    ) -> RequestAuthentication | None:
        checker = self.checker
        fields = checker.mapping(spec, "spec", _REQUEST_KEYS)
        rules = TokensReader(checker, self._settings).read(fields.get("jwtRules"))
        target = fields.get("targetRefs") or fields.get("targetRef")
        if target is not None:
            self._target(spec, target, fields, name)
            return None
        if not rules:
            message = "a RequestAuthentication without `jwtRules` asks for nothing"
            checker.warning(spec, message, "write `jwtRules`", "RM0706")
        return RequestAuthentication(
            namespace=namespace,
            name=name,
            origin=origin,
            rules=rules,
            selector=self._selector(fields.get("selector")),
        )

    def _mode(self, node: Node | None, where: str) -> MtlsMode:
        mode = self.checker.mapping(node, where, ("mode",)).get("mode")
        return MtlsMode(self.checker.choice(mode, f"{where}.mode", [known.value for known in MtlsMode], "UNSET"))
