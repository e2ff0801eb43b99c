"""Questions as people write them: a document in YAML or JSON, or a line of the access log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from certs.spiffe import SpiffeIdError
from proxy.answers.asked import DEFAULT_PORT, SCHEME, Question, peer_of
from proxy.documents import Checker, Node, quoted, shown
from proxy.policy.values import maybe_ip

_KEYS: Final = (
    "identity",
    "method",
    "path",
    "host",
    "port",
    "headers",
    "token",
    "claims",
    "source",
    "destination",
    "sni",
    "protocol",
)
_HTTP_KEYS: Final = ("method", "path", "host", "headers", "token", "claims")
_UNVERIFIED: Final = "unverified "


def read_question(node: Node, checker: Checker, where: str = "request", *, port: int = DEFAULT_PORT) -> Question:
    """Read a request document; what is wrong becomes a fault of `checker`, and then the question does not count.

    `port` is that of a question which names none.

    >>> from proxy.documents import parse
    >>> documents, _ = parse(b"{identity: cluster.local/ns/demo/sa/web, path: /orders, port: 8080}", "request.yaml")
    >>> read_question(documents[0], Checker("request.yaml")).target
    '/orders'
    """
    fields = checker.mapping(node, where, _KEYS)
    opaque = checker.choice(fields.get("protocol"), f"{where}.protocol", ("http", "tcp"), "http") == "tcp"
    if opaque:
        for key in _HTTP_KEYS:
            if key in fields:
                hint = "leave it out, or write `protocol: http`"
                checker.fault(node.at(key), f"`{where}.{key}` is of HTTP, and the protocol is tcp", hint)
    if "token" in fields and "claims" in fields:
        checker.fault(node.at("claims"), f"`{where}` has both `token` and `claims`", "keep one of the two")

    def text(key: str, default: str = "") -> str:
        return checker.string(fields.get(key), f"{where}.{key}", default)

    claims = fields.get("claims")
    return Question(
        principal=_identity(fields.get("identity"), checker, f"{where}.identity"),
        method=text("method", "GET"),
        target=text("path", "/"),
        host=text("host"),
        port=checker.integer(fields.get("port"), f"{where}.port", port, minimum=1, maximum=65_535),
        headers=_headers(fields.get("headers"), checker, f"{where}.headers"),
        token=text("token").removeprefix("Bearer ").strip(),
        claims=_claims(claims, checker, f"{where}.claims") if claims is not None else None,
        source_ip=_address(fields.get("source"), checker, f"{where}.source"),
        destination_ip=_address(fields.get("destination"), checker, f"{where}.destination"),
        sni=text("sni"),
        opaque=opaque,
    )


def _identity(node: Node | None, checker: Checker, where: str) -> str:
    """Read an identity; empty text is a peer without one."""
    principal = checker.string(node, where, may_be_empty=True)
    try:
        peer = peer_of(principal)
    except SpiffeIdError as failure:
        if node is not None:
            checker.fault(node, f"`{where}` is no SPIFFE ID: {failure}", "write spiffe://DOMAIN/ns/NAMESPACE/sa/NAME")
        return ""
    return peer.principal if peer is not None else ""


def _address(node: Node | None, checker: Checker, where: str) -> str:
    address = checker.string(node, where)
    if node is not None and address and maybe_ip(address) is None:
        checker.fault(node, f"`{where}` is {quoted(address)}, which is no IP address", "write it without a port")
    return address


def _headers(node: Node | None, checker: Checker, where: str) -> tuple[tuple[str, str], ...]:
    lines: list[tuple[str, str]] = []
    for name, value in checker.any_mapping(node, where).items():
        place = f"{where}.{name}"
        items = value.value if isinstance(value.value, list) else [value]
        for item in items:
            written = checker.string(item, place, may_be_empty=True)
            if "\r" in written or "\n" in written:
                checker.fault(item, f"`{place}` holds a line break", "write a list for several lines of one header")
            lines.append((name, written))
    return tuple(lines)


def _claims(node: Node, checker: Checker, where: str) -> Mapping[str, Any]:
    return {key: plain(value) for key, value in checker.any_mapping(node, where).items()}


def plain(node: Node) -> Any:
    """Take a value out of its nodes, as JSON would give it.

    >>> from proxy.documents import parse
    >>> plain(parse(b"a: [1, {b: yes}]", "a.yaml")[0][0])
    {'a': [1, {'b': True}]}
    """
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


# --- access records ---


class NoQuestion(ValueError):
    """A line of the log that no question can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a line of the access log says: the question, what was decided then, and `missing`, what it does not hold."""

    question: Question
    request_id: str
    allowed: bool
    rule: str
    reason: str
    explanation: str
    nearest_miss: str
    generation: int
    missing: tuple[str, ...]


def record_of_line(line: str) -> Mapping[str, Any]:
    """Parse one line of the access log; raises NoQuestion."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise NoQuestion("the line is no JSON; give one line of the access log") from None
    if not isinstance(record, dict) or "direction" not in record or "kind" not in record:
        raise NoQuestion("the line is no record of the access log: it has no `kind` and `direction`")
    return record


