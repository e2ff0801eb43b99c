"""The first file of tests for a set of policies, made from the policies themselves.

For each rule a request that it decides, and for each ALLOW rule requests beside it that are denied. Every one has been
asked before it is written, so the file passes as it is written; its worth comes with the next change of a policy.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.answers.calls.grid import neighbours
from proxy.answers.calls.points import CALLER, Point, Scene, dropping_details
from proxy.answers.calls.samples import points_of
from proxy.answers.question import Answer, World, ask
from proxy.config import DEFAULT_TRUST_DOMAIN
from proxy.policy.model import Action
from proxy.policy.rules import PolicyRule
from proxy.policy.snapshot import NO_RULE
from proxy.protocol.path import PathNormalization

MAX_QUESTIONS: Final = 40_000
"""Questions for one file, about ten seconds. Rules that are left then get a comment instead of a test."""

MAX_LINE: Final = 118
"""Characters of a request on one line; a longer one is written over several."""

_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9/._\-]*\Z")
_PLAIN_BLOCK: Final = re.compile(r"[A-Za-z/](?:[A-Za-z0-9/._\-\[\]* ]*[A-Za-z0-9/._\-\]])?\Z")
"""Text that needs no quotes inside braces, and at the end of a line."""

_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null"})
_WITHOUT: Final = {"no header": " without the header", "no token": " without a token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the policies were read, as the file of tests will name it; `config` or `policies`, or none for stdin.

    `name` is that of the file itself.
    """

    name: str = "THIS-FILE"
    config: str = ""
    policies: tuple[str, ...] = ()


class _Asker:
    """Asks, counts, and keeps what was asked: many neighbours are neighbours of several rules."""

    def __init__(self, world: World, now: float) -> None:
        self._world = world
        self._now = now
        self._answers: dict[Point, Answer] = {}

    @property
    def is_tired(self) -> bool:
        return len(self._answers) >= MAX_QUESTIONS

    def __call__(self, point: Point) -> Answer:
        answer = self._answers.get(point)
        if answer is None:
            answer = self._answers[point] = ask(self._world, point.question(), self._now)
        return answer


def starter(world: World, source: Source, now: float) -> str:
    """Write the file of tests for the policies of `world`; tokens are judged at `now`."""
    scene = Scene.of(world)
    drop = dropping_details([rule.rule for rule in world.snapshot.rules])
    asker = _Asker(world, now)
    written: set[Point] = set()
    lines = [*_head(world, source), f"request: {_flow(_shared(drop(scene.plain), scene))}", "", "tests:"]
    rules = [
        rule for rule in world.snapshot.rules if rule.policy.action is not Action.AUDIT and not rule.policy.dry_run
    ]
    for rule in rules:
        lines += _of_rule(rule, scene, drop, asker, written)
    if not written:
        lines += _of_nothing(world, scene, asker)
    return "\n".join(lines) + "\n"


def _head(world: World, source: Source) -> Iterator[str]:
    workload, settings = world.workload, world.settings
    yield f"# What the policies of {workload.namespace}/{workload.service_account} say today, as tests made from them."
    yield "# Every answer was asked before it was written. Keep those that you mean, and add your own:"
    yield f"#     remora policy test {source.name}"
    if source.config:
        yield f"config: {_scalar(source.config)}"
    if source.policies:
        yield f"policies: {_list(source.policies)}"
    elif not source.config:
        yield "# The policies were read from standard input: give them with -f when you run this."
    if source.config:
        return
    yield "workload:"
    yield f"  namespace: {_scalar(workload.namespace)}"
    yield f"  service_account: {_scalar(workload.service_account)}"
    if workload.labels:
        yield f"  labels: {_flow(workload.labels)}"
    if workload.trust_domain != DEFAULT_TRUST_DOMAIN:
        yield f"trust_domain: {_scalar(workload.trust_domain)}"
    if workload.trust_domain_aliases:
        yield f"trust_domain_aliases: {_list(workload.trust_domain_aliases)}"
    policy: dict[str, Any] = {"default": settings.default.value}
    if world.normalization is not PathNormalization.BASE:
        policy["path_normalization"] = world.normalization.value
    if settings.root_namespace != "istio-system":
        policy["root_namespace"] = settings.root_namespace
    if settings.trusted_proxies:
        policy["trusted_proxies"] = settings.trusted_proxies
    yield f"policy: {_flow(policy)}"
    if world.tcp_ports:
        yield f"tcp_ports: [{', '.join(map(str, sorted(world.tcp_ports)))}]"


