"""Each clause of a rule compiled to a test of the facts, with what the clause cannot match without, and its wording.

Most attributes are one text; a header, a claim and the audiences may be several, of which one must match. Addresses
are compared as numbers, and a request principal as a pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Final, NamedTuple

from proxy.documents import quoted
from proxy.policy.claims import claim, claim_texts, principal_form, principal_test
from proxy.policy.facts import Facts, segment_borders, segment_prefixes
from proxy.policy.model import IDENTITY, TOKEN, Attribute, Clause
from proxy.policy.principals import expand_aliases, expand_trust_domains
from proxy.policy.templates import is_template, template_test
from proxy.policy.values import TextTest, glob_test, ip_test, parse_ip_block, sort_forms, text_test

Test = Callable[[Facts], bool]
_Reader = Callable[[Facts], str]
_ListReader = Callable[[Facts], list[str]]

ADDRESSES: Final = frozenset({Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP})
_CLAIMS: Final = {Attribute.AUDIENCES: ("aud",), Attribute.PRESENTER: ("azp",)}

SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that carry tokens and passwords: what is seen there is in no explanation, record or page."""

_SHOWN_VALUES: Final = 4
_SHOWN_CHARACTERS: Final = 120
_SEARCHED_VALUES: Final = 20  # how many values are tried for the one that matched, when a match is put into words


class Filing(NamedTuple):
    """Where a rule with this clause can be filed: it cannot match unless `read` of the facts gives one of `keys`."""

    dimension: Hashable
    keys: frozenset[Hashable]
    read: Callable[[Facts], Iterable[Hashable]]


class CompiledClause:
    """A clause with its test; `filing` is None when it may match whatever the facts are."""

    __slots__ = ("_trust_domains", "_trusted_proxies", "clause", "filing", "is_http", "test")

    def __init__(self, clause: Clause, trust_domains: tuple[str, ...], trusted_proxies: int = 0) -> None:
        self.clause = clause
        self.is_http = clause.is_http
        self._trust_domains = trust_domains
        self._trusted_proxies = trusted_proxies
        values = _canonical(clause, trust_domains)
        self.test = _test(clause, values, trusted_proxies)
        self.filing = None if clause.negated else _filing(clause, values, trusted_proxies)

    def holds(self, facts: Facts) -> bool:
        """Judge the clause when it may be that the connection has no HTTP to look at: then an HTTP clause fails."""
        return (facts.is_http or not self.is_http) and self.test(facts)

    def describe(self, facts: Facts) -> str:
        """Say in words why the clause holds, or what was seen and what is wanted where it does not."""
        clause = self.clause
        seen = self.seen(facts)
        if not self.holds(facts):
            return f"`{clause.name}`: saw {seen}, wanted {self.wanted()}"
        if clause.negated:
            return f"`{clause.name}`: saw {seen}, which is {self.wanted()}"
        return f"`{clause.name}`: {seen} matches {_listed(self._matching(facts))}"

    def wanted(self) -> str:
        """Name the values that the clause wants, or does not want."""
        listed = _listed(self.clause.values)
        return f"none of {listed}" if self.clause.negated else listed

    def _matching(self, facts: Facts) -> tuple[str, ...]:
        """Find the one value that matches; all of them where there are many."""
        for value in self.clause.values[:_SEARCHED_VALUES]:
            alone = dataclasses.replace(self.clause, values=(value,))
            if CompiledClause(alone, self._trust_domains, self._trusted_proxies).test(facts):
                return (value,)
        return self.clause.values

    def seen(self, facts: Facts) -> str:
        """Say in words what the attribute is: a quoted value, or what is missing."""
        clause = self.clause
        attribute = clause.attribute
        if clause.is_http and not facts.is_http:
            return "no HTTP on this connection"
        if attribute in TOKEN:
            return _seen_in_token(clause, facts)
        if attribute in ADDRESSES:
            return quoted(_address_reader(attribute, self._trusted_proxies)(facts))
        if attribute is Attribute.HEADER and not clause.header.startswith(":"):
            lines = facts.header_lines(clause.header.encode())
            if lines and clause.header in SECRET_HEADERS:
                return "a value that is not shown"
            return _several(lines) or "no such header"
        text = _READERS[clause.header or attribute](facts)
        if text:
            return quoted(text, _SHOWN_CHARACTERS)
        if attribute in IDENTITY:
            if facts.peer is None:
                return "a peer without identity"
            return f"an identity without {attribute.value} ({quoted(facts.principal)})"
        return f"no {attribute.value}"


