"""Reads NetworkPolicies (networking.k8s.io/v1) out of manifests, each rule with the line where it stands.

Taken is what the API server takes, with its defaults: a rule without peers means everybody, one without ports all of
them, and `policyTypes` that are not written follow from the rules. What it would refuse is a fault here.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from injector.blocks import Blocks
from injector.mesh import Origin
from injector.mesh_policies import only_of_group
from injector.ports import ALL, FIRST, LAST, Ports
from proxy.documents import Checker, Node, parse, quoted
from proxy.errors import ConfigError, Fault

GROUP: Final = "networking.k8s.io"
KIND: Final = "NetworkPolicy"

_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
_LISTS: Final = ("List", f"{KIND}List")
_API_VERSION: Final = f"{GROUP}/v1"
_PORT_NAME: Final = re.compile(r"(?=[^a-z]*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?\Z")
"""RFC 6335 section 5.1, in small letters as Kubernetes wants it."""


class Direction(enum.Enum):
    """Which side of a pod a rule speaks of."""

    INGRESS = "Ingress"
    EGRESS = "Egress"

    @property
    def key(self) -> str:
        """The key of its rules in a policy."""
        return self.value.lower()


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...]

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Say whether labels fulfil it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels

    def __str__(self) -> str:
        if self.operator == "In" and len(self.values) == 1:
            return f"{self.key}={self.values[0]}"
        return f"{self.key} {self.operator}" + (f" ({', '.join(self.values)})" if self.values else "")


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector; an empty one takes everything."""

    requirements: tuple[Requirement, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing is asked for."""
        return not self.requirements

    def takes(self, labels: Mapping[str, str], *, is_whole: bool = True) -> bool:
        """Say whether labels fulfil all of it; of labels that are not whole, whether they may with those not known."""
        return all(each.takes(labels) or (not is_whole and each.key not in labels) for each in self.requirements)

    def values(self, key: str) -> frozenset[str]:
        """Give the values of a label that it asks for by name."""
        return frozenset(
            value for each in self.requirements if (each.key, each.operator) == (key, "In") for value in each.values
        )

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements)) or "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who may be at the other end: addresses, or pods. `namespaces` None means the policy's own namespace."""

    blocks: Blocks | None = None
    pods: Selector = Selector()
    namespaces: Selector | None = None

    def __str__(self) -> str:
        if self.blocks is not None:
            return f"ipBlock {self.blocks}"
        here = "" if self.namespaces is None else f"namespaceSelector {self.namespaces}"
        pods = "" if self.pods.is_empty and here else f"podSelector {self.pods}"
        return " and ".join(filter(None, (here, pods)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PortEntry:
    """Ports of one protocol, by number or by the name that containers give; `numbers` is then empty."""

    protocol: str
    numbers: Ports
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.numbers}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of one direction. No peers: everybody. `ports` None: all of every protocol."""

    direction: Direction
    peers: tuple[Peer, ...]
    ports: tuple[PortEntry, ...] | None
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """A policy, the directions that it closes, and the rules that open them again."""

    name: str
    namespace: str
    pods: Selector
    directions: frozenset[Direction]
    rules: tuple[Rule, ...]
    origin: Origin

    @property
    def subject(self) -> str:
        """Name it for people."""
        return f"networkpolicy {self.namespace}/{self.name}"


def read_network_policies(files: Mapping[str, bytes], namespace: str = "default") -> list[NetworkPolicy]:
    """Read every NetworkPolicy of some files, those in Lists too; other objects are passed over.

    `namespace` is where policies are that do not say. Raises ConfigError with every fault of every file.
    """
    found: dict[tuple[str, str], NetworkPolicy] = {}
    faults: list[Fault] = []
    for file, data in files.items():
        try:
            documents, syntax = parse(only_of_group(data, file, GROUP), file)
        except ConfigError as error:
            faults += error.faults
            continue
        reader = _Reader(file, namespace)
        for document in documents:
            for node, policy in reader.document(document):
                first = found.setdefault((policy.namespace, policy.name), policy)
                if first is not policy:
                    message = f"{policy.subject} stands twice (first at {first.origin})"
                    reader.checker.fault(node, message, "keep one of the two")
        faults += [*syntax, *reader.checker.faults]
    if faults:
        raise ConfigError(sorted(faults))
    return list(found.values())


class _Reader:
    """Reads the policies of one file."""

    def __init__(self, file: str, namespace: str) -> None:
        self.checker = Checker(file)
        self._file = file
        self._namespace = namespace

    def document(self, node: Node) -> Iterator[tuple[Node, NetworkPolicy]]:
        """Give the policies of a document, which may be a List of others, each with its node."""
        members = node.value if isinstance(node.value, dict) else {}
        kind, version = _text(members.get("kind")), _text(members.get("apiVersion"))
        if kind in _LISTS:
            for item in self._list(members.get("items"), "items"):
                yield from self.document(item)
        elif kind == KIND and version.partition("/")[0] == GROUP:
            if version != _API_VERSION:
                message = f"`apiVersion` is {quoted(version)}, which no API server has for a {KIND}"
                self.checker.fault(members["apiVersion"], message, f"write {_API_VERSION}")
            yield node, self._policy(node, members)

    def _policy(self, node: Node, members: Mapping[str, Node]) -> NetworkPolicy:
        metadata = self.checker.any_mapping(members.get("metadata"), "metadata")
        name = self.checker.string(metadata.get("name"), "metadata.name")
        if "name" not in metadata:
            self.checker.fault(node, f"a {KIND} has no `metadata.name`", "name it")
        known = ("podSelector", "policyTypes", "ingress", "egress")
        spec = self.checker.mapping(members.get("spec"), "spec", known)
        if "spec" not in members:
            self.checker.fault(node, f"a {KIND} has no `spec`", "write `spec: {podSelector: {}}`")
        rules: list[Rule] = []
        for direction in Direction:
            for i, rule in enumerate(self._list(spec.get(direction.key), f"spec.{direction.key}")):
                rules.append(self._rule(rule, direction, f"spec.{direction.key}[{i}]"))
        return NetworkPolicy(
            name=name,
            namespace=self.checker.string(metadata.get("namespace"), "metadata.namespace", self._namespace),
            pods=self._selector(spec.get("podSelector"), "spec.podSelector"),
            directions=self._directions(spec, rules),
            rules=tuple(rules),
            origin=Origin(self._file, node.line),
        )

    def _directions(self, spec: Mapping[str, Node], rules: list[Rule]) -> frozenset[Direction]:
        words = self._list(spec.get("policyTypes"), "spec.policyTypes")
        choices = [each.value for each in Direction]
        named = {self.checker.choice(word, f"spec.policyTypes[{i}]", choices) for i, word in enumerate(words)}
        if words:
            return frozenset(each for each in Direction if each.value in named)
        leaves = any(rule.direction is Direction.EGRESS for rule in rules)
        return frozenset(Direction) if leaves else frozenset((Direction.INGRESS,))

    def _rule(self, node: Node, direction: Direction, where: str) -> Rule:
        peers_key = "from" if direction is Direction.INGRESS else "to"
        fields = self._mapping(node, where, (peers_key, "ports"))
        peers = self._list(fields.get(peers_key), f"{where}.{peers_key}")
        ports = self._list(fields.get("ports"), f"{where}.ports")
        return Rule(
            direction=direction,
            peers=tuple(self._peer(each, f"{where}.{peers_key}[{i}]") for i, each in enumerate(peers)),
            ports=tuple(self._port(each, f"{where}.ports[{i}]") for i, each in enumerate(ports)) or None,
            origin=Origin(self._file, node.line),
        )

    def _peer(self, node: Node, where: str) -> Peer:
        fields = self._mapping(node, where, ("ipBlock", "podSelector", "namespaceSelector"))
        block = fields.get("ipBlock")
        if block is not None:
            if len(fields) > 1:
                self.checker.fault(block, f"`{where}` has `ipBlock` beside a selector", "make two entries of them")
            return Peer(blocks=self._block(block, f"{where}.ipBlock"))
        if not fields and (node.value is None or isinstance(node.value, dict)):
            self.checker.fault(node, f"`{where}` names nobody", "write `podSelector`, `namespaceSelector` or `ipBlock`")
        namespaces = fields.get("namespaceSelector")
        return Peer(
            pods=self._selector(fields.get("podSelector"), f"{where}.podSelector"),
            namespaces=None if namespaces is None else self._selector(namespaces, f"{where}.namespaceSelector"),
        )

    def _block(self, node: Node, where: str) -> Blocks:
        fields = self.checker.mapping(node, where, ("cidr", "except"), required=("cidr",))
        whole = left = self._network(fields.get("cidr"), f"{where}.cidr")
        for i, item in enumerate(self._list(fields.get("except"), f"{where}.except")):
            each = self._network(item, f"{where}.except[{i}]")
            if whole and (each - whole or each == whole):
                message = f"`{where}.except[{i}]` is {item.text}, no part of {whole}"
                self.checker.fault(item, message, "except smaller networks inside it")
            left -= each
        return left

    def _network(self, node: Node | None, where: str) -> Blocks:
        text = self.checker.string(node, where)
        try:
            if text and "/" not in text:
                raise ValueError("an address has no prefix length")
            return Blocks.of([text] if text else [])
        except ValueError as error:
            self.checker.fault(node or (1, 1), f"`{where}` is {text}: {error}", "write a network such as 10.0.0.0/8")
            return Blocks()

    def _port(self, node: Node, where: str) -> PortEntry:
        fields = self._mapping(node, where, ("protocol", "port", "endPort"))
        protocol = self.checker.choice(fields.get("protocol"), f"{where}.protocol", _PROTOCOLS, "TCP")
        port, end = fields.get("port"), fields.get("endPort")
        if port is None:
            if end is not None:
                self.checker.fault(end, f"`{where}.endPort` stands without `port`", "write the first port too")
            return PortEntry(protocol=protocol, numbers=ALL)
        if isinstance(port.value, str):
            if not _PORT_NAME.match(port.value):
                hint = "write a number without quotes, or a name: at most 15 of a-z, 0-9 and -, one letter among them"
                self.checker.fault(port, f"`{where}.port` is {quoted(port.value)}", hint)
            if end is not None:
                self.checker.fault(end, f"`{where}.endPort` stands beside the name of a port", "write a number")
            return PortEntry(protocol=protocol, numbers=Ports(), name=port.value)
        low = self.checker.integer(port, f"{where}.port", FIRST, minimum=FIRST, maximum=LAST)
        high = self.checker.integer(end, f"{where}.endPort", low, minimum=low, maximum=LAST)
        return PortEntry(protocol=protocol, numbers=Ports(((low, high),)))

    def _selector(self, node: Node | None, where: str) -> Selector:
        fields = self._mapping(node, where, ("matchLabels", "matchExpressions"))
        labels = self.checker.string_mapping(fields.get("matchLabels"), f"{where}.matchLabels")
        found = [Requirement(key, "In", (value,)) for key, value in labels.items()]
        expressions = self._list(fields.get("matchExpressions"), f"{where}.matchExpressions")
        for i, each in enumerate(expressions):
            found.append(self._expression(each, f"{where}.matchExpressions[{i}]"))
        return Selector(tuple(found))

    def _expression(self, node: Node, where: str) -> Requirement:
        fields = self.checker.mapping(node, where, ("key", "operator", "values"), required=("key", "operator"))
        operator = self.checker.choice(fields.get("operator"), f"{where}.operator", _OPERATORS, "In")
        items = self._list(fields.get("values"), f"{where}.values")
        # Empty text is a label's value like another.
        values = tuple(
            self.checker.string(item, f"{where}.values[{i}]", may_be_empty=True) for i, item in enumerate(items)
        )
        if bool(values) != (operator in ("In", "NotIn")):
            wanted = "needs `values`" if operator in ("In", "NotIn") else "takes no `values`"
            self.checker.fault(node, f"`{where}`: {operator} {wanted}")
        return Requirement(self.checker.string(fields.get("key"), f"{where}.key"), operator, values)

    # The API takes null where nothing is written.

    def _list(self, node: Node | None, where: str) -> list[Node]:
        return [] if node is None or node.value is None else self.checker.sequence(node, where)

    def _mapping(self, node: Node | None, where: str, known: tuple[str, ...]) -> dict[str, Node]:
        if node is None or node.value is None:
            return {}
        fields = self.checker.mapping(node, where, known)
        return {key: each for key, each in fields.items() if each.value is not None}


def _text(node: Node | None) -> str:
    return node.value if node is not None and isinstance(node.value, str) else ""
