"""What a decision looks at, and each clause of a rule compiled to a test of it.

An attribute that is absent is the empty text. No value form matches the empty text, so a positive clause on an absent
attribute fails and a negative one holds, which is what Istio's semantics say.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.documents import quoted
from proxy.policy.model import Attribute, Clause
from proxy.policy.principals import expand_aliases
from proxy.policy.templates import is_template, template_test
from proxy.policy.values import TextTest, glob_test, ip_test, maybe_ip, sort_forms, text_test
from proxy.types import ConnectionAttributes, PeerIdentity, RequestAttributes

Test = Callable[["Facts"], bool]

_SHOWN_VALUES = 4
_SHOWN_CHARACTERS = 120


class Facts:
    """The attributes of one connection or request, in the form in which clauses compare them.

    Built once for each decision: about 1 µs, so everything that few policies use is worked out by the clause itself.
    """

    __slots__ = ("connection", "host", "is_http", "method", "path", "peer", "principal", "request")

    def __init__(self, connection: ConnectionAttributes, request: RequestAttributes | None) -> None:
        self.connection = connection
        self.request = request
        self.peer: PeerIdentity | None = connection.peer
        peer = connection.peer
        self.principal = f"{peer.spiffe_id.trust_domain}{peer.spiffe_id.path}" if peer is not None else ""
        self.is_http = request is not None
        if request is not None:
            self.method = request.method
            self.path = request.path
            self.host = request.host.lower()
        else:
            self.method = self.path = self.host = ""

    @property
    def port(self) -> str:
        """The workload port, as policies write it."""
        return str(self.connection.destination_port)

    @property
    def namespace(self) -> str:
        """The namespace of the peer; empty unless its path is exactly `/ns/<namespace>/sa/<service account>`."""
        return (self.peer and self.peer.spiffe_id.namespace) or ""

    @property
    def service_account(self) -> str:
        """The peer's `<namespace>/<service account>`, or the empty text."""
        if self.peer is None or not self.peer.spiffe_id.namespace:
            return ""
        return f"{self.peer.spiffe_id.namespace}/{self.peer.spiffe_id.service_account}"

    def header_lines(self, name: bytes) -> list[str]:
        """Collect every line of a header as Latin-1, in which each byte is one character: nothing fails to decode."""
        if self.request is None:
            return []
        return [value.decode("latin-1") for line_name, value in self.request.headers if line_name == name]


class CompiledClause:
    """A clause with its test.

    `exact` holds the values, and `heads` the first segments of paths, without one of which the clause cannot match;
    empty when it may match others too.
    """

    __slots__ = ("clause", "exact", "heads", "test", "wanted")

    def __init__(self, clause: Clause, trust_domains: tuple[str, ...]) -> None:
        self.clause = clause
        self.wanted = clause.values
        values = clause.values
        if clause.attribute is Attribute.PRINCIPAL:
            values = expand_aliases(values, trust_domains)
        elif clause.attribute is Attribute.HOST:
            values = tuple(value.lower() for value in values)
        self.test = _test(clause, values)
        self.exact = frozenset() if clause.negated else _exact_values(clause.attribute, values)
        has_heads = clause.attribute is Attribute.PATH and not clause.negated
        self.heads = _path_heads(values) if has_heads else frozenset()

    def holds(self, facts: Facts) -> bool:
        """Judge the clause when it may be that the connection has no HTTP to look at: then an HTTP clause fails."""
        return (facts.is_http or not self.clause.is_http) and self.test(facts)

    def describe(self, facts: Facts) -> str:
        """Say in words what was seen and what is wanted."""
        verb = "wanted none of" if self.clause.negated else "wanted"
        shown = [quoted(value, _SHOWN_CHARACTERS) for value in self.wanted[:_SHOWN_VALUES]]
        more = len(self.wanted) - len(shown)
        wanted = " or ".join(shown) + (f" or one of {more} more" if more > 0 else "")
        return f"`{self.clause.name}`: saw {self._seen(facts)}, {verb} {wanted}"

    def _seen(self, facts: Facts) -> str:
        attribute = self.clause.attribute
        if self.clause.is_http and not facts.is_http:
            return "no HTTP on this connection"
        if attribute is Attribute.HEADER and not self.clause.header.startswith(":"):
            lines = facts.header_lines(self.clause.header.encode())
            shown = [quoted(line, _SHOWN_CHARACTERS) for line in lines[:_SHOWN_VALUES]]
            return " and ".join(shown) if shown else "no such header"
        if attribute is Attribute.SOURCE_IP:
            return quoted(facts.connection.source_ip)
        text = _READERS[_reader_name(self.clause)](facts)
        if text:
            return quoted(text, _SHOWN_CHARACTERS)
        if facts.peer is None and attribute in (Attribute.PRINCIPAL, Attribute.NAMESPACE, Attribute.SERVICE_ACCOUNT):
            return "a peer without identity"
        if attribute in (Attribute.NAMESPACE, Attribute.SERVICE_ACCOUNT):
            return f"an identity without {attribute.value} ({quoted(facts.principal)})"
        return f"no {attribute.value}"


