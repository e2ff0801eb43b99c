"""Every edit that explain offers, applied to the files, allows the denied request and opens no more than it says.

Policy sets are made in several layouts (lines, brackets, JSON, lists, with comments and CRLF) from few words, so that
rules overlap. The grid that is compared holds every request of those words.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.spiffe import TrustDomain
from proxy.answers.editing.edit import smallest_edit
from proxy.answers.question import Question, World, ask
from proxy.answers.report import explain
from proxy.answers.told import as_json, as_text
from proxy.policy import PolicyDefault, PolicySettings, Workload, load
from proxy.types import Generation

WORKLOAD = Workload(
    namespace="demo",
    service_account="orders",
    name="orders-1",
    labels={"app": "orders"},
    trust_domain=TrustDomain("cluster.local"),
)
ACCOUNTS = ("web", "batch", "ops")
METHODS = ("GET", "POST")
PATHS = ("/", "/orders/7", "/admin", "/a b".replace(" ", "%20"))
PORTS = (8080, 5432)
ROLES = ("", "admin")


def principal(account: str) -> str:
    return f"cluster.local/ns/demo/sa/{account}"


values = {
    "principals": [*map(principal, ACCOUNTS), "*", "*/sa/web", "cluster.local/ns/demo/*"],
    "namespaces": ["demo", "other", "d*"],
    "methods": [*METHODS, "*"],
    "paths": [*PATHS, "/orders/*", "/orders/{*}", "*7"],
    "ports": ["8080", "5432"],
    "hosts": ["orders", "orders:*"],
}


def negative(field: str) -> str:
    return f"not{field[0].upper()}{field[1:]}"


def alternative(fields: tuple[str, ...]) -> st.SearchStrategy[dict[str, list[str]]]:
    names = [*fields, *map(negative, fields)]

    def filled(chosen: list[str]) -> st.SearchStrategy[dict[str, list[str]]]:
        def known(name: str) -> list[str]:
            return values[name if name in values else name[3].lower() + name[4:]]

        return st.fixed_dictionaries(
            {name: st.lists(st.sampled_from(known(name)), min_size=1, max_size=3, unique=True) for name in chosen}
        )

    return st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).flatmap(filled)


sources = alternative(("principals", "namespaces")).map(lambda fields: {"source": fields})
operations = alternative(("methods", "paths", "ports", "hosts")).map(lambda fields: {"operation": fields})
conditions = st.sampled_from(
    [
        {"key": "request.headers[x-role]", "values": ["admin"]},
        {"key": "request.headers[x-role]", "notValues": ["admin"]},
        {"key": "source.principal", "values": [principal("web")], "notValues": [principal("ops")]},
    ]
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(sources, min_size=1, max_size=2),
        "to": st.lists(operations, min_size=1, max_size=2),
        "when": st.lists(conditions, min_size=1, max_size=2),
    },
)

single = st.builds(
    lambda account, method, path: {
        "from": [{"source": {"principals": [principal(account)]}}],
        "to": [{"operation": {"methods": [method], "paths": [path]}}],
    },
    st.sampled_from(ACCOUNTS),
    st.sampled_from(METHODS),
    st.sampled_from(PATHS),
)
"""What people write most: who may do what where. A call that misses it misses by one value, often."""


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    action = draw(st.sampled_from(["ALLOW", "ALLOW", "ALLOW", "DENY"]))
    number = draw(st.integers(0, 10_000))
    spec: dict[str, Any] = {
        "action": action,
        "rules": draw(st.lists(draw(st.sampled_from([rules, single, single])), min_size=1, max_size=2)),
    }
    if action == "ALLOW" and draw(st.integers(0, 5)) == 0:
        spec = {}
    if draw(st.booleans()):
        spec["selector"] = {"matchLabels": {"app": draw(st.sampled_from(["orders", "orders", "carts"]))}}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": f"p{number}", "namespace": draw(st.sampled_from(["demo", "demo", "istio-system"]))},
        "spec": spec,
    }


class Plain(yaml.SafeDumper):
    """Writes out what stands in two places."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(document: dict[str, Any], **layout: Any) -> str:
    return str(yaml.dump(document, Dumper=Plain, sort_keys=False, **layout))


def in_lines(documents: list[dict[str, Any]]) -> str:
    return "---\n".join(f"# policy {i}\n" + dumped(each) for i, each in enumerate(documents))


def in_brackets(documents: list[dict[str, Any]]) -> str:
    return "\n---\n".join(dumped(each, default_flow_style=True, width=60).rstrip() for each in documents)


def mixed(documents: list[dict[str, Any]]) -> str:
    text = "---\n".join(dumped(each, default_flow_style=None, width=200) for each in documents)
    return "\n".join(line + ("   # kept" if i % 3 == 0 and line else "") for i, line in enumerate(text.split("\n")))


def as_list(documents: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=2)


layouts = st.sampled_from(
    [
        in_lines,
        in_brackets,
        mixed,
        as_list,
        lambda documents: json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}),
        lambda documents: in_lines(documents).replace("\n", "\r\n"),
        lambda documents: in_lines(documents).rstrip("\n"),
        lambda documents: "\ufeff" + in_lines(documents),
    ]
)


@st.composite
def sets(draw: st.DrawFn) -> dict[str, bytes]:
    documents = draw(st.lists(policies(), max_size=4, unique_by=lambda each: str(each["metadata"]["name"])))
    cut = draw(st.integers(0, len(documents)))
    parts = {"a.yaml": documents[:cut], "b.yaml": documents[cut:]}
    return {name: draw(layouts)(part).encode() for name, part in parts.items() if part}


