"""What loads and is probably not meant. A finding never changes a decision and never fails a load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from proxy.documents import quoted
from proxy.errors import Fault
from proxy.policy.model import (
    IDENTITY,
    Action,
    Attribute,
    AuthorizationPolicy,
    Clause,
    MtlsMode,
    PolicySettings,
    Workload,
)
from proxy.policy.peers import PeerModes
from proxy.policy.principals import is_own, names_trust_domain
from proxy.policy.templates import is_template

MAX_FINDINGS = 1000  # nobody reads more; a generated set of thousands of rules may repeat one finding in each


def lint(
    policies: Iterable[AuthorizationPolicy],
    selecting: Sequence[AuthorizationPolicy],
    modes: PeerModes,
    workload: Workload,
    settings: PolicySettings,
) -> list[Fault]:
    """List the findings of a set; those about single rules only for the policies that select this workload."""
    findings: list[Fault] = []
    seen: dict[tuple[str, str], AuthorizationPolicy] = {}
    for policy in policies:
        first = seen.setdefault((policy.namespace, policy.name), policy)
        if first is not policy:
            place = f"{first.origin.file}:{first.origin.line}"
            message = f"a second policy {policy.namespace}/{policy.name} (the first: {place}); both count"
            findings.append(_finding(policy, message, "give it a name of its own"))
        if policy.namespace not in (workload.namespace, settings.root_namespace):
            message = f"the policy {quoted(policy.name)} is of namespace {policy.namespace} and has no effect here"
            findings.append(_finding(policy, message, f"this workload is in {workload.namespace}"))
        if policy.dry_run and policy.action is Action.AUDIT:
            findings.append(_finding(policy, f"dry-run makes the AUDIT policy {quoted(policy.name)} do nothing", ""))
    is_strict = modes.mode is MtlsMode.STRICT and all(mode is MtlsMode.STRICT for mode in modes.ports.values())
    trust_domains = (workload.trust_domain, *workload.trust_domain_aliases)
    for policy in selecting:
        for rule in policy.rules:
            for clause in rule.clauses():
                for message, hint in _clause_findings(clause, policy.action, trust_domains, is_strict):
                    findings.append(
                        Fault(
                            file=policy.origin.file,
                            line=clause.line,
                            column=clause.column,
                            message=f"`{clause.name}`: {message}",
                            hint=hint,
                        )
                    )
        if len(findings) > MAX_FINDINGS:
            break
    return findings[:MAX_FINDINGS]


def _finding(policy: AuthorizationPolicy, message: str, hint: str) -> Fault:
    origin = policy.origin
    return Fault(file=origin.file, line=origin.line, column=origin.column, message=message, hint=hint)


def _clause_findings(
    clause: Clause, action: Action, trust_domains: tuple[str, ...], is_strict: bool
) -> Iterator[tuple[str, str]]:
    if clause.attribute in IDENTITY and not is_strict and (clause.negated or action is Action.DENY):
        verb = "matches" if clause.negated else "does not match"
        hint = 'ask for mutual TLS: PeerAuthentication STRICT, or a DENY of `notPrincipals: ["*"]`'
        if clause.values != ("*",):
            yield f"a peer without identity {verb}, and this workload takes such peers", hint
    for value in clause.values:
        if clause.attribute is Attribute.PRINCIPAL:
            yield from _principal_findings(value, trust_domains)
        elif clause.attribute is Attribute.PATH:
            yield from _path_findings(value)
        elif clause.attribute is Attribute.HOST and action is Action.DENY and not clause.negated:
            yield from _host_findings(value, clause.values)
        elif clause.attribute is Attribute.METHOD and value != value.upper():
            yield f"{quoted(value)} matches no usual method: methods are compared exactly", quoted(value.upper())


def _principal_findings(value: str, trust_domains: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield from _inner_star(value)
    trust_domain = value.partition("/")[0]
    if names_trust_domain(value) and not is_own(trust_domain, trust_domains):
        yield f"{quoted(trust_domain)} is neither the trust domain of this workload nor an alias of it", ""


def _path_findings(value: str) -> Iterator[tuple[str, str]]:
    if is_template(value):
        return
    yield from _inner_star(value)
    if not value.startswith(("/", "*")):
        yield f"{quoted(value)} does not begin with / and matches no path", f"write {quoted('/' + value)}"
    if "?" in value or "#" in value:
        yield f"{quoted(value)} holds a ? or #, which the compared path never does", "leave the query out"
    if value.endswith("*") and len(value) > 1 and not value.startswith("*") and not value.endswith("/*"):
        more = value[:-1] + "more"
        hint = f"write {quoted(value[:-1])} and {quoted(value[:-1] + '/*')} to stop at the slash"
        yield f"{quoted(value)} also matches {quoted(more)}", hint


def _host_findings(value: str, values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if "*" not in value and ":" not in value and f"{value}:*" not in values:
        yield f"{quoted(value)} does not match the same host with a port", f"add {quoted(value + ':*')}"


def _inner_star(value: str) -> Iterator[tuple[str, str]]:
    inner = value[1:] if value.startswith("*") else value.removesuffix("*")
    if "*" in inner:
        yield f"the star inside {quoted(value)} is a plain character and matches only itself", ""
