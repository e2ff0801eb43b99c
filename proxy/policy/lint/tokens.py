"""RM07: RequestAuthentication, and rules about tokens.

RequestAuthentication refuses bad tokens. It never asks for one: that is for an AuthorizationPolicy to say, and the two
are easily thought to be one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from proxy.documents import quoted
from proxy.errors import Fault
from proxy.policy.lint.scene import Remark, Scene, at_origin, at_rule
from proxy.policy.model import (
    TOKEN,
    Action,
    Attribute,
    AuthorizationPolicy,
    Clause,
    PolicyDefault,
    PolicySet,
    RequestAuthentication,
    Rule,
)


def token_findings(policies: PolicySet, selecting: Sequence[AuthorizationPolicy], scene: Scene) -> Iterator[Fault]:
    """Judge RequestAuthentications, and the rules about tokens of the policies given."""
    enforced = [policy for policy in policies.authorization if not policy.dry_run]
    for authentication in policies.request_authentication:
        yield from _authentication(authentication, enforced, scene)
    asking = [policy for policy in enforced if _asks_for_tokens(policy)]
    about = [policy for policy in selecting if any(map(_is_token, _clauses(policy)))]
    for policy in about:
        near = [each for each in policies.request_authentication if _may_meet(each, policy, scene)]
        issuers = {rule.issuer for each in near for rule in each.rules}
        is_asked = any(_may_meet(each, policy, scene) for each in asking)
        for clause in _clauses(policy):
            if _is_token(clause):
                for remark in _token_remarks(clause, policy.action, issuers, is_asked):
                    yield at_rule(policy, clause, remark)


def _authentication(
    authentication: RequestAuthentication, enforced: Sequence[AuthorizationPolicy], scene: Scene
) -> Iterator[Fault]:
    near = [policy for policy in enforced if _may_meet(authentication, policy, scene)]
    is_open = scene.settings.default is not PolicyDefault.DENY or any(
        policy.action is Action.ALLOW and policy.rules for policy in near
    )
    if authentication.rules and is_open and not any(map(_asks_for_tokens, near)):
        message = f"no policy asks for the tokens of {quoted(authentication.name)}: a request without a token passes"
        hint = 'write `requestPrincipals` in the ALLOW rules, or a DENY of `notRequestPrincipals: ["*"]`'
        yield at_origin(authentication.origin, Remark("RM0701", message, hint))
    for rule in authentication.rules:
        if not rule.audiences:
            message = f"tokens of {quoted(rule.issuer)} are taken whatever audience they are for"
            hint = "write `audiences`, so that a token for another service is refused"
            fault = at_origin(authentication.origin, Remark("RM0704", message, hint))
            yield replace(fault, line=rule.line or fault.line, column=rule.column or fault.column)


def _token_remarks(clause: Clause, action: Action, issuers: set[str], is_asked: bool) -> Iterator[Remark]:
    if not issuers:
        if not clause.negated:
            message = "no RequestAuthentication stands beside it, so no request has a verified token: it never matches"
            yield Remark("RM0702", message, "write a RequestAuthentication for the same workloads")
        return
    for value, issuer in _issuers_named(clause):
        if issuer not in issuers:
            near = difflib.get_close_matches(issuer, sorted(issuers), n=1, cutoff=0.7)
            hint = f"did you mean {quoted(near[0])}?" if near else f"configured: {', '.join(sorted(issuers)[:4])}"
            yield Remark("RM0703", f"{quoted(value)} names an issuer of no jwtRule ({quoted(issuer)})", hint)
    if clause.values != ("*",) and clause.negated is not (action is Action.DENY) and not is_asked:
        outcome = "evades it" if action is Action.DENY else "satisfies it"
        message = f"a request without a token {outcome}"
        yield Remark("RM0705", message, 'ask for a token: DENY `notRequestPrincipals: ["*"]`')


def _issuers_named(clause: Clause) -> Iterator[tuple[str, str]]:
    """Yield the values that name one issuer whole. It ends at the last slash: an issuer may be a URL."""
    if clause.attribute is Attribute.CLAIM and clause.claim == ("iss",):
        yield from ((value, value) for value in clause.values if "*" not in value)
    elif clause.attribute is Attribute.REQUEST_PRINCIPAL:
        for value in clause.values:
            issuer, slash, _ = value.rpartition("/")
            if slash and issuer and "*" not in issuer:
                yield value, issuer


def _clauses(policy: AuthorizationPolicy) -> Iterator[Clause]:
    for rule in policy.rules:
        yield from rule.clauses()


def _is_token(clause: Clause) -> bool:
    return clause.attribute in TOKEN


def _asks_for_tokens(policy: AuthorizationPolicy) -> bool:
    """Say whether a policy treats requests without a token otherwise than those with one, to their disadvantage."""
    if policy.action is Action.ALLOW:
        return any(_needs_token(rule) for rule in policy.rules)
    return policy.action is Action.DENY and any(clause.negated and _is_token(clause) for clause in _clauses(policy))


def _needs_token(rule: Rule) -> bool:
    def has_token(clauses: tuple[Clause, ...]) -> bool:
        return any(_is_token(clause) and not clause.negated for clause in clauses)

    return has_token(rule.conditions) or (bool(rule.sources) and all(map(has_token, rule.sources)))


def _may_meet(one: RequestAuthentication | AuthorizationPolicy, policy: AuthorizationPolicy, scene: Scene) -> bool:
    """Say whether some workload may be selected by both."""
    root = scene.settings.root_namespace
    shared = one.namespace == policy.namespace or root in (one.namespace, policy.namespace)
    return shared and _compatible(one.selector, policy.selector)


def _compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(key, value) == value for key, value in one.items())
