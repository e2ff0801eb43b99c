"""What is kept of a denied call, so that it can be explained when somebody asks: only what some clause looks at.

Denials are what an attacker can have for nothing, and a log of a thousand of them must stay small. So nothing is kept
that no clause names, lines and claims are few and short, and `is_complete` says when something had to be left out.
A token itself is never kept, and neither is the query, in which one may stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from proxy.policy.facts import FORWARDED_FOR, Facts
from proxy.policy.model import TOKEN, Attribute
from proxy.policy.rules import PolicyRule
from proxy.types import Asked, Denial, RequestAttributes, VerifiedToken

MAX_PATH: Final = 512
MAX_LINES: Final = 8
MAX_HEADERS: Final = 1_024
"""Bytes of all kept header lines; with the rest a denial keeps at most 3 KiB."""
MAX_CLAIMS: Final = 1_024
"""Characters of all kept claims, as JSON."""


class Kept:
    """What the clauses of one policy set look at."""

    __slots__ = ("_claims", "_headers")

    def __init__(self, rules: Iterable[PolicyRule], trusted_proxies: int = 0) -> None:
        clauses = [clause for rule in rules for clause in rule.rule.clauses()]
        headers = {clause.header.encode() for clause in clauses if clause.attribute is Attribute.HEADER}
        if trusted_proxies and any(clause.attribute is Attribute.REMOTE_IP for clause in clauses):
            headers.add(FORWARDED_FOR)
        self._headers = frozenset(headers)
        claims = {clause.claim[0] for clause in clauses if clause.claim}
        looked_at = {clause.attribute for clause in clauses}
        if Attribute.AUDIENCES in looked_at:
            claims.add("aud")
        if Attribute.PRESENTER in looked_at:
            claims.add("azp")
        self._claims = frozenset(claims) if looked_at & TOKEN else None

    def of(self, facts: Facts) -> Asked:
        """Keep what a denied call consisted of."""
        request = facts.request
        if request is None:
            return Asked(connection=facts.connection)
        left, is_complete = MAX_HEADERS, True
        headers: list[tuple[bytes, bytes]] = []
        if self._headers:
            for name, value in request.headers:
                if name in self._headers:
                    left -= len(name) + len(value)
                    if left < 0 or len(headers) >= MAX_LINES:
                        is_complete = False
                        break
                    headers.append((name, value))
        token, whole = self._token(request.token)
        short = len(request.path) <= MAX_PATH and len(request.host) <= MAX_PATH
        return Asked(
            connection=facts.connection,
            request=RequestAttributes(
                method=request.method,
                path=request.path[:MAX_PATH],
                host=request.host[:MAX_PATH],
                headers=tuple(headers),
                token=token,
            ),
            is_complete=is_complete and whole and short,
        )

    def _token(self, token: VerifiedToken | None) -> tuple[VerifiedToken | None, bool]:
        """Keep issuer and subject of a token, and the claims that clauses name as far as they are short."""
        if token is None:
            return None, True
        if len(token.issuer) + len(token.subject) > MAX_CLAIMS:
            return None, False
        kept: dict[str, Any] = {"iss": token.issuer, "sub": token.subject}
        left, whole = MAX_CLAIMS, True
        for name in sorted(self._claims or ()):
            if name in token.claims:
                left -= _size(token.claims, name)
                if left < 0:
                    whole = False
                    break
                kept[name] = token.claims[name]
        return replace(token, claims=kept), whole


def sent_as(denial: Denial, target: bytes) -> Denial:
    """Note on a denial how its path was sent; the query, in which a token may stand, is not kept."""
    asked = denial.asked
    if asked is None:
        return denial
    path = target.partition(b"?")[0][:MAX_PATH].decode("latin-1")
    return replace(denial, asked=replace(asked, target=path))


def _size(claims: Mapping[str, Any], name: str) -> int:
    return len(name) + len(json.dumps(claims[name]))
