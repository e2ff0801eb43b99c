"""Concrete requests out of what rules name: stars filled in, templates walked, blocks of addresses entered.

The points of a rule are guesses made from its clauses. Whoever uses them asks the policy what it says to each, so a
guess that misses costs a question and is never an untruth.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from certs.spiffe import SpiffeIdError
from proxy.answers.asked import peer_of
from proxy.answers.calls.points import CALLER, SUBJECT, Point, Scene
from proxy.policy.model import Attribute, Clause, Rule
from proxy.policy.templates import ANY, ONE, is_template
from proxy.policy.values import parse_ip_block

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
"""Tried in this order where a rule leaves the method open."""

_KNOWN_METHODS: Final = (*METHODS, "HEAD", "PATCH", "OPTIONS")

ISSUER: Final = "https://issuer.example"
PROXY: Final = "192.0.2.1"  # RFC 5737 documentation address: a proxy of ours in x-forwarded-for

MAX_TRIES: Final = 400
"""Guesses for one pair of `from` and `to`. A rule of many values that exclude each other is given up then."""


def points_of(rule: Rule, scene: Scene) -> Iterator[Point]:
    """Guess calls that the rule matches, likely ones first, at most `MAX_TRIES` for each pair of `from` and `to`."""
    for source in rule.sources or ((),):
        for operation in rule.operations or ((),):
            yield from itertools.islice(_points((*source, *operation, *rule.conditions), scene), MAX_TRIES)


def _points(clauses: Sequence[Clause], scene: Scene) -> Iterator[Point]:
    ports = [int(port) for port in _wanted(clauses, Attribute.PORT, scene)]
    addresses = _wanted(clauses, Attribute.SOURCE_IP, scene)
    if not scene.trusted_proxies:
        addresses += _wanted(clauses, Attribute.REMOTE_IP, scene)
    choices = _diagonal(
        identities(clauses, scene),
        ports or scene.some_ports,
        _wanted(clauses, Attribute.METHOD, scene) or METHODS,
        _wanted(clauses, Attribute.PATH, scene) or scene.paths,
        _wanted(clauses, Attribute.HOST, scene) or (scene.host,),
        addresses or (CALLER, PROXY),
        _wanted(clauses, Attribute.DESTINATION_IP, scene) or ("",),
        _wanted(clauses, Attribute.SNI, scene) or ("",),
        header_lists(clauses, scene),
        claim_sets(clauses, scene),
    )
    for identity, port, method, path, host, source_ip, destination_ip, sni, headers, claims in choices:
        opaque = port in scene.tcp_ports
        yield Point(
            identity=identity,
            port=port,
            method="" if opaque else method,
            path="" if opaque else path,
            host="" if opaque else host,
            source_ip=source_ip,
            destination_ip=destination_ip,
            sni=sni,
            headers=() if opaque else headers,
            claims="" if opaque else claims,
            opaque=opaque,
        )


def _diagonal(*choices: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the first of everything, then what differs from it in one place, then the rest of the product."""
    first = tuple(choice[0] for choice in choices)
    yield first
    for i, choice in enumerate(choices):
        for value in choice[1:]:
            yield (*first[:i], value, *first[i + 1 :])
    yield from itertools.product(*choices)


def _wanted(clauses: Iterable[Clause], attribute: Attribute, scene: Scene) -> list[str]:
    """Fill in the values that positive clauses of one attribute name."""
    return _once(
        filled(attribute, value, scene)
        for clause in clauses
        if clause.attribute is attribute and not clause.negated
        for value in clause.values
    )


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


# --- identities ---


