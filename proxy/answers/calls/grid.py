"""The grid of calls that two policy sets are compared on: identities × routes that either names, and their neighbours.

First come the calls that each rule itself speaks of, each with calls that differ from it in one thing; so whatever a
rule of either set decides is on the grid, however large it is. Then comes the whole product, up to the limit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from proxy.answers.calls.points import CALLER, Point, Scene, dropping_details
from proxy.answers.calls.samples import METHODS, PROXY, claim_sets, filled, header_lists, identities, points_of
from proxy.policy.model import Attribute, Clause, Rule
from proxy.policy.templates import ANY, ONE, is_template

DEFAULT_LIMIT: Final = 20_000
"""Calls of a grid. Each is asked twice; more take longer than a person waits, and repeat what the first ones say."""

PER_RULE: Final = 32
"""Calls that one rule puts on the grid before the product: its identities and routes, each in its first form."""

ELSEWHERE: Final = "/elsewhere"

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Calls to ask about; `combinations` is how many the product has, `is_cut` says that not all are among `points`."""

    points: tuple[Point, ...]
    combinations: int
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    identities: Sequence[str]
    ports: Sequence[int]
    methods: Sequence[str]
    paths: Sequence[str]
    hosts: Sequence[str]
    source_ips: Sequence[str]
    destination_ips: Sequence[str]
    snis: Sequence[str]
    headers: Sequence[tuple[tuple[str, str], ...]]
    claims: Sequence[str]

    def combinations(self, tcp_ports: frozenset[int]) -> int:
        """Count the product: on a port that carries TCP nothing of HTTP tells calls apart."""
        opaque = sum(port in tcp_ports for port in self.ports)
        connections = math.prod(map(len, (self.identities, self.source_ips, self.destination_ips, self.snis)))
        requests = math.prod(map(len, (self.methods, self.paths, self.hosts, self.headers, self.claims)))
        return connections * (opaque + (len(self.ports) - opaque) * requests)

    def points(self, tcp_ports: frozenset[int]) -> Iterator[Point]:
        for port, identity, source_ip, destination_ip, sni in itertools.product(
            self.ports, self.identities, self.source_ips, self.destination_ips, self.snis
        ):
            base = Point(
                identity=identity, port=port, source_ip=source_ip, destination_ip=destination_ip, sni=sni, opaque=True
            )
            if port in tcp_ports:
                yield base
                continue
            for path, method, host, headers, claims in itertools.product(
                self.paths, self.methods, self.hosts, self.headers, self.claims
            ):
                yield replace(base, path=path, method=method, host=host, headers=headers, claims=claims, opaque=False)


def make_grid(rules: Sequence[Rule], scene: Scene, limit: int = DEFAULT_LIMIT) -> Grid:
    """Lay out the grid of the rules of both sets, of at most `limit` calls."""
    axes = _axes(rules, scene)
    # In turns, so that a small grid too has something of every rule.
    spoken_of = itertools.chain.from_iterable(itertools.zip_longest(*(_of_rule(rule, scene) for rule in rules)))
    drop = dropping_details(rules)
    points: dict[Point, None] = {}
    for point in spoken_of:
        if len(points) >= limit:
            break
        if point is not None:
            points[drop(point)] = None
    combinations = axes.combinations(scene.tcp_ports)
    product = map(drop, axes.points(scene.tcp_ports))
    for point in itertools.islice(product, limit):
        if len(points) >= limit and point not in points:
            return Grid(points=tuple(points), combinations=combinations, is_cut=True)
        points[point] = None
    is_cut = next(product, None) is not None
    return Grid(points=tuple(points), combinations=max(combinations, len(points)), is_cut=is_cut)


def _of_rule(rule: Rule, scene: Scene) -> Iterator[Point]:
    for i, point in enumerate(itertools.islice(points_of(rule, scene), PER_RULE)):
        yield point
        if i == 0:
            yield from (neighbour for _, neighbour in neighbours(point, scene))
            paths = [] if point.opaque else _paths(rule.clauses())
            yield from (replace(point, path=path) for path in paths)