def _seen_in_token(clause: Clause, facts: Facts) -> str:
    token = facts.token
    if token is None:
        return "no verified token"
    if clause.attribute is Attribute.REQUEST_PRINCIPAL:
        if not token.subject:
            return f"a token of {quoted(token.issuer, _SHOWN_CHARACTERS)} without subject"
        return quoted(f"{token.issuer}/{token.subject}", _SHOWN_CHARACTERS)
    path = _claim_path(clause)
    if texts := _several(claim_texts(token, path)):
        return texts
    if claim(token, path) is not None:
        return f"{clause.attribute.value} without text"
    return f"a token without {clause.attribute.value}" if clause.attribute in _CLAIMS else "no such claim"


def _several(texts: list[str]) -> str:
    return " and ".join(quoted(text, _SHOWN_CHARACTERS) for text in texts[:_SHOWN_VALUES])


def _listed(values: tuple[str, ...]) -> str:
    shown = [quoted(value, _SHOWN_CHARACTERS) for value in values[:_SHOWN_VALUES]]
    more = len(values) - len(shown)
    return " or ".join(shown) + (f" or one of {more} more" if more > 0 else "")


# --- reading ---------------------------------------------------------------------------------------------------------

_READERS: Final[dict[Attribute | str, _Reader]] = {
    Attribute.PRINCIPAL: lambda facts: facts.principal,
    Attribute.TRUST_DOMAIN: lambda facts: facts.trust_domain,
    Attribute.NAMESPACE: lambda facts: facts.namespace,
    Attribute.SERVICE_ACCOUNT: lambda facts: facts.service_account,
    Attribute.PORT: lambda facts: facts.port,
    Attribute.SNI: lambda facts: facts.connection.sni,
    Attribute.HOST: lambda facts: facts.host,
    Attribute.METHOD: lambda facts: facts.method,
    Attribute.PATH: lambda facts: facts.path,
    ":authority": lambda facts: facts.request.host if facts.request is not None else "",
    ":method": lambda facts: facts.method,
}


def _claim_path(clause: Clause) -> tuple[str, ...]:
    return clause.claim or _CLAIMS[clause.attribute]


def _address_reader(attribute: Attribute, trusted_proxies: int) -> _Reader:
    match attribute:
        case Attribute.DESTINATION_IP:
            return lambda facts: facts.connection.destination_ip
        case Attribute.REMOTE_IP if trusted_proxies:
            return lambda facts: facts.remote_ip(trusted_proxies)
        case _:
            return lambda facts: facts.connection.source_ip


# --- matching --------------------------------------------------------------------------------------------------------


