"""The judgement on the tokens of a request (RequestAuthentication).

The rules are those of Istio, which hands them to Envoy in this form:

    accepted = any rule is satisfied, or no rule finds a token in its places
    satisfied = the rule finds a token, and everything that it finds is valid by it

A request without a token is accepted and has no request principal: to demand a token is the work of an
AuthorizationPolicy. The checks of one token, in order, the first that fails is the reason:

    form -> alg -> iss is a rule's -> exp, nbf -> aud -> keys are there -> kid and alg fit a key -> signature

The cheap ones come first, so that a forger pays more than the proxy. Two different tokens where one rule looks cannot
both be meant, whatever they are worth, and are refused before any is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from proxy.authn.cache import TokenCache
from proxy.authn.keys import KeySet
from proxy.authn.places import Places
from proxy.authn.rules import JwtRule
from proxy.authn.token import Jwt, TokenRefused, parse_token
from proxy.documents import quoted
from proxy.errors import Reason
from proxy.protocol.stream import RequestHead
from proxy.types import VerifiedToken

CLOCK_SKEW: Final = 60.0
"""Seconds by which the issuer's clock and ours may differ: Envoy's default, which Istio does not change. Without it a
token is refused in the second in which it was issued; the price is that it lives this much longer than `exp`."""

Keys = Callable[[str], KeySet | None]
"""Gives the keys fetched from a `jwksUri`, None while there are none."""

_PROGRESS: Final = (
    Reason.TOKEN_MALFORMED,
    Reason.TOKEN_ALGORITHM_REFUSED,
    Reason.TOKEN_ISSUER_UNKNOWN,
    Reason.TOKENS_CONFLICT,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_NOT_YET_VALID,
    Reason.TOKEN_AUDIENCE_REFUSED,
    Reason.TOKEN_KEYS_UNAVAILABLE,
    Reason.TOKEN_KEY_UNKNOWN,
    Reason.TOKEN_SIGNATURE_INVALID,
)
"""How far a token came. Of several failures the one that came furthest is told: it is of the rule that was meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """What the tokens of a request are worth.

    `token` is the verified one, None without; `failure` is why the request must be refused, and `explanation` a
    sentence for the operator. With a token, `rule` is the rule that took it, `carried` the token as it was sent and
    `payload` its second part.
    """

    token: VerifiedToken | None = None
    failure: Reason | None = None
    explanation: str = ""
    rule: JwtRule | None = field(default=None, repr=False)
    carried: bytes = field(default=b"", repr=False)
    payload: bytes = field(default=b"", repr=False)


NOT_CARRIED: Final = Authenticated(explanation="the request carries no token")
_PREFLIGHT: Final = Authenticated(explanation="a CORS preflight request carries no token that counts")


