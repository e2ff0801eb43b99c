"""Concrete values out of what clauses name: each is one that the clause matches."""

from __future__ import annotations

import doctest
import importlib
import json

import pytest
from answers_sets import world

from proxy.answers.calls.points import Scene
from proxy.answers.calls.samples import claim_sets, filled, issuer_and_subject, points_of
from proxy.answers.question import ask
from proxy.policy.model import Attribute, Clause, Rule
from proxy.policy.templates import template_test
from proxy.policy.values import ip_test, maybe_ip, text_test

SCENE = Scene(trust_domain="cluster.local", namespace="demo", host="orders.demo")


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "cluster.local/*",
        "cluster.lo*",
        "cluster.local/ns/demo/sa/web-*",
        "other.example/ns/*",
        "*/ns/demo/sa/web",
        "*web",
        "*/sa/web",
        "cluster.local/n*",
        "cluster.local/ns/demo/sa/web",
    ],
)
def test_principals_are_whole_identities_that_match(value: str) -> None:
    principal = filled(Attribute.PRINCIPAL, value, SCENE)
    assert text_test([value])(principal)
    assert ask(world(), next(points_of(rule(Attribute.PRINCIPAL, value), SCENE)).question(), 0.0)
    assert [len(part) > 0 for part in principal.split("/")] == [True] * 5


@pytest.mark.parametrize("value", ["10.1.0.0/16", "10.0.0.7", "fd00::/8", "::1", "0.0.0.0/0", "::ffff:10.0.0.0/104"])
def test_addresses_are_inside_the_block(value: str) -> None:
    address = maybe_ip(filled(Attribute.SOURCE_IP, value, SCENE))
    assert address is not None
    assert ip_test([value])(address)


@pytest.mark.parametrize("value", ["/", "/a", "/a/*", "/public*", "*.png", "*/x*", "*", "*/end"])
def test_paths_match(value: str) -> None:
    path = filled(Attribute.PATH, value, SCENE)
    assert path.startswith("/")
    assert text_test([value])(path)


@pytest.mark.parametrize("value", ["/a/{*}", "/a/{*}/b/{**}", "/{**}", "/store/{**}/cart"])
def test_template_paths_match(value: str) -> None:
    assert template_test(value)(filled(Attribute.PATH, value, SCENE))


@pytest.mark.parametrize("value", ["*", "GE*", "*LETE", "PURGE", "X*"])
def test_methods_match(value: str) -> None:
    assert text_test([value])(filled(Attribute.METHOD, value, SCENE))


@pytest.mark.parametrize(
    ("value", "pair"),
    [
        ("*", ("https://own", "someone")),
        ("*/ann", ("https://own", "ann")),
        ("*own/ann", ("https://own", "ann")),
        ("*other/ann", ("xother", "ann")),
        ("*ann", ("https://own", "xann")),
        ("https://a/b/*", ("https://a/b", "someone")),
        ("iss/ab*", ("iss", "abx")),
        ("ab*", ("ab", "someone")),
        ("https://a/ann", ("https://a", "ann")),
    ],
)
def test_request_principals_are_filled_in_as_they_are_split(value: str, pair: tuple[str, str]) -> None:
    assert issuer_and_subject(value, "https://own") == pair


def rule(attribute: Attribute, *values: str, claim: tuple[str, ...] = ()) -> Rule:
    clause = Clause(attribute=attribute, name="x", negated=False, values=values, line=1, column=1, claim=claim)
    return Rule(sources=((clause,),), operations=(), conditions=(), line=1, column=1)


def test_nested_claims_are_built_around_the_caller() -> None:
    clauses = [
        *rule(Attribute.CLAIM, "staff", claim=("group", "name")).clauses(),
        *rule(Attribute.AUDIENCES, "orders").clauses(),
    ]
    (text,) = claim_sets(clauses, Scene(trust_domain="td", namespace="demo", issuers=("https://issuer.test",)))
    assert json.loads(text) == {
        "aud": "orders",
        "group": {"name": "staff"},
        "iss": "https://issuer.test",
        "sub": "someone",
    }


def test_guesses_are_bounded() -> None:
    many = tuple(f"cluster.local/ns/demo/sa/a{n}" for n in range(5000))
    assert len(list(points_of(rule(Attribute.PRINCIPAL, *many), SCENE))) == 400


@pytest.mark.parametrize(
    "module", ["proxy.answers.calls.samples", "proxy.answers.testing.starter", "proxy.answers.words"]
)
def test_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