def _of_rule(
    rule: PolicyRule, scene: Scene, drop: Callable[[Point], Point], asker: _Asker, written: set[Point]
) -> Iterator[str]:
    action = rule.policy.action
    yield ""
    yield f"  # {rule.policy.origin.file}:{rule.rule.line}: {action.value} {rule.id}"
    point, other = _decided(rule, scene, drop, asker)
    if point is None:
        decided = "" if other is None else f": those tried are {_decided_by(other)}"
        yield f"  # No request was found that this rule decides{decided}."
        return
    if point not in written:
        written.add(point)
        expect = "allow" if action is Action.ALLOW else _denied(asker(point))
        yield from _test(_said(point, scene, may=action is Action.ALLOW), point, scene, expect, rule.id)
    if action is not Action.ALLOW:
        return
    seen: set[str] = set()
    for kind, beside in neighbours(point, scene):
        neighbour = drop(beside)
        if kind in seen or neighbour in written:
            continue
        answer = asker(neighbour)
        if answer.allowed:
            continue
        seen.add(kind)
        written.add(neighbour)
        name = f"{_said(neighbour, scene, may=False)}{_WITHOUT.get(kind, '')}"
        yield from _test(name, neighbour, scene, _denied(answer))


def _decided(
    rule: PolicyRule, scene: Scene, drop: Callable[[Point], Point], asker: _Asker
) -> tuple[Point | None, Answer | None]:
    """Find a call that the rule decides; without one, give what decided the first that was tried."""
    first: Answer | None = None
    for guess in points_of(rule.rule, scene):
        if asker.is_tired:
            break
        point = drop(guess)
        answer = asker(point)
        if answer.verdict.rule == rule.id:
            return point, None
        first = first or answer
    return None, first


def _of_nothing(world: World, scene: Scene, asker: _Asker) -> Iterator[str]:
    """Test what the default says where no rule decides anything."""
    yield ""
    yield f"  # No rule decides anything: policy.default is {world.settings.default.value}."
    for point in (scene.plain, replace(scene.plain, identity="")):
        answer = asker(point)
        expect = "allow" if answer.allowed else _denied(answer)
        yield from _test(_said(point, scene, may=answer.allowed), point, scene, expect)


def _decided_by(answer: Answer) -> str:
    verdict = answer.verdict
    return "denied, by no rule" if verdict.rule == NO_RULE else f"decided by {verdict.rule}"


def _denied(answer: Answer) -> str:
    return str(answer.status) if answer.status else "deny"


# --- words ---


def _said(point: Point, scene: Scene, *, may: bool) -> str:
    what = "connect" if point.opaque else f"{point.method} {point.path}"
    return f"{_who(point.identity, scene)} may {'' if may else 'not '}{what}"


def _who(identity: str, scene: Scene) -> str:
    if not identity:
        return "a caller without identity"
    if identity == scene.stranger:
        return "a stranger"
    parts = identity.split("/")
    usual = len(parts) == 5 and parts[0] == scene.trust_domain
    return f"{parts[2]}/{parts[4]}" if usual else identity


def _test(name: str, point: Point, scene: Scene, expect: str, rule: str = "") -> Iterator[str]:
    request = _request(point, scene)
    line = f"    request: {_flow(request)}"
    yield f"  - name: {_text(name)}"
    if len(line) <= MAX_LINE:
        yield line
    else:
        yield "    request:"
        for key, value in request.items():
            yield f"      {key}: {_flow(value)}"
    yield f"    expect: {expect}"
    if rule:
        yield f"    rule: {_text(rule)}"


def _shared(point: Point, scene: Scene) -> dict[str, Any]:
    shared: dict[str, Any] = {"port": scene.port} if scene.tcp_ports else {"host": scene.host, "port": scene.port}
    return shared | ({"source": point.source_ip} if point.source_ip else {})


def _request(point: Point, scene: Scene) -> dict[str, Any]:
    request: dict[str, Any] = {}
    if point.identity:
        request["identity"] = point.identity
    if point.opaque:
        request["protocol"] = "tcp"
    else:
        request["method"] = point.method
        request["path"] = point.path
        if point.host and (point.host != scene.host or scene.tcp_ports):
            request["host"] = point.host
    if point.port != scene.port:
        request["port"] = point.port
    headers: dict[str, Any] = {}
    for name, lines in itertools.groupby(sorted(point.headers, key=lambda line: line[0]), key=lambda line: line[0]):
        values = [value for _, value in lines]
        headers[name] = values[0] if len(values) == 1 else values
    if headers:
        request["headers"] = headers
    if point.claims:
        request["claims"] = json.loads(point.claims)
    for key, value in (("source", point.source_ip), ("destination", point.destination_ip), ("sni", point.sni)):
        if value and not (key == "source" and value == CALLER):
            request[key] = value
    return request


def _flow(value: Any) -> str:
    """Write a value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, list | tuple):
        return _list(value)
    return json.dumps(value)


def _list(items: Sequence[Any]) -> str:
    return "[" + ", ".join(_flow(item) for item in items) + "]"


def _text(text: str) -> str:
    """Write text that ends its line."""
    plain = _PLAIN_BLOCK.match(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text)


def _scalar(text: str) -> str:
    """Write text inside braces, in quotes where YAML would read it as something else.

    >>> _scalar("ns/demo/sa/web"), _scalar("8080"), _scalar("no"), _scalar("a: b")
    ('ns/demo/sa/web', '"8080"', '"no"', '"a: b"')
    """
    plain = _PLAIN.match(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text)