class Authentication:
    """The token rules of one workload, compiled; made anew with every policy snapshot.

    `uris` maps every `jwksUri` to the seconds that a fetch may take. `claimed_headers` are the names (lower case) that
    only a verified token may fill: what a client sends under them is never passed on.
    """

    __slots__ = ("_by_places", "_cache", "claimed_headers", "rules", "uris")

    def __init__(self, rules: Sequence[JwtRule]) -> None:
        self.rules = tuple(rules)
        uris: dict[str, float] = {}
        claimed: set[bytes] = set()
        by_places: dict[object, tuple[Places, dict[str, list[JwtRule]]]] = {}
        for rule in rules:
            if rule.jwks_uri:
                uris[rule.jwks_uri] = max(rule.fetch_timeout, uris.get(rule.jwks_uri, 0.0))
            claimed.update(name.encode("ascii") for name in (rule.payload_header, *rule.claim_headers) if name)
            key = frozenset(rule.headers), frozenset(rule.params), frozenset(rule.cookies)
            _, by_issuer = by_places.setdefault(key, (Places(rule), {}))
            by_issuer.setdefault(rule.issuer, []).append(rule)
        self.uris: Mapping[str, float] = MappingProxyType(uris)
        self.claimed_headers = frozenset(claimed)
        self._by_places = tuple(by_places.values())
        self._cache = TokenCache()

    def without(self, head: RequestHead, token: bytes) -> RequestHead:
        """Take a token out of every place that any rule looks at."""
        for places, _ in self._by_places:
            head = places.without(head, token)
        return head

    def masked(self, query: bytes) -> bytes:
        """Write stars over every value of a query that some rule may take for a token."""
        for places, _ in self._by_places:
            query = places.masked(query)
        return query

    def authenticate(self, head: RequestHead, keys: Keys, now: float) -> Authenticated:
        """Judge the tokens that a request carries; `now` in seconds since the epoch. Never raises for a request.

        `keys` is asked only for the `jwksUri` of a rule whose issuer the token names.
        """
        if head.method == b"OPTIONS" and _is_preflight(head):
            return _PREFLIGHT
        verified: list[Authenticated] = []
        refused: list[TokenRefused] = []
        for places, by_issuer in self._by_places:
            tokens = places.tokens(head)
            if not tokens:
                continue
            try:
                if len(tokens) > 1:
                    raise TokenRefused(_conflict(len(tokens)), Reason.TOKENS_CONFLICT)
                verified.append(self._verify(tokens[0], by_issuer, keys, now))
            except TokenRefused as refusal:
                refused.append(refusal)
        if verified:
            different = len({each.carried for each in verified})
            if different > 1:
                return Authenticated(failure=Reason.TOKENS_CONFLICT, explanation=_conflict(different))
            return verified[0]
        if refused:
            furthest = max(refused, key=_progress)
            return Authenticated(failure=furthest.reason, explanation=str(furthest))
        return NOT_CARRIED

    def _verify(self, token: bytes, by_issuer: Mapping[str, list[JwtRule]], keys: Keys, now: float) -> Authenticated:
        """Find the first rule by which a token is valid. Raises TokenRefused."""
        jwt = self._cache.get(token) or parse_token(token)
        refused: list[TokenRefused] = []
        for rule in by_issuer.get(jwt.issuer, ()):
            try:
                self._verify_by(rule, token, jwt, keys, now)
            except TokenRefused as refusal:
                refused.append(refusal)
                continue
            return Authenticated(
                token=VerifiedToken(
                    issuer=jwt.issuer,
                    subject=jwt.subject,
                    claims=jwt.claims,
                    expires_at=jwt.expires + CLOCK_SKEW,
                    space_delimited=rule.space_delimited,
                ),
                rule=rule,
                carried=token,
                payload=jwt.payload,
            )
        if not refused:
            named = quoted(jwt.issuer) if jwt.issuer else "missing"
            raise TokenRefused(f"the token's iss is {named}, and no rule names it", Reason.TOKEN_ISSUER_UNKNOWN)
        raise max(refused, key=_progress)

    def _verify_by(self, rule: JwtRule, token: bytes, jwt: Jwt, keys: Keys, now: float) -> None:
        of_issuer = f"the token of issuer {quoted(rule.issuer)}"
        if now >= jwt.expires + CLOCK_SKEW:
            self._cache.forget(token)
            ago = f"{now - jwt.expires:.0f} s ago, {CLOCK_SKEW:.0f} s are granted"
            raise TokenRefused(f"{of_issuer} expired {ago}", Reason.TOKEN_EXPIRED)
        if now < jwt.not_before - CLOCK_SKEW:
            ahead = f"begins in {jwt.not_before - now:.0f} s, {CLOCK_SKEW:.0f} s are granted"
            raise TokenRefused(f"{of_issuer} {ahead}", Reason.TOKEN_NOT_YET_VALID)
        if rule.audiences and not _is_audience(rule.audiences, jwt.audiences):
            wanted = ", ".join(map(quoted, sorted(rule.audiences)[:5]))
            seen = ", ".join(map(quoted, jwt.audiences[:5])) or "none"
            message = f"{of_issuer} is for the audience {seen}; wanted {wanted}"
            raise TokenRefused(message, Reason.TOKEN_AUDIENCE_REFUSED)
        key_set = rule.keys if rule.keys is not None else keys(rule.jwks_uri)
        if key_set is None:
            message = f"the keys of issuer {quoted(rule.issuer)} could not be fetched from {quoted(rule.jwks_uri)}"
            raise TokenRefused(message, Reason.TOKEN_KEYS_UNAVAILABLE)
        if not self._cache.vouches(token, key_set.digest):
            _verify_signature(rule, jwt, key_set)
            self._cache.add(token, jwt, key_set.digest)


def _verify_signature(rule: JwtRule, jwt: Jwt, key_set: KeySet) -> None:
    """Try the keys that fit `kid` and `alg`; a token or a key without `kid` fits any."""
    fitting = [
        key
        for key in key_set.keys
        if jwt.algorithm in key.algorithms and (key.kid == jwt.kid or not key.kid or not jwt.kid)
    ]
    if not fitting:
        message = f"no key of issuer {quoted(rule.issuer)} has kid {quoted(jwt.kid)} and verifies {jwt.algorithm}"
        raise TokenRefused(message, Reason.TOKEN_KEY_UNKNOWN)
    if not any(key.verifies(jwt.algorithm, jwt.signed, jwt.signature) for key in fitting):
        message = f"the token says that it is of issuer {quoted(rule.issuer)}, whose keys did not sign it"
        raise TokenRefused(message, Reason.TOKEN_SIGNATURE_INVALID)


def _is_audience(wanted: frozenset[str], seen: tuple[str, ...]) -> bool:
    """Compare audiences as Envoy does: a scheme of HTTP before and a slash after do not count."""
    bare = {_bare(audience) for audience in wanted}
    return any(_bare(audience) in bare for audience in seen)


def _bare(audience: str) -> str:
    return audience.removeprefix("https://").removeprefix("http://").removesuffix("/")


def _is_preflight(head: RequestHead) -> bool:
    """Know a CORS preflight request (WHATWG Fetch section 3.2.2), which a browser sends without credentials."""
    names = {line.name for line in head.fields if line.value}
    return b"origin" in names and b"access-control-request-method" in names


def _progress(refusal: TokenRefused) -> int:
    return _PROGRESS.index(refusal.reason)


def _conflict(number: int) -> str:
    return f"the request carries {number} different tokens, and which of them counts is not defined; send one"
