"""A `Point` is one call as a person would write it down; a `Scene` is what stands where nothing is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.answers.asked import DEFAULT_PORT, Question
from proxy.answers.question import World
from proxy.policy.model import Attribute, Rule

SUBJECT: Final = "someone"
CALLER: Final = "10.0.0.7"
OTHER_PORTS: Final = (9999, 9998)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One call: `identity` as policies write it ("" for plaintext), `claims` the JSON text of a token's ("" without).

    `opaque` means a connection whose bytes nobody reads: method, path, host, headers and claims say nothing then.
    """

    identity: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    host: str = ""
    source_ip: str = ""
    destination_ip: str = ""
    sni: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    claims: str = ""
    opaque: bool = False

    def question(self) -> Question:
        """Ask it."""
        return Question(
            principal=self.identity,
            method=self.method or "GET",
            target=self.path or "/",
            host=self.host,
            port=self.port,
            headers=self.headers,
            claims=json.loads(self.claims) if self.claims else None,
            source_ip=self.source_ip,
            destination_ip=self.destination_ip,
            sni=self.sni,
            opaque=self.opaque,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Who is asked, and what stands where a rule names nothing: the first of each is what a plain call looks like."""

    trust_domain: str
    namespace: str
    tcp_ports: frozenset[int] = frozenset()
    issuers: tuple[str, ...] = ()
    trusted_proxies: int = 0
    host: str = ""
    paths: tuple[str, ...] = ("/", "/x")

    @classmethod
    def of(cls, *worlds: World) -> Scene:
        """Take it from worlds of one workload."""
        workload, settings = worlds[0].workload, worlds[0].settings
        rules = [
            rule for world in worlds if (found := world.snapshot.authentication) is not None for rule in found.rules
        ]
        return cls(
            trust_domain=workload.trust_domain,
            namespace=workload.namespace,
            tcp_ports=worlds[0].tcp_ports,
            issuers=tuple(dict.fromkeys(rule.issuer for rule in rules)),
            trusted_proxies=settings.trusted_proxies,
            host=f"{workload.service_account}.{workload.namespace}",
        )

    @property
    def stranger(self) -> str:
        """An identity that no rule is likely to name."""
        return f"{self.trust_domain}/ns/elsewhere/sa/stranger"

    @property
    def port(self) -> int:
        """The port of a call that names none."""
        return next(port for port in range(DEFAULT_PORT, 65_536) if port not in self.tcp_ports)

    @property
    def some_ports(self) -> list[int]:
        """Give that port, another, and those that carry TCP."""
        return [self.port, next(port for port in OTHER_PORTS if port not in self.tcp_ports), *sorted(self.tcp_ports)]

    @property
    def plain(self) -> Point:
        """A call of somebody in the same namespace, with nothing about it that a rule would name."""
        opaque = self.port in self.tcp_ports
        return Point(
            identity=f"{self.trust_domain}/ns/{self.namespace}/sa/{SUBJECT}",
            port=self.port,
            method="" if opaque else "GET",
            path="" if opaque else "/",
            host="" if opaque else self.host,
            source_ip=CALLER,
            opaque=opaque,
        )


def dropping_details(rules: Sequence[Rule]) -> Callable[[Point], Point]:
    """Make what drops of a point that which no rule looks at, so that points which differ in nothing else are one.

    Two requests of one caller come from two ports and carry two request ids; as calls they are the same.
    """
    looks_at = {clause.attribute for rule in rules for clause in rule.clauses()}
    headers = {clause.header for rule in rules for clause in rule.clauses() if clause.attribute is Attribute.HEADER}
    if Attribute.REMOTE_IP in looks_at:
        headers.add("x-forwarded-for")
    unseen: dict[str, Any] = {}
    if not looks_at & {Attribute.SOURCE_IP, Attribute.REMOTE_IP}:
        unseen["source_ip"] = ""
    if Attribute.DESTINATION_IP not in looks_at:
        unseen["destination_ip"] = ""
    if Attribute.SNI not in looks_at:
        unseen["sni"] = ""
    if Attribute.HOST not in looks_at and not headers & {":authority", "host"}:
        unseen["host"] = ""

    def drop(point: Point) -> Point:
        kept = tuple(line for line in point.headers if line[0] in headers)
        return replace(point, path=point.path.partition("?")[0], headers=kept, **unseen)

    return drop
