"""Nodes -> the rules of an AuthorizationPolicy.

The same few shapes repeat: a list of alternatives, each a mapping with fields, each field a list of values. What the
language does not know is refused with the nearest known name.
"""

from __future__ import annotations

from typing import Final

from proxy.documents import Checker, Node, did_you_mean, quoted
from proxy.policy.model import Action, Attribute, Clause, Rule
from proxy.policy.read_values import KNOWN_KEYS, Key, Problem, maybe_problem, parse_key

MAX_RULES: Final = 512  # the limits of Istio's schema; a policy above one of them does not exist in a cluster
MAX_SOURCES: Final = 512
MAX_SERVICE_ACCOUNTS: Final = 16

_SOURCE: Final = {
    "principals": Attribute.PRINCIPAL,
    "namespaces": Attribute.NAMESPACE,
    "serviceAccounts": Attribute.SERVICE_ACCOUNT,
    "trustDomains": Attribute.TRUST_DOMAIN,
    "ipBlocks": Attribute.SOURCE_IP,
    "remoteIpBlocks": Attribute.REMOTE_IP,
    "requestPrincipals": Attribute.REQUEST_PRINCIPAL,
}
_OPERATION: Final = {
    "hosts": Attribute.HOST,
    "methods": Attribute.METHOD,
    "paths": Attribute.PATH,
    "ports": Attribute.PORT,
}


def _negative(field: str) -> str:
    return f"not{field[0].upper()}{field[1:]}"


_FIELDS: Final = {
    "source": {name: (attribute, False) for name, attribute in _SOURCE.items()}
    | {_negative(name): (attribute, True) for name, attribute in _SOURCE.items()},
    "operation": {name: (attribute, False) for name, attribute in _OPERATION.items()}
    | {_negative(name): (attribute, True) for name, attribute in _OPERATION.items()},
}

_WHEN: Final = ("key", "values", "notValues")
HOMES: Final = (
    dict.fromkeys(_FIELDS["source"], "`source` of an item of `from`")
    | dict.fromkeys(_FIELDS["operation"], "`operation` of an item of `to`")
    | dict.fromkeys(_WHEN, "an item of `when`")
    | dict.fromkeys(("from", "to", "when"), "an item of `rules`")
    | {"source": "an item of `from`", "operation": "an item of `to`"}
)
"""Where each key of a rule belongs, for those who wrote it elsewhere."""


