"""The policy language evaluated as its specification is written: from the documents, slowly, nothing compiled.

It exists to disagree with the engine. It shares no code with it, takes regular expressions where the engine has
matchers of its own, and looks at every rule of every policy every time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request, or one opaque connection when `method` is None; `principal` None is a peer without identity."""

    principal: str | None
    ip: str
    port: int
    method: str | None = None
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    destination_ip: str = "10.0.0.8"
    sni: str = ""
    claims: Document | None = None  # of a verified token; None is a request without one

    @property
    def is_http(self) -> bool:
        return self.method is not None


@dataclass(frozen=True)
class World:
    """The workload and the settings."""

    namespace: str
    labels: Mapping[str, str]
    trust_domains: tuple[str, ...]
    default: str
    trusted_proxies: int = 0


class Unknown(Exception):
    """The clause looks at HTTP and there is none."""


HTTP_FIELDS = ("hosts", "methods", "paths", "requestPrincipals")
FIELDS_OF_KEYS = {
    "source.ip": "ipBlocks",
    "source.namespace": "namespaces",
    "source.principal": "principals",
    "source.serviceAccount": "serviceAccounts",
    "source.trustDomain": "trustDomains",
    "remote.ip": "remoteIpBlocks",
    "request.auth.principal": "requestPrincipals",
    "destination.port": "ports",
}


def evaluate(policies: Sequence[Document], world: World, call: Call) -> bool:
    """Say whether the call is allowed: DENY, then no ALLOW policy at all, then ALLOW."""
    selecting = [each for each in policies if _selects(each, world)]
    if call.principal is None and world.default != "allow-all":
        return False  # nothing said means STRICT
    for policy in _with_action(selecting, "DENY"):
        for rule in policy["spec"].get("rules", []):
            if _matches(rule, policy, world, call, unknown=True):
                return False
    allowing = _with_action(selecting, "ALLOW")
    if not allowing:
        if world.default == "allow-authenticated":
            return call.principal is not None
        return world.default in ("allow-all", "audit")
    return any(
        _matches(rule, policy, world, call, unknown=False)
        for policy in allowing
        for rule in policy["spec"].get("rules", [])
        if call.is_http or not _mentions_http(rule)
    )


def _with_action(policies: Sequence[Document], action: str) -> list[Document]:
    return [
        each
        for each in policies
        if each["spec"].get("action", "ALLOW") == action
        and each["metadata"].get("annotations", {}).get("istio.io/dry-run", "false") != "true"
    ]


def _selects(policy: Document, world: World) -> bool:
    if policy["metadata"]["namespace"] not in ("istio-system", world.namespace):
        return False
    labels = policy["spec"].get("selector", {}).get("matchLabels", {})
    return all(world.labels.get(key) == value for key, value in labels.items())


def _mentions_http(rule: Document) -> bool:
    fields = {key for item in rule.get("to", []) for key in item["operation"]}
    fields |= {key for item in rule.get("from", []) for key in item["source"]}
    keys = [item["key"] for item in rule.get("when", [])]
    negatives = {f"not{name[0].upper()}{name[1:]}" for name in HTTP_FIELDS}
    return bool(fields & {*HTTP_FIELDS, *negatives}) or any(key.startswith("request.") for key in keys)


def _matches(rule: Document, policy: Document, world: World, call: Call, *, unknown: bool) -> bool:
    """Judge a rule; a clause that nobody can judge counts as `unknown`."""

    def known(clause: Callable[[], bool]) -> bool:
        try:
            return clause()
        except Unknown:
            return unknown

    def field(name: str, values: Sequence[str], not_values: Sequence[str]) -> bool:
        return (not values or known(lambda: _any(name, values, policy, world, call))) and (
            not not_values or known(lambda: not _any(name, not_values, policy, world, call))
        )

    def all_fields(fields: Document) -> bool:
        names = [
            "principals",
            "namespaces",
            "serviceAccounts",
            "trustDomains",
            "ipBlocks",
            "remoteIpBlocks",
            "requestPrincipals",
            "hosts",
            "methods",
            "paths",
            "ports",
        ]
        for name in names:
            values, not_values = fields.get(name, []), fields.get(f"not{name[0].upper()}{name[1:]}", [])
            if not field(name, values, not_values):
                return False
        return True

    def condition(item: Document) -> bool:
        key: str = item["key"]
        name = FIELDS_OF_KEYS.get(key, key)
        return field(name, item.get("values", []), item.get("notValues", []))

    from_holds = "from" not in rule or any(all_fields(item["source"]) for item in rule["from"])
    to_holds = "to" not in rule or any(all_fields(item["operation"]) for item in rule["to"])
    return from_holds and to_holds and all(condition(item) for item in rule.get("when", []))


def _any(name: str, values: Sequence[str], policy: Document, world: World, call: Call) -> bool:
    return any(_one(name, value, policy, world, call) for value in values)