def neighbours(point: Point, scene: Scene) -> Iterator[tuple[str, Point]]:
    """Give calls that differ from `point` in one thing, and say in which."""
    if point.identity != scene.stranger:
        yield "another identity", replace(point, identity=scene.stranger)
    if point.identity:
        yield "no identity", replace(point, identity="")
    if not point.opaque:
        yield from (("another method", replace(point, method=method)) for method in METHODS if method != point.method)
        yield "another path", replace(point, path=ELSEWHERE)
        if point.headers:
            yield "no header", replace(point, headers=())
        if point.claims:
            yield "no token", replace(point, claims="")


def _axes(rules: Sequence[Rule], scene: Scene) -> _Axes:
    clauses = [replace(clause, negated=False) for rule in rules for clause in rule.clauses()]
    own = (f"{scene.trust_domain}/ns/{scene.namespace}/sa/someone", scene.stranger, "")
    callers = list(_callers(rules))
    named = _named(clauses, scene)
    ports = [int(port) for port in named[Attribute.PORT]]
    spare = next((method for method in METHODS if method not in named[Attribute.METHOD]), "PATCH")
    return _Axes(
        identities=_once([*(identity for caller in callers for identity in identities(caller, scene)), *own]),
        ports=_once([*ports, scene.port, *sorted(scene.tcp_ports), *(scene.some_ports if ports else ())]),
        methods=_once([*named[Attribute.METHOD], spare]),
        paths=_once([*named[Attribute.PATH], *_paths(clauses), ELSEWHERE]),
        hosts=_once([*named[Attribute.HOST], scene.host]),
        source_ips=_once([*named[Attribute.SOURCE_IP], *([PROXY] if named[Attribute.SOURCE_IP] else [CALLER])]),
        destination_ips=_once([*named[Attribute.DESTINATION_IP], ""]),
        snis=_once([*named[Attribute.SNI], ""]),
        headers=_once([(), *(lines for caller in callers for lines in header_lists(caller, scene))]),
        claims=_once(["", *(claims for caller in callers for claims in claim_sets(caller, scene))]),
    )


def _paths(clauses: Iterable[Clause]) -> list[str]:
    """Give paths around those that are named: one segment deeper, and without the border of a segment.

    `/orders/*` and `/orders/{*}` agree on `/orders/7` and differ on `/orders/7/7`; `/public*` takes `/publicx`.
    """
    paths: list[str] = []
    for clause in clauses:
        for value in clause.values if clause.attribute is Attribute.PATH else ():
            if is_template(value):
                paths.append(value.replace(ANY, "7/7").replace(ONE, "7"))
            elif value.endswith("*") and not value.startswith("*"):
                start = value[:-1]
                paths += [f"{start}7/7"] if start.endswith("/") else [f"{start}x", f"{start}/7"]
            elif value.startswith("*"):
                paths.append(f"/x/x{value[1:]}")
            else:
                paths.append(f"{value.removesuffix('/')}/7")
    return _once(paths)


def _named(clauses: Sequence[Clause], scene: Scene) -> dict[Attribute, list[str]]:
    """Fill in every value that is named, by what it is a value of."""
    named: dict[Attribute, list[str]] = {attribute: [] for attribute in Attribute}
    for clause in clauses:
        named[clause.attribute] += (filled(clause.attribute, value, scene) for value in clause.values)
    return {attribute: _once(texts) for attribute, texts in named.items()}


def _callers(rules: Iterable[Rule]) -> Iterator[list[Clause]]:
    """Give what each rule asks of callers, negative clauses as if they were positive: what it refuses is asked too."""
    for rule in rules:
        for source in rule.sources or ((),):
            yield [replace(clause, negated=False) for clause in (*source, *rule.conditions)]


def _once(items: Iterable[_Item]) -> list[_Item]:
    return list(dict.fromkeys(items))
