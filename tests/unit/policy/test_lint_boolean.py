"""A rule as one boolean expression."""

from __future__ import annotations

import pytest

from proxy.policy.examples import rule_of
from proxy.policy.lint.boolean import boolean_form
from proxy.policy.model import Action

FORMS = [
    ("", "ALLOW always"),
    ("from: [{source: {namespaces: [a, b]}}]", 'ALLOW if namespace is "a" or "b"'),
    (
        "from: [{source: {namespaces: [a], principals: ['*']}}]",
        'ALLOW if namespace is "a" AND principal is any',
    ),
    (
        "from: [{source: {namespaces: [a]}}, {source: {notPrincipals: ['*']}}]",
        'ALLOW if (namespace is "a") OR (NOT (principal is any))',
    ),
    (
        "from: [{source: {ipBlocks: [10.0.0.0/8, 10.1.1.1]}}, {source: {namespaces: [a-*-b]}}],"
        "to: [{operation: {ports: ['80'], paths: ['/a/{*}', '/b*', '*c']}}]",
        'ALLOW if ((source address is in 10.0.0.0/8 or is 10.1.1.1) OR (namespace is like "a-*-b")) AND '
        'port is 80 AND path is like "/a/{*}" or begins with "/b" or ends with "c"',
    ),
    (
        "when: [{key: 'request.headers[X-A]', values: [b]}, {key: 'request.auth.claims[a][b]', notValues: [c]}]",
        'ALLOW if header x-a is "b" AND NOT (claim a.b is "c")',
    ),
]


@pytest.mark.parametrize(("written", "form"), FORMS)
def test_forms(written: str, form: str) -> None:
    assert boolean_form(rule_of(written), Action.ALLOW) == form


def test_long_lists_are_cut() -> None:
    rule = rule_of(f"from: [{{source: {{namespaces: {[f'n{n}' for n in range(9)]}}}}}]")
    assert boolean_form(rule, Action.DENY, 2) == 'DENY if namespace is "n0" or "n1" or one of 7 more'
