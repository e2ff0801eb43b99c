"""What conditions can see of a verified token: its principal, and the texts of its claims.

A claim counts as text, or as a list of which any text may match. A claim of `space_delimited` (`scope`, `permission`)
is a list written as one text. Numbers, booleans and objects match nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from proxy.policy.values import TextTest, text_test
from proxy.types import VerifiedToken


def parse_claim_path(brackets: str) -> tuple[str, ...] | None:
    """Read `[a][b]` as the way to a nested claim; None when a name is missing.

    Brackets that do not nest in this way leave one claim whose name is all that the outer pair holds, as in Istio.

    >>> parse_claim_path("[realm][roles]"), parse_claim_path("[https://e.com/[x]]"), parse_claim_path("[]")
    (('realm', 'roles'), ('https://e.com/[x]',), None)
    """
    if not (brackets.startswith("[") and brackets.endswith("]")):
        return None
    inside = brackets[1:-1]
    parts = tuple(inside.split("]["))
    if any("[" in part or "]" in part for part in parts):
        parts = (inside,)
    return parts if all(parts) else None


def claim(token: VerifiedToken, path: tuple[str, ...]) -> object:
    """Walk to a claim through objects; None when it is not there."""
    value: object = token.claims
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def claim_texts(token: VerifiedToken | None, path: tuple[str, ...]) -> list[str]:
    """Collect the texts of a claim of which one must match; empty without a token.

    >>> token = VerifiedToken(issuer="i", subject="s", claims={"scope": "read write", "a": {"b": ["x", 1]}})
    >>> claim_texts(token, ("scope",)), claim_texts(token, ("a", "b")), claim_texts(token, ("a",))
    (['read', 'write'], ['x'], [])
    """
    if token is None:
        return []
    value = claim(token, path)
    if isinstance(value, str):
        # Only claims of the payload itself are split: the issuer's rule names no nested ones.
        return value.split(" ") if len(path) == 1 and path[0] in token.space_delimited else [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class PrincipalForm(NamedTuple):
    """A value of `requestPrincipals` as one value for the issuer and one for the subject.

    A star of `issuer` or `subject` is a form only where `is_pattern` of it says so; else it is a plain character.
    """

    issuer: str
    subject: str
    issuer_is_pattern: bool
    subject_is_pattern: bool

    @property
    def is_exact(self) -> bool:
        """Say whether exactly one pair matches."""
        return not (self.issuer_is_pattern or self.subject_is_pattern)


def principal_form(value: str) -> PrincipalForm:
    """Split a request principal at its last slash, because an issuer may be a URL.

    >>> principal_form("https://issuer.example/alice")
    PrincipalForm(issuer='https://issuer.example', subject='alice', issuer_is_pattern=False, subject_is_pattern=False)
    >>> principal_form("*@example.com")
    PrincipalForm(issuer='*', subject='*@example.com', issuer_is_pattern=True, subject_is_pattern=True)
    """
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return PrincipalForm("*", "*", True, True)
    if value.startswith("*"):
        return PrincipalForm(issuer, subject, True, False) if slash else PrincipalForm("*", value, True, True)
    if value.endswith("*"):
        return PrincipalForm(issuer, subject, False, True) if slash else PrincipalForm(value, "*", True, True)
    return PrincipalForm(issuer, subject, False, False)


def principal_test(values: Iterable[str]) -> Callable[[VerifiedToken | None], bool]:
    """Compile request principals to a test of a token; both issuer and subject must be there.

    >>> token = VerifiedToken(issuer="https://issuer.example", subject="alice", claims={})
    >>> [principal_test([value])(token) for value in ("https://issuer.example/*", "*/bob", "*ice")]
    [True, False, True]
    """
    forms = [principal_form(value) for value in values]
    exact = frozenset((form.issuer, form.subject) for form in forms if form.is_exact)
    patterns = tuple(
        (_part(form.issuer, form.issuer_is_pattern), _part(form.subject, form.subject_is_pattern))
        for form in forms
        if not form.is_exact
    )

    def test(token: VerifiedToken | None) -> bool:
        if token is None or not token.issuer or not token.subject:
            return False
        return (token.issuer, token.subject) in exact or any(
            issuer(token.issuer) and subject(token.subject) for issuer, subject in patterns
        )

    return test


def _part(value: str, is_pattern: bool) -> TextTest:
    return text_test([value]) if is_pattern else frozenset([value]).__contains__
