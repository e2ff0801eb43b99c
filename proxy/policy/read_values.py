"""Which values a clause may have: what is malformed is named at load and never becomes a rule that matches nothing.

A value that can match nothing is worse than an error. In a DENY rule it lets everything pass, and nobody sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.documents import quoted, shown
from proxy.policy.model import Attribute
from proxy.policy.templates import template_problem
from proxy.policy.values import parse_ip_block

MAX_SERVICE_ACCOUNT_CHARACTERS: Final = 320  # 63 of a namespace, a slash, 253 of a name, as in Istio's schema


class Problem(NamedTuple):
    """What is wrong with a value, and what to write instead."""

    message: str
    hint: str = ""


def maybe_problem(attribute: Attribute, value: str) -> Problem | None:
    """Judge one value of a clause; None when it is well formed."""
    if attribute is not Attribute.HEADER and (not value.isprintable() or " " in value):
        return Problem(f"{quoted(value)} holds a space or a control character, so it matches nothing", "remove it")
    if attribute is not Attribute.HEADER and not value.isascii():
        hint = "write the path percent-encoded, as it is sent" if attribute is Attribute.PATH else ""
        return Problem(f"{quoted(value)} holds characters outside ASCII, so it matches nothing", hint)
    return _CHECKS[attribute](value)


def _principal(value: str) -> Problem | None:
    if value.startswith("spiffe://"):
        bare = value.removeprefix("spiffe://")
        return Problem(f"{quoted(value)} begins with spiffe://", f"principals are written without it: {quoted(bare)}")
    return None


def _namespace(value: str) -> Problem | None:
    if "/" in value:
        return Problem(f"{quoted(value)} is no namespace", "write the namespace alone, without slashes")
    return None


def _service_account(value: str) -> Problem | None:
    if "*" in value:
        return Problem(f"{quoted(value)} has a star; service accounts are compared exactly", "write out each account")
    if len(value) > MAX_SERVICE_ACCOUNT_CHARACTERS:
        return Problem(f"{quoted(value, 40)} has more than {MAX_SERVICE_ACCOUNT_CHARACTERS} characters")
    parts = value.split("/")
    if len(parts) > 2 or "" in parts:
        return Problem(f"{quoted(value)} is no service account", "write <account> or <namespace>/<account>")
    return None


def _ip_block(value: str) -> Problem | None:
    try:
        parse_ip_block(value)
    except ValueError as error:
        hint = "write an address such as 10.0.0.1 or a block such as 10.0.0.0/8"
        detail = str(error) if str(error).startswith(("a zone", "the prefix")) else ""
        return Problem(f"{quoted(value)} is no address block" + (f": {shown(detail)}" if detail else ""), hint)
    return None


def _port(value: str) -> Problem | None:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        return Problem(
            f"{quoted(value)} is no port", "write a decimal number from 0 to 65535, without wildcard or range"
        )
    return None


def _host(value: str) -> Problem | None:
    if "/" in value:
        return Problem(f"{quoted(value)} is no host", 'write the authority alone, such as "orders.demo:8080"')
    return None


def _method(value: str) -> Problem | None:
    return None


def _path(value: str) -> Problem | None:
    problem = template_problem(value)
    return Problem(problem) if problem else None


def _header(value: str) -> Problem | None:
    if not value.isascii() or not value.isprintable():
        return Problem(
            f"{quoted(value)} holds characters that are not printable ASCII",
            "header values are bytes of no known encoding: compare ASCII text only",
        )
    if value != value.strip(" "):
        return Problem(f"{quoted(value)} begins or ends with a space, which HTTP removes", "remove the space")
    return None


_CHECKS: Final[dict[Attribute, Callable[[str], Problem | None]]] = {
    Attribute.PRINCIPAL: _principal,
    Attribute.NAMESPACE: _namespace,
    Attribute.SERVICE_ACCOUNT: _service_account,
    Attribute.SOURCE_IP: _ip_block,
    Attribute.PORT: _port,
    Attribute.HOST: _host,
    Attribute.METHOD: _method,
    Attribute.PATH: _path,
    Attribute.HEADER: _header,
}


# --- keys of `when` --------------------------------------------------------------------------------------------------

PSEUDO_HEADERS: Final = (":authority", ":method")
"""HTTP/2's names that conditions may use for the host and the method of any request."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
_PLAIN_KEYS: Final = {
    "source.ip": Attribute.SOURCE_IP,
    "source.namespace": Attribute.NAMESPACE,
    "source.principal": Attribute.PRINCIPAL,
    "source.serviceAccount": Attribute.SERVICE_ACCOUNT,
    "destination.port": Attribute.PORT,
}
KNOWN_KEYS: Final = (*_PLAIN_KEYS, "request.headers[<name>]")
_NOT_BUILT: Final = (
    "remote.ip",
    "source.trustDomain",
    "destination.ip",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
)
_REMOVED: Final = {
    "destination.namespace": "use metadata.namespace",
    "destination.labels": "use spec.selector",
    "destination.name": "use spec.selector",
    "destination.user": "use spec.selector",
}


class Key(NamedTuple):
    """A `when` key that can be judged: the attribute and, for a header, its lower-case name."""

    attribute: Attribute
    header: str = ""


def parse_key(key: str) -> Key | Problem | None:
    """Read the key of a condition; None when it is no key of the language at all."""
    if attribute := _PLAIN_KEYS.get(key):
        return Key(attribute)
    base, bracket, rest = key.partition("[")
    if base == "request.headers":
        return _header_key(key, rest if bracket and rest.endswith("]") else "")
    if key in _NOT_BUILT or base == "request.auth.claims":
        return Problem(f"the condition {quoted(key)} is not supported yet")
    if base in _REMOVED:
        return Problem(f"the condition {quoted(key)} is not part of the language any more", _REMOVED[base])
    if key.startswith("experimental."):
        return Problem(f"the condition {quoted(key)} looks at filters of Envoy, which do not exist here", "remove it")
    return None


def _header_key(key: str, bracketed: str) -> Key | Problem:
    name = bracketed.removesuffix("]")
    if not name:
        return Problem(f"{quoted(key)} names no header", "write request.headers[name-of-the-header]")
    if name.lower() in PSEUDO_HEADERS:
        return Key(Attribute.HEADER, name.lower())
    if name.startswith(":"):
        return Problem(f"{quoted(name)} is no header that a condition can see", "use `paths`, `hosts` or `methods`")
    if not _TOKEN.match(name):
        return Problem(f"{quoted(name)} is no name of a header")
    return Key(Attribute.HEADER, name.lower())