class RulesReader:
    """Reads `spec.rules` of one policy; faults go to the checker of the file."""

    def __init__(self, checker: Checker, namespace: str) -> None:
        self._checker = checker
        self._namespace = namespace  # a bare service account is one of the policy's own namespace

    def read(self, node: Node | None, action: Action, policy: Node) -> tuple[Rule, ...]:
        """Read the list of rules; `policy` is the place to complain at when there is none."""
        items = self._checker.sequence(node, "spec.rules")
        if not items and action is Action.DENY and (node is None or node.value == []):
            hint = "write `rules: [{}]` to deny everything"
            self._checker.fault(node or policy, "a DENY policy without rules never denies", hint)
        if len(items) > MAX_RULES:
            self._checker.fault(items[MAX_RULES], f"more than {MAX_RULES} rules in one policy", "split the policy")
        return tuple(self._rule(item, f"spec.rules[{i}]") for i, item in enumerate(items[:MAX_RULES]))

    def _rule(self, node: Node, where: str) -> Rule:
        fields = self._checker.mapping(node, where, ("from", "to", "when"))
        conditions: list[Clause] = []
        for i, item in enumerate(self._checker.sequence(fields.get("when"), f"{where}.when")):
            conditions += self._condition(item, f"{where}.when[{i}]")
        return Rule(
            sources=self._alternatives(fields.get("from"), f"{where}.from", "source"),
            operations=self._alternatives(fields.get("to"), f"{where}.to", "operation"),
            conditions=tuple(conditions),
            line=node.line,
            column=node.column,
        )

    def _alternatives(self, node: Node | None, where: str, kind: str) -> tuple[tuple[Clause, ...], ...]:
        items = self._checker.sequence(node, where)
        if node is not None and node.value == []:
            self._checker.fault(node, f"`{where}` is an empty list", "write an item, or leave the key out to match any")
        if kind == "source" and len(items) > MAX_SOURCES:
            self._checker.fault(items[MAX_SOURCES], f"more than {MAX_SOURCES} items in `{where}`", "split the rule")
            items = items[:MAX_SOURCES]
        return tuple(self._alternative(item, f"{where}[{i}]", kind) for i, item in enumerate(items))

    def _alternative(self, node: Node, where: str, kind: str) -> tuple[Clause, ...]:
        checker = self._checker
        inner = checker.mapping(node, where, (kind,), required=(kind,)).get(kind)
        if inner is None:
            return ()
        where = f"{where}.{kind}"
        fields = checker.mapping(inner, where, tuple(_FIELDS[kind]))
        if inner.value == {}:
            hint = f"write a field, or leave out `{'from' if kind == 'source' else 'to'}` to match any"
            checker.fault(inner, f"`{where}` is empty", hint)
        clauses: list[Clause] = []
        for name, field in fields.items():
            attribute, negated = _FIELDS[kind][name]
            values = self._values(field, f"{where}.{name}", Key(attribute))
            if values:
                line, column = inner.at(name)
                clauses.append(
                    Clause(attribute=attribute, name=name, negated=negated, values=values, line=line, column=column)
                )
        if fields and all(field.value == [] for field in fields.values()):
            checker.fault(inner, f"`{where}` has no value in any field", "write one, or leave the item out")
        if kind == "source":
            self._service_accounts_alone(inner, clauses, where)
        return tuple(clauses)

    def _service_accounts_alone(self, node: Node, clauses: list[Clause], where: str) -> None:
        attributes = {clause.attribute for clause in clauses}
        if Attribute.SERVICE_ACCOUNT in attributes and attributes & {Attribute.PRINCIPAL, Attribute.NAMESPACE}:
            message = f"`{where}` has service accounts together with principals or namespaces"
            self._checker.fault(node, message, "write <namespace>/<account> alone, or two items under `from`")

    def _condition(self, node: Node, where: str) -> list[Clause]:
        checker = self._checker
        fields = checker.mapping(node, where, _WHEN, required=("key",))
        key_node = fields.get("key")
        text = checker.string(key_node, f"{where}.key")
        key = parse_key(text) if text else None
        if key_node is not None and text and not isinstance(key, Key):
            if key is None:
                key = Problem(f"unknown condition {quoted(text)}", did_you_mean(text, KNOWN_KEYS, cutoff=0.9))
            checker.fault(key_node, key.message, key.hint)
        if not any(name in fields and fields[name].value != [] for name in ("values", "notValues")):
            checker.fault(node, f"`{where}` has neither `values` nor `notValues`", "write at least one value")
        clauses: list[Clause] = []
        for name in ("values", "notValues"):
            values = self._values(fields.get(name), f"{where}.{name}", key if isinstance(key, Key) else None)
            if values and isinstance(key, Key):
                line, column = node.at(name)
                clauses.append(
                    Clause(
                        attribute=key.attribute,
                        name=text if name == "values" else f"{text} notValues",
                        negated=name == "notValues",
                        values=values,
                        line=line,
                        column=column,
                        header=key.header,
                        claim=key.claim,
                    )
                )
        return clauses

    def _values(self, node: Node | None, where: str, key: Key | None) -> tuple[str, ...]:
        checker = self._checker
        items = checker.sequence(node, where, of_text=True)
        if node is not None and node.value == []:
            message = f"`{where}` is an empty list and restricts nothing"
            checker.warning(node, message, "write values, or leave it out", "RM0505")
        if key is not None and key.attribute is Attribute.SERVICE_ACCOUNT and len(items) > MAX_SERVICE_ACCOUNTS:
            message = f"more than {MAX_SERVICE_ACCOUNTS} values in `{where}`"
            checker.fault(items[MAX_SERVICE_ACCOUNTS], message, "write the others in an item of their own")
        values: list[str] = []
        for i, item in enumerate(items):
            value = checker.string(item, f"{where}[{i}]")
            if not value or key is None:
                continue
            problem = maybe_problem(key.attribute, value)
            if problem is not None:
                checker.fault(item, f"`{where}[{i}]`: {problem.message}", problem.hint)
            else:
                values.append(self._canonical(key.attribute, value))
        return tuple(values)

    def _canonical(self, attribute: Attribute, value: str) -> str:
        if attribute is Attribute.SERVICE_ACCOUNT and "/" not in value:
            return f"{self._namespace}/{value}"
        return str(int(value)) if attribute is Attribute.PORT else value