def question_of_record(record: Mapping[str, Any]) -> Question:
    """Make the question that a record answers; raises NoQuestion when it is about no decision of policy."""
    return recorded(record).question


def recorded(record: Mapping[str, Any]) -> Recorded:
    """Read a record of the access log; raises NoQuestion when it is about no decision of policy.

    The path of a record is the one that was judged, in normal form, with the query. A denied request has the one that
    was sent beside it, where that is another; of a permitted one it is not on record.
    """
    if record.get("direction") != "inbound":
        raise NoQuestion("the record is of an outbound call, which the server's identity decides and not policy")
    reason, method, target = _text(record, "reason"), _text(record, "method"), _text(record, "path")
    opaque = record.get("kind") != "request"
    if method == "-" and not opaque:
        detail = _text(record, "upstream_transport_failure_reason")
        why = f"{reason}: {shown(detail, 200)}" if detail else reason
        raise NoQuestion(f"the request could not be read ({why}), so there is nothing that policy could judge")
    principal = _text(record, "source_principal")
    missing: list[str] = []
    if principal.startswith(_UNVERIFIED):
        missing.append(
            f"the identity {quoted(principal.removeprefix(_UNVERIFIED))} was not verified; asked without one"
        )
        principal = ""
    try:
        peer_of(principal)
    except SpiffeIdError as failure:
        raise NoQuestion(f"`source_principal` of the record is no SPIFFE ID: {failure}") from None
    headers: list[tuple[str, str]] = []
    if not opaque:
        kept = (("x-forwarded-for", "x_forwarded_for"), ("user-agent", "user_agent"))
        headers = [(name, value) for name, key in kept if (value := _text(record, key))]
        missing.append("a record holds no token and no headers but User-Agent and the last X-Forwarded-For")
        if original := _text(record, "original_path"):
            target = original + "".join(target.partition("?")[1:])
        elif record.get("decision") != "deny":
            missing.append("the path of a record is the judged one: what was sent is not known")
    explanation, miss = _text(record, "explanation"), _text(record, "nearest_miss")
    generation = record.get("generation")
    return Recorded(
        question=Question(
            principal=principal.removeprefix(SCHEME),
            method=method or "GET",
            target=target or "/",
            host=_text(record, "authority"),
            port=_port(_text(record, "upstream_cluster")),
            headers=tuple(headers),
            source_ip=_host(_text(record, "downstream_remote_address")),
            destination_ip=_host(_text(record, "downstream_local_address")),
            sni=_text(record, "requested_server_name"),
            opaque=opaque,
        ),
        request_id=_text(record, "request_id"),
        allowed=record.get("decision") == "allow",
        rule=_text(record, "policy"),
        reason=reason,
        explanation=explanation,
        nearest_miss=miss,
        generation=generation if isinstance(generation, int) else 0,
        missing=tuple(missing),
    )


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _port(cluster: str) -> int:
    """Take the workload port out of `inbound|8080`: the address of the record is that of the listener."""
    parts = cluster.split("|")
    number = parts[1] if len(parts) > 1 else ""
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise NoQuestion(f"`upstream_cluster` of the record is {quoted(cluster)}, which names no port")
    return int(number)


def _host(address: str) -> str:
    """Take the address out of `10.0.0.7:4711` or `[::1]:4711`."""
    return address.rpartition(":")[0].strip("[]")