http = st.builds(
    Question,
    principal=st.sampled_from([*map(principal, ACCOUNTS), *map(principal, ACCOUNTS), ""]),
    method=st.sampled_from(METHODS),
    target=st.sampled_from([*PATHS, "/x/../admin", "/odd*"]),
    host=st.just("orders"),
    port=st.sampled_from(PORTS),
    headers=st.sampled_from([(), (("x-role", "admin"),)]),
)
opaque = st.builds(
    Question,
    principal=st.sampled_from(list(map(principal, ACCOUNTS))),
    port=st.sampled_from(PORTS),
    opaque=st.just(True),
)
questions = st.one_of(http, http, http, opaque)
DEFAULTS = st.sampled_from([PolicyDefault.DENY, PolicyDefault.DENY, PolicyDefault.ALLOW_AUTHENTICATED])

GRID = [
    *(
        Question(principal=caller, method=method, target=path, host="orders", port=port, headers=headers)
        for caller in (*map(principal, ACCOUNTS), principal("new"), "other.example/ns/demo/sa/web", "")
        for method, path in (
            ("GET", "/"),
            ("GET", "/orders/7"),
            ("POST", "/orders/7"),
            ("PUT", "/orders/8"),
            ("GET", "/admin"),
        )
        for port, headers in ((8080, ()), (5432, ()), (8080, (("x-role", "admin"),)))
    ),
    *(Question(principal=principal(account), port=port, opaque=True) for account in ACCOUNTS for port in PORTS),
]


def world_of(files: dict[str, bytes], default: PolicyDefault) -> World:
    settings_ = PolicySettings(default=default)
    snapshot = load(files, workload=WORKLOAD, settings=settings_, generation=Generation(1))
    return World(snapshot=snapshot, workload=WORKLOAD, settings=settings_, files=files)


def changes(before: World, after: World) -> tuple[list[Question], list[Question]]:
    """Give what is newly allowed, and what no longer is."""
    answers = [(each, ask(before, each, 0.0).allowed, ask(after, each, 0.0).allowed) for each in GRID]
    opened = [each for each, was, now in answers if now and not was]
    return opened, [each for each, was, now in answers if was and not now]


@settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(files=sets(), question=questions, default=DEFAULTS)
def test_an_edit_allows_and_opens_no_more_than_it_says(
    files: dict[str, bytes], question: Question, default: PolicyDefault
) -> None:
    world = world_of(files, default)
    answer = ask(world, question, 0.0)
    edit = smallest_edit(world, answer, lambda changed: ask(changed, question, 0.0))
    if edit is None:
        return
    after = world_of(dict(edit.files), default)
    assert ask(after, question, 0.0).allowed
    opened, closed = changes(world, after)
    assert not closed
    judged = answer.request.path if answer.request is not None else ""
    only = edit.summary[0] if len(edit.summary) == 1 else ""
    for newly in opened:
        if only.startswith(("add a rule", "add a policy")):
            assert newly.principal == question.principal
            if question.opaque:
                assert newly.port == question.port
            else:
                assert (newly.method, newly.target, newly.opaque) == (question.method, judged, False)
        elif "to `principals`" in only or only.startswith('exempt "cluster.local'):
            assert newly.principal == question.principal
        elif "to `paths`" in only or only.startswith('exempt "/'):
            assert newly.target == judged
        elif "to `methods`" in only:
            assert newly.method == question.method
        # Nobody without an identity gets in by a new rule or an exemption.
        if not newly.principal:
            assert only.startswith("add ") or len(edit.summary) > 1
            assert not only.startswith("add a ")


@settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(files=sets(), question=questions)
def test_patch_applies_the_diff_to_the_very_bytes(files: dict[str, bytes], question: Question) -> None:
    program = shutil.which("patch")
    assert program is not None, "patch is part of every development machine; apt-get install patch"
    world = world_of(files, PolicyDefault.DENY)
    edit = explain(world, question, 0.0).edit
    if edit is None:
        return
    with TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        command = [program, "-p1", "--binary", "--batch", "-d", directory]
        done = subprocess.run(command, input=edit.diff.encode(), capture_output=True, timeout=10, check=False)
        assert done.returncode == 0, done.stdout
        applied = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    assert applied == dict(edit.files)


@settings(derandomize=True, deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(files=sets(), question=questions, default=DEFAULTS)
def test_the_report_agrees_with_the_decision(
    files: dict[str, bytes], question: Question, default: PolicyDefault
) -> None:
    world = world_of(files, default)
    answer = ask(world, question, 0.0)
    report = explain(world, question, 0.0)
    told = as_json(report)
    assert told["decision"] == ("allow" if answer.allowed else "deny")
    assert told["rule"] == answer.verdict.rule
    json.dumps(told)
    assert as_text(report).startswith("allowed: " if answer.allowed else "denied: ")
    matching = [rule.id for rule in report.rules if rule.matches and not rule.dry_run]
    if answer.verdict.rule.startswith("ns["):
        assert answer.verdict.rule in matching
    for rule in report.rules:
        assert rule.matches or rule.failed or rule.note
    if report.nearest_miss is not None and report.nearest_miss.clause:
        [near] = [rule for rule in report.rules if rule.id == report.nearest_miss.rule]
        assert report.nearest_miss.clause in [clause.name for clause in near.failed]
        assert report.nearest_miss.rule in getattr(answer.verdict, "nearest_miss", "")
        assert f"`{report.nearest_miss.clause}`" in getattr(answer.verdict, "nearest_miss", "")
