"""What a policy would have to say to name exactly this call: its attributes as values of clauses."""

from __future__ import annotations

from typing import Any

from proxy.policy.claims import claim_texts
from proxy.policy.clauses import SECRET_HEADERS
from proxy.policy.facts import Facts
from proxy.policy.model import Attribute, Clause
from proxy.policy.read_values import maybe_problem


def value_for(clause: Clause, facts: Facts, trusted_proxies: int) -> str | None:
    """Give the value that makes a positive clause match this call and nothing else of its attribute; None without one.

    There is none for what the call lacks, and for what no exact value can say: a path that ends with a star would be
    read as all that begins so.
    """
    return _expressible(clause.attribute, _text(clause, facts, trusted_proxies))


def _text(clause: Clause, facts: Facts, trusted_proxies: int) -> str:
    token = facts.token
    match clause.attribute:
        case Attribute.PRINCIPAL:
            return facts.principal
        case Attribute.NAMESPACE:
            return facts.namespace
        case Attribute.SERVICE_ACCOUNT:
            return facts.service_account
        case Attribute.TRUST_DOMAIN:
            return facts.trust_domain
        case Attribute.SOURCE_IP:
            return facts.connection.source_ip
        case Attribute.REMOTE_IP:
            return facts.remote_ip(trusted_proxies)
        case Attribute.DESTINATION_IP:
            return facts.connection.destination_ip
        case Attribute.PORT:
            return facts.port
        case Attribute.SNI:
            return facts.connection.sni
        case Attribute.HOST:
            return facts.host
        case Attribute.METHOD:
            return facts.method
        case Attribute.PATH:
            return facts.path
        case Attribute.HEADER if clause.header in SECRET_HEADERS:
            return ""
        case Attribute.HEADER:
            pseudo = {":method": facts.method, ":authority": facts.request.host if facts.request is not None else ""}
            return pseudo.get(clause.header) or next(iter(facts.header_lines(clause.header.encode())), "")
        case Attribute.REQUEST_PRINCIPAL:
            return f"{token.issuer}/{token.subject}" if token is not None and token.issuer and token.subject else ""
        case Attribute.AUDIENCES:
            return next(iter(claim_texts(token, ("aud",))), "")
        case Attribute.PRESENTER:
            return next(iter(claim_texts(token, ("azp",))), "")
        case Attribute.CLAIM:
            return next(iter(claim_texts(token, clause.claim)), "")


def _expressible(attribute: Attribute, text: str) -> str | None:
    if not text or text.startswith("*") or text.endswith("*"):
        return None
    if attribute is Attribute.REQUEST_PRINCIPAL and text.rpartition("/")[2].startswith("*"):
        return None
    return text if maybe_problem(attribute, text) is None else None


def rule_for(facts: Facts) -> dict[str, Any] | None:
    """Write the rule that allows this call alone: its identity, its token's principal, its method and path.

    On an opaque connection the port stands for the last two. None when the call has no identity, or cannot be said.
    """
    principal = _expressible(Attribute.PRINCIPAL, facts.principal)
    if principal is None:
        return None
    source = {"principals": [principal]}
    token = facts.token
    if token is not None and token.issuer and token.subject:
        pair = _expressible(Attribute.REQUEST_PRINCIPAL, f"{token.issuer}/{token.subject}")
        if pair is None:
            return None
        source["requestPrincipals"] = [pair]
    if not facts.is_http:
        return {"from": [{"source": source}], "to": [{"operation": {"ports": [facts.port]}}]}
    path = _expressible(Attribute.PATH, facts.path)
    if path is None:
        return None
    return {"from": [{"source": source}], "to": [{"operation": {"methods": [facts.method], "paths": [path]}}]}
