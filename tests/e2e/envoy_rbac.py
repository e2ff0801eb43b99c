"""Policies as istiod writes them for Envoy: AuthorizationPolicies become RBAC filters.

It exists to disagree with the engine, so it shares no code with it: it reads the documents as they were written and
follows `pilot/pkg/security/{authz,trustdomain}` of Istio 1.32, field by field, its oddities included:

- an ALLOW rule with a field that TCP does not have is left out on TCP; a DENY or AUDIT rule loses that condition;
- a policy without rules becomes a rule that never matches; dry-run policies become shadow rules;
- `namespaces` and `serviceAccounts` are regular expressions over the whole URI of the peer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

ROOT_NAMESPACE: Final = "istio-system"
ACTIONS: Final = ("AUDIT", "DENY", "ALLOW")
"""In the order of the filters of a chain. Envoy's name of AUDIT is LOG."""
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "payload"

_TYPE: Final = "type.googleapis.com/envoy."
_NEVER: Final[Json] = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # of Go's strconv.ParseBool


@dataclass(frozen=True, kw_only=True)
class Target:
    """The workload that policies are translated for; `trust_domains` is its own, then the aliases."""

    namespace: str
    labels: Mapping[str, str]
    trust_domains: tuple[str, ...]


class HttpOnly(Exception):
    """The field does not exist on TCP."""


class UnknownKey(Exception):
    """No condition has this key; istiod logs an error and goes on without the rule."""


def rbac_filters(policies: Sequence[Json], target: Target, *, tcp: bool) -> dict[str, Json]:
    """Translate AuthorizationPolicies to the settings of one RBAC filter for each action that occurs."""
    filters = {}
    for action in ACTIONS:
        own = [each for each in policies if each["spec"].get("action", "ALLOW") == action and _selects(each, target)]
        if own:
            filters[action] = _filter(own, action, target, tcp)
    return filters


def _selects(policy: Json, target: Target) -> bool:
    if policy["metadata"]["namespace"] not in (ROOT_NAMESPACE, target.namespace):
        return False
    labels = policy["spec"].get("selector", {}).get("matchLabels", {})
    return all(target.labels.get(key) == value for key, value in labels.items())


def _filter(policies: Sequence[Json], action: str, target: Target, tcp: bool) -> Json:
    envoy_action = "LOG" if action == "AUDIT" else action
    settings: Json = {}
    for policy in policies:
        dry_run = policy["metadata"].get("annotations", {}).get("istio.io/dry-run", "false") in _TRUE
        kind = "shadow_rules" if dry_run else "rules"
        if dry_run and action != "AUDIT":
            settings["shadow_rules_stat_prefix"] = f"istio_dry_run_{action.lower()}_"
        found = settings.setdefault(kind, {"action": envoy_action, "policies": {}})["policies"]
        rules = policy["spec"].get("rules", [])
        for index, rule in enumerate(rules):
            try:
                found[_rule_id(policy, index)] = _rule(rule, policy, target, tcp, drops=action != "ALLOW")
            except (HttpOnly, UnknownKey):
                continue
        if not rules:
            found[_rule_id(policy, 0)] = _NEVER
    return settings


def _rule_id(policy: Json, index: int) -> str:
    return f"ns[{policy['metadata']['namespace']}]-policy[{policy['metadata']['name']}]-rule[{index}]"


# --- one rule --------------------------------------------------------------------------------------------------------

Make = Callable[[str], Json]


def _rule(rule: Json, policy: Json, target: Target, tcp: bool, *, drops: bool) -> Json:
    """Translate a rule. `drops` says that a condition which TCP does not have is dropped, not the rule."""
    maker = _Maker(policy["metadata"]["namespace"], target.trust_domains, tcp)
    permission_conditions: list[Json] = []
    principal_conditions: list[Json] = []
    for condition in rule.get("when", []):
        key, values, nots = condition["key"], condition.get("values", []), condition.get("notValues", [])
        if key in ("destination.ip", "destination.port", "connection.sni"):
            permission_conditions += _both(maker, key, values, nots, _PERMISSION, drops)
        else:
            principal_conditions += _both(maker, key, values, nots, _PRINCIPAL, drops)

    def alternatives(items: Sequence[Json], fields: Sequence[tuple[str, str]], words: _Words) -> list[Json]:
        common = permission_conditions if words is _PERMISSION else principal_conditions
        found = []
        for item in items or [{}]:
            clauses: list[Json] = []
            for field, key in fields:
                negative = f"not{field[0].upper()}{field[1:]}"
                clauses += _both(maker, key, item.get(field, []), item.get(negative, []), words, drops)
            found.append({words.all: {words.list: [*clauses, *common] or [{"any": True}]}})
        return found

    operations = [item["operation"] for item in rule.get("to", [])]
    sources = [item["source"] for item in rule.get("from", [])]
    return {
        "permissions": alternatives(operations, _OPERATION_FIELDS, _PERMISSION),
        "principals": alternatives(sources, _SOURCE_FIELDS, _PRINCIPAL),
    }