def identities(clauses: Sequence[Clause], scene: Scene) -> list[str]:
    """Name identities that the clauses ask for; without any, one of the own namespace, a stranger, and nobody."""
    named = [clause for clause in clauses if not clause.negated]
    principals = _wanted(clauses, Attribute.PRINCIPAL, scene)
    accounts = [value for clause in named if clause.attribute is Attribute.SERVICE_ACCOUNT for value in clause.values]
    namespaces = [value for clause in named if clause.attribute is Attribute.NAMESPACE for value in clause.values]
    domains = [value for clause in named if clause.attribute is Attribute.TRUST_DOMAIN for value in clause.values]
    domains = [_star_filled(value, scene.trust_domain) for value in domains]
    made: list[str] = []
    if accounts or namespaces or domains:
        places = [tuple(account.rpartition("/")[::2]) for account in accounts]
        if not places:
            filled_namespaces = [scene.namespace if value == "*" else value.replace("*", "x") for value in namespaces]
            places = [(namespace, SUBJECT) for namespace in filled_namespaces or [scene.namespace]]
        made = [
            f"{domain}/ns/{namespace or scene.namespace}/sa/{account}"
            for domain in domains or [scene.trust_domain]
            for namespace, account in places
        ]
    found = _once(name for name in (*principals, *made) if _is_identity(name))
    return found or [f"{scene.trust_domain}/ns/{scene.namespace}/sa/{SUBJECT}", scene.stranger, ""]


def _is_identity(principal: str) -> bool:
    """Say whether a certificate could carry it; a value with a star inside names nobody."""
    try:
        return peer_of(principal) is not None
    except SpiffeIdError:
        return False


def _principal_filled(value: str, scene: Scene) -> str:
    """Complete a principal with a star to one that a certificate could carry."""
    usual = [scene.trust_domain, "ns", scene.namespace, "sa", SUBJECT]
    if value == "*":
        return "/".join(usual)
    if value.startswith("*"):
        parts = value[1:].split("/")
        if len(parts) > len(usual):
            return "x" + value[1:]
        place = len(usual) - len(parts)
        parts[0] = usual[place] if usual[place].endswith(parts[0]) else f"x{parts[0]}"
        return "/".join([*usual[:place], *parts])
    if value.endswith("*"):
        parts = value[:-1].split("/")
        if len(parts) > len(usual):
            return value[:-1] + "x"
        place = len(parts) - 1
        if usual[place].startswith(parts[-1]):
            parts[-1] = usual[place]
        elif parts[-1].endswith("-"):
            parts[-1] += "x"
        return "/".join([*parts, *usual[place + 1 :]])
    return value


# --- single values ---


def filled(attribute: Attribute, value: str, scene: Scene) -> str:
    """Give a text that one value of a clause matches.

    >>> scene = Scene(trust_domain="cluster.local", namespace="demo")
    >>> filled(Attribute.PATH, "/orders/{*}/items/{**}", scene), filled(Attribute.PATH, "*.png", scene)
    ('/orders/7/items/7', '/x.png')
    >>> filled(Attribute.PRINCIPAL, "*/sa/web", scene), filled(Attribute.SOURCE_IP, "10.1.0.0/16", scene)
    ('cluster.local/ns/demo/sa/web', '10.1.0.1')
    """
    match attribute:
        case Attribute.PRINCIPAL:
            return _principal_filled(value, scene)
        case Attribute.SOURCE_IP | Attribute.REMOTE_IP | Attribute.DESTINATION_IP:
            return _address_in(value)
        case Attribute.PATH if is_template(value):
            return value.replace(ANY, "7").replace(ONE, "7")
        case Attribute.PATH:
            return _path_filled(value)
        case Attribute.METHOD:
            return _star_filled(value, "GET", near=_KNOWN_METHODS, other="X")
        case Attribute.HOST:
            return _star_filled(value, scene.host or "host.example")
        case _:
            return _star_filled(value, "x")


def _path_filled(value: str) -> str:
    if value == "*":
        return "/"
    if value.startswith("*"):
        return f"/x{value[1:]}"
    if value.endswith("*"):
        return f"{value[:-1]}7" if value.endswith("/*") else value[:-1]
    return value


def _star_filled(value: str, usual: str, near: Sequence[str] = (), other: str = "x") -> str:
    """Fill the star at one end; `usual` and `near` are preferred where they match."""
    if value == "*":
        return usual
    if value.startswith("*"):
        return next((text for text in (usual, *near) if text.endswith(value[1:])), f"{other}{value[1:]}")
    if value.endswith("*"):
        return next((text for text in (usual, *near) if text.startswith(value[:-1])), f"{value[:-1]}{other}")
    return value


