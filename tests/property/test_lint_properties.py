"""What lint says of rules is true: tried with calls out of few words, against the reference evaluator."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_reference import Call
from test_policy_properties import CALLS, FIELDS, TRUST_DOMAINS, call, compiled, reference, rule, some

from proxy.policy.lint.rules import can_never_match
from proxy.policy.lint.scene import Scene
from proxy.policy.lint.sets import are_disjoint, covering
from proxy.policy.lint.shadows import Prepared
from proxy.policy.model import Attribute, AuthorizationPolicy, PolicyDefault, PolicySettings, Rule
from proxy.policy.templates import is_template, template_test
from proxy.policy.values import glob_test, text_test

SETTINGS = PolicySettings(default=PolicyDefault.DENY)
TEXTS = {
    Attribute.PATH: ["/", "/a", "/a/b", "/ab", "/a/b/c", "/x", "/a/*", "*b*", "/ab/c", "/q/c", "/a/b/", "b*"],
    Attribute.NAMESPACE: ["a", "ab", "b", "xaxb", "z", "aa", "*b"],
    Attribute.METHOD: ["GET", "PUT", "POST", "T", "P", "PT"],
    Attribute.PRINCIPAL: ["td.one/ns/a/sa/x", "td.two/ns/a/sa/x", "td.one/x", "far.td/ns/b/sa/y", "one/ns/a/sa/x"],
}
LISTS = {
    Attribute.PATH: [*FIELDS["paths"], "**b*", "/a*b", "/a/{**}", "*/b"],
    Attribute.NAMESPACE: [*FIELDS["namespaces"], "*a", "a*b", "*a*"],
    Attribute.METHOD: [*FIELDS["methods"], "PO*", "*ST", "PUT"],
    Attribute.PRINCIPAL: list(FIELDS["principals"]),
}


def matches(attribute: Attribute, values: list[str], text: str) -> bool:
    if attribute is Attribute.NAMESPACE:
        return glob_test(values)(text)
    templates = [value for value in values if attribute is Attribute.PATH and is_template(value)]
    plain = [value for value in values if value not in templates]
    return text_test(plain)(text) or any(template_test(value)(text) for value in templates)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(sorted(TEXTS, key=lambda attribute: attribute.value)))
def test_a_covered_value_matches_nothing_that_the_list_does_not(data: st.DataObject, attribute: Attribute) -> None:
    values = data.draw(some(LISTS[attribute]))
    value = data.draw(st.sampled_from(LISTS[attribute]))
    if covering(attribute, values)(value):
        for text in TEXTS[attribute]:
            assert not matches(attribute, [value], text) or matches(attribute, values, text), (values, value, text)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(sorted(TEXTS, key=lambda attribute: attribute.value)))
def test_disjoint_lists_match_nothing_in_common(data: st.DataObject, attribute: Attribute) -> None:
    ones, others = data.draw(some(LISTS[attribute])), data.draw(some(LISTS[attribute]))
    if are_disjoint(attribute, tuple(ones), tuple(others)):
        for text in TEXTS[attribute]:
            assert not (matches(attribute, ones, text) and matches(attribute, others, text)), (ones, others, text)


def read(written: dict[str, Any]) -> tuple[AuthorizationPolicy, Rule]:
    (found,) = compiled([document(written)], "deny").rules
    return found.policy, found.rule


def document(written: dict[str, Any], action: str = "DENY") -> dict[str, Any]:
    kind = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    return kind | {"metadata": {"name": "p", "namespace": "a"}, "spec": {"action": action, "rules": [written]}}


def is_matched(written: dict[str, Any], asked: Call) -> bool:
    """Say whether a rule matches: a DENY of it alone, where everything else is allowed."""
    return not reference([document(written)], "allow-all", asked)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(rule(), CALLS, st.booleans())
def test_a_rule_that_can_never_match_matches_no_request(
    written: dict[str, Any], calls: list[Call], knows_domain: bool
) -> None:
    _, parsed = read(written)
    scene = Scene(settings=SETTINGS, trust_domains=TRUST_DOMAINS if knows_domain else ())
    is_impossible = can_never_match(parsed, scene)
    for asked in calls:
        # On an opaque connection a DENY that nobody can judge denies; a request without a path is answered before.
        if is_impossible and asked.method is not None and asked.path:
            assert not is_matched(written, asked), asked


@st.composite
def wide_and_narrow(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw two rules of which the second often says more: the same with further conditions, or fewer values."""
    wide, other = draw(rule()), draw(rule())
    narrow = dict(wide)
    narrow["when"] = [*wide.get("when", []), *other.get("when", [])]
    for part in ("from", "to"):
        if part not in wide and part in other and draw(st.booleans()):
            narrow[part] = other[part]
        elif part in wide and draw(st.booleans()):
            narrow[part] = wide[part][:1]
    if not narrow["when"]:
        del narrow["when"]
    return (wide, narrow) if draw(st.booleans()) else (wide, other)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(wide_and_narrow(), st.lists(call(), min_size=4, max_size=12))
def test_a_covered_rule_matches_only_what_the_other_matches(
    rules: tuple[dict[str, Any], dict[str, Any]], calls: list[Call]
) -> None:
    wide, narrow = rules
    prepared = [Prepared(*read(written), order, TRUST_DOMAINS) for order, written in enumerate(rules)]
    is_covered = prepared[0].covers(prepared[1])
    for asked in calls if is_covered else ():
        assert not is_matched(narrow, asked) or is_matched(wide, asked), asked