@dataclass(frozen=True)
class _Words:
    """How Envoy calls the same three things in permissions and in principals."""

    all: str
    any: str
    negated: str
    list: str


_PERMISSION: Final = _Words("and_rules", "or_rules", "not_rule", "rules")
_PRINCIPAL: Final = _Words("and_ids", "or_ids", "not_id", "ids")
_OPERATION_FIELDS: Final = (
    ("hosts", "hosts"),
    ("methods", "methods"),
    ("paths", "paths"),
    ("ports", "destination.port"),
)
_SOURCE_FIELDS: Final = (
    ("principals", "source.principal"),
    ("requestPrincipals", "request.auth.principal"),
    ("serviceAccounts", "source.serviceAccount"),
    ("trustDomains", "source.trustDomain"),
    ("namespaces", "source.namespace"),
    ("remoteIpBlocks", "remote.ip"),
    ("ipBlocks", "source.ip"),
)


def _both(
    maker: _Maker, key: str, values: Sequence[str], nots: Sequence[str], words: _Words, drops: bool
) -> list[Json]:
    """Translate `values` and `notValues` of one field to the conditions that must hold together."""
    found = []
    for negated, given in ((False, values), (True, nots)):
        try:
            made = maker.any_of(key, given, words) if given else None
        except HttpOnly:
            if not drops:
                raise
            continue
        if made is not None:
            found.append({words.negated: made} if negated else made)
    return found


class _Maker:
    """Makes the matchers of one rule."""

    def __init__(self, namespace: str, trust_domains: tuple[str, ...], tcp: bool) -> None:
        self.namespace = namespace
        self.trust_domains = trust_domains
        self.tcp = tcp

    def any_of(self, key: str, values: Sequence[str], words: _Words) -> Json:
        """Match any of the values of a field. Raises HttpOnly."""
        if self.tcp and (key in ("hosts", "methods", "paths") or key.startswith("request.")):
            raise HttpOnly
        if key.startswith("request.auth."):
            return _token(key, values)
        if key == "source.principal":
            values = replace_aliases(values, self.trust_domains)
        elif key == "source.trustDomain":
            values = expand_trust_domains(values, self.trust_domains)
        return {words.any: {words.list: [self._one(key, value) for value in values]}}

    def _one(self, key: str, value: str) -> Json:
        match key:
            case "hosts":
                return {"header": _header(":authority", value, ignore_case=True)}
            case "methods":
                return {"header": _header(":method", value)}
            case "paths":
                return _path(value)
            case "destination.port":
                return {"destination_port": int(value)}
            case "destination.ip":
                return {"destination_ip": _cidr(value)}
            case "connection.sni":
                return {"requested_server_name": string(value)}
            case "source.ip":
                return {"direct_remote_ip": _cidr(value)}
            case "remote.ip":
                return {"remote_ip": _cidr(value)}
            case "source.namespace":
                quoted = ".*".join(re.escape(part) for part in value.split("*"))
                return _authenticated(_regex(f".*/ns/{quoted}/.*"))
            case "source.serviceAccount":
                namespace, slash, account = value.partition("/")
                if not slash:
                    namespace, account = self.namespace, value
                return _authenticated(
                    _regex(f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(account)}(/.+)?")
                )
            case "source.trustDomain":
                return _authenticated(_trust_domain(value))
            case "source.principal":
                return _authenticated(_principal(value))
        if not key.startswith("request.headers["):
            raise UnknownKey(key)
        name = key.removeprefix("request.headers[").removesuffix("]")
        return {"header": _header(name, value)}


# --- matchers --------------------------------------------------------------------------------------------------------


def string(value: str, *, ignore_case: bool = False) -> Json:
    """A string matcher: `*` is what is not empty."""
    if value == "*":
        return _regex(".+")
    if value.startswith("*"):
        found: Json = {"suffix": value[1:]}
    elif value.endswith("*"):
        found = {"prefix": value[:-1]}
    else:
        found = {"exact": value}
    return found | {"ignore_case": True} if ignore_case else found


def _regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}


def _header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string(value, ignore_case=ignore_case)}