def _one(name: str, value: str, policy: Document, world: World, call: Call) -> bool:
    parts = (call.principal or "").split("/")
    is_account = len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa"
    match name:
        case "principals":
            return call.principal is not None and any(
                _form(expanded, call.principal) for expanded in _aliases(value, world.trust_domains)
            )
        case "namespaces":
            pattern = ".*".join(re.escape(piece) for piece in value.split("*"))
            return is_account and re.fullmatch(pattern, parts[2]) is not None
        case "serviceAccounts":
            full = value if "/" in value else f"{policy['metadata']['namespace']}/{value}"
            return is_account and full == f"{parts[2]}/{parts[4]}"
        case "trustDomains":
            values = world.trust_domains if value in world.trust_domains else (value,)
            return call.principal is not None and any(_form(each, parts[0]) for each in values)
        case "ipBlocks":
            return _in_block(value, call.ip)
        case "remoteIpBlocks":
            return _in_block(value, _remote_ip(world, call))
        case "destination.ip":
            return _in_block(value, call.destination_ip)
        case "connection.sni":
            return call.sni != "" and _form(value, call.sni)
        case "ports":
            return int(value) == call.port
    if not call.is_http:
        raise Unknown
    match name:
        case "hosts":
            return call.host != "" if value == "*" else _form(value.lower(), call.host.lower())
        case "methods":
            return _form(value, call.method or "")
        case "paths":
            return _template(value, call.path) if "{*}" in value or "{**}" in value else _form(value, call.path)
        case "requestPrincipals":
            return call.claims is not None and _request_principal(value, call.claims)
        case "request.auth.audiences":
            return any(_form(value, text) for text in _claim_texts(["aud"], call))
        case "request.auth.presenter":
            return any(_form(value, text) for text in _claim_texts(["azp"], call))
    if name.startswith("request.auth.claims"):
        brackets = name.removeprefix("request.auth.claims")
        nested = re.fullmatch(r"(\[[^\[\]]+\])+", brackets) is not None
        path = re.findall(r"\[([^\[\]]+)\]", brackets) if nested else [brackets[1:-1]]
        return any(_form(value, text) for text in _claim_texts(path, call))
    header = name.removeprefix("request.headers[").removesuffix("]").lower()
    lines = [line for own, line in call.headers if own == header]
    return bool(lines) if value == "*" else any(_form(value, line) for line in lines)


def _form(value: str, text: str) -> bool:
    if value == "*":
        pattern = ".+"
    elif value.startswith("*"):
        pattern = ".*" + re.escape(value[1:])
    elif value.endswith("*"):
        pattern = re.escape(value[:-1]) + ".*"
    else:
        pattern = re.escape(value)
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def _in_block(value: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False)


def _remote_ip(world: World, call: Call) -> str:
    """The address that the farthest trusted proxy wrote, counted from the right; the peer's when there is none."""
    joined = ",".join(line for name, line in call.headers if name == "x-forwarded-for")
    entries = [entry.strip() for entry in joined.split(",")]
    if not call.is_http or world.trusted_proxies == 0 or len(entries) < world.trusted_proxies:
        return call.ip
    entry = entries[len(entries) - world.trusted_proxies]
    try:
        ipaddress.ip_address(entry)
    except ValueError:
        return call.ip
    return entry


def _claim_texts(path: Sequence[str], call: Call) -> list[str]:
    value: Any = call.claims
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return []
        value = value[name]
    if isinstance(value, str):
        return value.split() if path in (["scope"], ["permission"]) else [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _request_principal(value: str, claims: Document) -> bool:
    """The table of request principals, row by row."""
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not issuer or not subject:
        return False
    if value == "*":
        return True
    if "/" not in value:
        return subject.endswith(value[1:]) if value[0] == "*" else issuer.startswith(value[:-1])
    left, right = re.fullmatch(r"(.*)/(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    if value.startswith("*"):
        return issuer.endswith(left[1:]) and subject == right
    if value.endswith("*"):
        return issuer == left and subject.startswith(right[:-1])
    return issuer == left and subject == right


def _template(value: str, text: str) -> bool:
    character = r"[A-Za-z0-9\-._~%!$&'()+,;:@=*]"
    pattern = "".join(
        {"{*}": f"{character}+", "{**}": f"(?:{character}|/)*"}.get(piece, re.escape(piece))
        for piece in re.split(r"(\{\*\*?\})", value)
    )
    return re.fullmatch(pattern, text) is not None


def _aliases(value: str, trust_domains: tuple[str, ...]) -> set[str]:
    parts = value.split("/")
    if len(parts) != 5 or parts[0] == "*":
        return {value}
    own = parts[0] == "cluster.local" or any(_form(parts[0], each) for each in trust_domains)
    if not own:
        return {value}
    if parts[0].startswith("*"):
        keeps = {value for each in trust_domains if _form(parts[0], each)}
        return keeps | {"/".join([each, *parts[1:]]) for each in trust_domains if not _form(parts[0], each)}
    return {"/".join([each, *parts[1:]]) for each in trust_domains}