_READERS: dict[str, Callable[[Facts], str]] = {
    "principal": lambda facts: facts.principal,
    "namespace": lambda facts: facts.namespace,
    "service account": lambda facts: facts.service_account,
    "port": lambda facts: facts.port,
    "host": lambda facts: facts.host,
    "method": lambda facts: facts.method,
    "path": lambda facts: facts.path,
    ":authority": lambda facts: facts.request.host if facts.request is not None else "",
    ":method": lambda facts: facts.method,
}


def _reader_name(clause: Clause) -> str:
    return clause.header or clause.attribute.value


def _exact_values(attribute: Attribute, values: tuple[str, ...]) -> frozenset[str]:
    if attribute in (Attribute.SOURCE_IP, Attribute.HEADER):
        return frozenset()
    if attribute in (Attribute.SERVICE_ACCOUNT, Attribute.PORT):
        return frozenset(values)
    if any("*" in value for value in values):  # an inner star is rare enough not to be worth telling apart
        return frozenset()
    return frozenset(values)


def path_head(path: str) -> str:
    """Take the first segment of a path with the slash before it.

    >>> path_head("/orders/7"), path_head("/orders")
    ('/orders', '/orders')
    """
    end = path.find("/", 1)
    return path if end < 0 else path[:end]


def _path_heads(values: tuple[str, ...]) -> frozenset[str]:
    heads: set[str] = set()
    for value in values:
        literal = value.partition("{")[0] if is_template(value) else value.removesuffix("*")
        # A cut-off literal fixes the first segment only if it reaches beyond it.
        if value.startswith("*") or (literal != value and "/" not in literal[1:]):
            return frozenset()
        heads.add(path_head(literal))
    return frozenset(heads)


def _test(clause: Clause, values: tuple[str, ...]) -> Test:
    match clause.attribute:
        case Attribute.SOURCE_IP:
            return _ip_test(values, clause.negated)
        case Attribute.HEADER if not clause.header.startswith(":"):
            return _header_test(clause.header.encode(), values, clause.negated)
        case Attribute.NAMESPACE:
            matches = glob_test(values)
        case Attribute.SERVICE_ACCOUNT | Attribute.PORT:
            matches = frozenset(values).__contains__
        case Attribute.PATH:
            matches = _path_test(values)
        case _:
            matches = text_test(values)
    return _applied(_reader_name(clause), matches, clause.negated)


def _path_test(values: tuple[str, ...]) -> TextTest:
    plain = text_test([value for value in values if not is_template(value)])
    templates = tuple(template_test(value) for value in values if is_template(value))
    if not templates:
        return plain
    return lambda path: plain(path) or any(matches(path) for matches in templates)


def _applied(reader: str, matches: TextTest, negated: bool) -> Test:
    """Join reader and matcher. The common ones spell the attribute out: one call less for each clause judged."""
    if not negated:
        match reader:
            case "principal":
                return lambda facts: matches(facts.principal)
            case "path":
                return lambda facts: matches(facts.path)
            case "method" | ":method":
                return lambda facts: matches(facts.method)
    read = _READERS[reader]
    if negated:
        return lambda facts: not matches(read(facts))
    return lambda facts: matches(read(facts))


def _ip_test(values: tuple[str, ...], negated: bool) -> Test:
    matches = ip_test(values)

    def test(facts: Facts) -> bool:
        address = maybe_ip(facts.connection.source_ip)
        return (address is not None and matches(address)) is not negated

    return test


def _header_test(name: bytes, values: tuple[str, ...], negated: bool) -> Test:
    if sort_forms(values).any:  # presence: a header without value is there too
        return lambda facts: bool(facts.header_lines(name)) is not negated
    matches = text_test(values)
    return lambda facts: any(map(matches, facts.header_lines(name))) is not negated