def _address_in(value: str) -> str:
    """Take the first address of a block, the one behind it where the block is larger than one."""
    block = parse_ip_block(value)
    bits = 32 if block.version == 4 else 128
    number = block.network << (bits - block.length)
    number += 1 if block.length < bits else 0
    return str(ipaddress.IPv4Address(number) if block.version == 4 else ipaddress.IPv6Address(number))


# --- headers and tokens ---


def header_lists(clauses: Sequence[Clause], scene: Scene) -> list[tuple[tuple[str, str], ...]]:
    """Give the header lines that the clauses ask for, one list for each way to choose among their values."""
    by_name: dict[str, list[str]] = {}
    for clause in clauses:
        if clause.negated:
            continue
        if clause.attribute is Attribute.HEADER and not clause.header.startswith(":"):
            by_name.setdefault(clause.header, []).extend(
                filled(clause.attribute, value, scene) for value in clause.values
            )
        elif clause.attribute is Attribute.REMOTE_IP and scene.trusted_proxies:
            addresses = [_address_in(value) for value in clause.values]
            hops = (scene.trusted_proxies - 1, scene.trusted_proxies)
            lines = [", ".join([address, *[PROXY] * hop]) for address in addresses for hop in hops]
            by_name.setdefault("x-forwarded-for", []).extend(lines)
    named = [[(name, value) for value in _once(values)] for name, values in by_name.items()]
    return [tuple(lines) for lines in itertools.islice(itertools.product(*named), MAX_TRIES)]


def claim_sets(clauses: Sequence[Clause], scene: Scene) -> list[str]:
    """Give the claims that the clauses ask for, as JSON texts; [""] when they ask for no token."""
    issuer = scene.issuers[0] if scene.issuers else ISSUER
    callers: list[dict[str, Any]] = []
    claims: dict[str, Any] = {}
    asks = False
    for clause in clauses:
        if clause.negated:
            continue
        asks = asks or clause.attribute in _TOKEN_PLACES
        if clause.attribute is Attribute.REQUEST_PRINCIPAL:
            for value in clause.values:
                iss, sub = issuer_and_subject(value, issuer)
                callers.append({"iss": iss, "sub": sub})
        elif clause.attribute in _TOKEN_PLACES:
            way = _TOKEN_PLACES[clause.attribute] or clause.claim
            _put(claims, way, filled(clause.attribute, clause.values[0], scene))
    if not asks:
        return [""]
    return _once(claims_text({**caller, **claims}) for caller in callers or [{"iss": issuer, "sub": SUBJECT}])


_TOKEN_PLACES: Final[Mapping[Attribute, tuple[str, ...]]] = {
    Attribute.REQUEST_PRINCIPAL: ("sub",),
    Attribute.AUDIENCES: ("aud",),
    Attribute.PRESENTER: ("azp",),
    Attribute.CLAIM: (),
}


def claims_text(claims: Mapping[str, Any]) -> str:
    """Write claims as the one text that stands for them."""
    return json.dumps(claims, sort_keys=True)


def issuer_and_subject(value: str, issuer: str) -> tuple[str, str]:
    """Fill a request principal in; it is split at its last slash, because an issuer may be a URL.

    >>> issuer_and_subject("https://a.example/*", "https://b.example")
    ('https://a.example', 'someone')
    >>> issuer_and_subject("*", "https://b.example")
    ('https://b.example', 'someone')
    """
    if value == "*":
        return issuer, SUBJECT
    before, slash, after = value.rpartition("/")
    if not slash:
        return (issuer, f"x{after[1:]}") if after.startswith("*") else (after.removesuffix("*"), SUBJECT)
    return _star_filled(before, issuer), _star_filled(after, SUBJECT)


def _put(claims: dict[str, Any], way: tuple[str, ...], value: str) -> None:
    for name in way[:-1]:
        inner = claims.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        claims = inner
    claims.setdefault(way[-1], value)