def _path(value: str) -> Json:
    if "{*}" not in value and "{**}" not in value:
        return {"url_path": {"path": string(value)}}
    template = value.replace("{*}", "*").replace("{**}", "**")
    kind = _TYPE + "extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    return {"uri_template": {"name": "uri-template", "typed_config": {"@type": kind, "path_template": template}}}


def _cidr(value: str) -> Json:
    address, _, length = value.partition("/")
    bits = ipaddress.ip_address(address).max_prefixlen
    return {"address_prefix": address, "prefix_len": int(length) if length else bits}


def _authenticated(matcher: Json) -> Json:
    return {"authenticated": {"principal_name": matcher}}


def _principal(value: str) -> Json:
    if value == "*":
        return _regex(".+")
    if value.startswith("*"):
        return _regex(f"spiffe://.*{re.escape(value[1:])}")
    return string(f"spiffe://{value}")


def _trust_domain(value: str) -> Json:
    if value == "*":
        return {"prefix": "spiffe://"}
    if "*" not in value:
        return {"prefix": f"spiffe://{value}/"}
    before, _, after = value.partition("*")
    return _regex(f"spiffe://{re.escape(before)}[^/]*{re.escape(after)}/.*")


# --- trust-domain aliases --------------------------------------------------------------------------------------------


def replace_aliases(values: Sequence[str], trust_domains: Sequence[str]) -> list[str]:
    """Write each principal of the mesh once for every trust domain of the mesh."""
    found: list[str] = []
    for value in values:
        parts = value.split("/")
        own = parts[0] == "cluster.local" or any(_starred(parts[0], each) for each in trust_domains)
        if len(parts) != 5 or parts[0] == "*" or not own:
            found.append(value)
            continue
        written: list[str] = []
        for each in trust_domains:
            keeps = parts[0].startswith("*") and each.endswith(parts[0][1:])
            new = value if keeps else "/".join([each, *parts[1:]])
            if new not in written:
                written.append(new)
        found += written
    return found


def expand_trust_domains(values: Sequence[str], trust_domains: Sequence[str]) -> list[str]:
    """Write every trust domain of the mesh for each value that is one of them."""
    found: dict[str, None] = {}
    for value in values:
        found |= dict.fromkeys(trust_domains if value in trust_domains else [value])
    return list(found)


def _starred(pattern: str, text: str) -> bool:
    return (
        pattern == text
        or (pattern.endswith("*") and text.startswith(pattern[:-1]))
        or (pattern.startswith("*") and text.endswith(pattern[1:]))
    )


# --- tokens ----------------------------------------------------------------------------------------------------------


def _token(key: str, values: Sequence[str]) -> Json:
    if key == "request.auth.principal":
        pairs = [_request_principal(value) for value in values]
        return pairs[0] if len(pairs) == 1 else {"or_ids": {"ids": pairs}}
    if key == "request.auth.audiences":
        return _claim(["aud"], values)
    if key == "request.auth.presenter":
        return _claim(["azp"], values)
    inside = key.removeprefix("request.auth.claims")
    whole = re.fullmatch(r"(?:\[[^\[\]]*\])+", inside)
    return _claim(re.findall(r"\[([^\[\]]*)\]", inside) if whole else [inside[1:-1]], values)


def _request_principal(value: str) -> Json:
    issuer, slash, subject = value.rpartition("/")
    any_text = _regex(".+")
    if value == "*":
        pair = any_text, any_text
    elif value.startswith("*"):
        if slash:
            pair = (any_text if issuer == "*" else {"suffix": issuer[1:]}), {"exact": subject}
        else:
            pair = any_text, {"suffix": value[1:]}
    elif value.endswith("*"):
        if slash:
            pair = {"exact": issuer}, (any_text if subject == "*" else {"prefix": subject[:-1]})
        else:
            pair = {"prefix": value[:-1]}, any_text
    elif slash:
        pair = {"exact": issuer}, {"exact": subject}
    else:
        pair = {"exact": value}, {"exact": ""}
    both = zip(("iss", "sub"), pair, strict=True)
    return {"and_ids": {"ids": [_metadata([claim], {"string_match": matcher}) for claim, matcher in both]}}


def _claim(way: Sequence[str], values: Sequence[str]) -> Json:
    each = [{"string_match": string(value)} for value in values]
    one = each[0] if len(each) == 1 else {"or_match": {"value_matchers": each}}
    return _metadata(way, {"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}})


def _metadata(way: Sequence[str], value: Json) -> Json:
    return {"metadata": {"filter": JWT_FILTER, "path": [{"key": key} for key in (PAYLOAD, *way)], "value": value}}