def _canonical(clause: Clause, trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    match clause.attribute:
        case Attribute.PRINCIPAL:
            return expand_aliases(clause.values, trust_domains)
        case Attribute.TRUST_DOMAIN:
            return expand_trust_domains(clause.values, trust_domains)
        case Attribute.HOST:
            return tuple(value.lower() for value in clause.values)
        case _:
            return clause.values


def _test(clause: Clause, values: tuple[str, ...], trusted_proxies: int) -> Test:
    negated = clause.negated
    match clause.attribute:
        case Attribute.SOURCE_IP | Attribute.REMOTE_IP | Attribute.DESTINATION_IP:
            return _address_test(_address_reader(clause.attribute, trusted_proxies), values, negated)
        case Attribute.REQUEST_PRINCIPAL:
            matches_token = principal_test(values)
            return lambda facts: matches_token(facts.token) is not negated
        case Attribute.AUDIENCES | Attribute.PRESENTER | Attribute.CLAIM:
            path = _claim_path(clause)
            return _any_test(lambda facts: claim_texts(facts.token, path), text_test(values), negated)
        case Attribute.HEADER if not clause.header.startswith(":"):
            return _header_test(clause.header.encode(), values, negated)
        case Attribute.NAMESPACE:
            matches = glob_test(values)
        case Attribute.SERVICE_ACCOUNT | Attribute.PORT:
            matches = frozenset(values).__contains__
        case Attribute.PATH:
            matches = _path_test(values)
        case _:
            matches = text_test(values)
    return _text_test(clause.header or clause.attribute, matches, negated)


def _path_test(values: tuple[str, ...]) -> TextTest:
    plain = text_test([value for value in values if not is_template(value)])
    templates = tuple(template_test(value) for value in values if is_template(value))
    if not templates:
        return plain
    return lambda path: plain(path) or any(matches(path) for matches in templates)


def _text_test(attribute: Attribute | str, matches: TextTest, negated: bool) -> Test:
    """Join reader and matcher. The common ones spell the attribute out: one call less for each clause judged."""
    if not negated:
        match attribute:
            case Attribute.PRINCIPAL:
                return lambda facts: matches(facts.principal)
            case Attribute.PATH:
                return lambda facts: matches(facts.path)
            case Attribute.METHOD | ":method":
                return lambda facts: matches(facts.method)
    read = _READERS[attribute]
    if negated:
        return lambda facts: not matches(read(facts))
    return lambda facts: matches(read(facts))


def _any_test(read: _ListReader, matches: TextTest, negated: bool) -> Test:
    return lambda facts: any(map(matches, read(facts))) is not negated


def _header_test(name: bytes, values: tuple[str, ...], negated: bool) -> Test:
    if sort_forms(values).any:  # presence: a header without value is there too
        return lambda facts: bool(facts.header_lines(name)) is not negated
    return _any_test(lambda facts: facts.header_lines(name), text_test(values), negated)


def _address_test(read: _Reader, values: tuple[str, ...], negated: bool) -> Test:
    matches = ip_test(values)

    def test(facts: Facts) -> bool:
        address = facts.address(read(facts))
        return (address is not None and matches(address)) is not negated

    return test


# --- filing ----------------------------------------------------------------------------------------------------------


def _filing(clause: Clause, values: tuple[str, ...], trusted_proxies: int) -> Filing | None:
    """Find out what a positive clause cannot match without."""
    attribute = clause.attribute
    match attribute:
        case Attribute.SOURCE_IP | Attribute.REMOTE_IP | Attribute.DESTINATION_IP:
            return _address_filing(attribute, values, _address_reader(attribute, trusted_proxies))
        case Attribute.SERVICE_ACCOUNT | Attribute.PORT:
            return _text_filing(attribute, frozenset(values))
        case Attribute.REQUEST_PRINCIPAL:
            forms = [principal_form(value) for value in values]
            if not all(form.is_exact for form in forms):
                return None
            pairs = frozenset((form.issuer, form.subject) for form in forms)
            return Filing(
                attribute, pairs, lambda facts: [(facts.token.issuer, facts.token.subject)] if facts.token else []
            )
        case Attribute.NAMESPACE:  # every star is a wildcard, an inner one too
            return None if any("*" in value for value in values) else _text_filing(attribute, frozenset(values))
    templates = [value for value in values if attribute is Attribute.PATH and is_template(value)]
    forms_of_text = sort_forms(value for value in values if value not in templates)
    if forms_of_text.any or forms_of_text.suffixes:
        return None
    if attribute in (Attribute.PATH, Attribute.PRINCIPAL) and (templates or forms_of_text.prefixes):
        keys = {segment_prefixes(value)[-1] for value in forms_of_text.exact}
        for literal in (*forms_of_text.prefixes, *(value.partition("{")[0] for value in templates)):
            borders = segment_borders(literal)
            if not borders:
                return None
            keys.add(borders[-1])
        return Filing((attribute, "prefix"), frozenset(keys), _PREFIX_READERS[attribute])
    if forms_of_text.prefixes:
        return None
    exact = forms_of_text.exact
    match attribute:
        case Attribute.AUDIENCES | Attribute.PRESENTER | Attribute.CLAIM:
            path = _claim_path(clause)
            return Filing((Attribute.CLAIM, path), exact, lambda facts: claim_texts(facts.token, path))
        case Attribute.HEADER if not clause.header.startswith(":"):
            name = clause.header.encode()
            return Filing((attribute, name), exact, lambda facts: facts.header_lines(name))
    return _text_filing(clause.header or attribute, exact)


_PREFIX_READERS: Final[dict[Attribute, _ListReader]] = {
    Attribute.PATH: lambda facts: facts.path_prefixes,
    Attribute.PRINCIPAL: lambda facts: segment_prefixes(facts.principal),
}


def _text_filing(attribute: Attribute | str, keys: frozenset[str]) -> Filing:
    read = _READERS[attribute]
    return Filing(attribute, keys, lambda facts: (read(facts),))


def _address_filing(attribute: Attribute, values: tuple[str, ...], read: _Reader) -> Filing | None:
    """File blocks of one length under their networks; blocks of several lengths would need several look-ups."""
    blocks = [parse_ip_block(value) for value in values]
    version, length, _ = blocks[0]
    if any(block.version != version or block.length != length for block in blocks):
        return None
    shift = (32 if version == 4 else 128) - length

    def keys_of(facts: Facts) -> Iterable[Hashable]:
        address = facts.address(read(facts))
        return (address[1] >> shift,) if address is not None and address[0] == version else ()

    return Filing((attribute, version, shift), frozenset(block.network for block in blocks), keys_of)
