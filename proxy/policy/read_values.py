"""Which values a clause may have: what is malformed is named at load and never becomes a rule that matches nothing.

A value that can match nothing is worse than an error. In a DENY rule it lets everything pass, and nobody sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.documents import quoted, shown
from proxy.policy.claims import parse_claim_path
from proxy.policy.model import TOKEN, Attribute
from proxy.policy.templates import template_problem
from proxy.policy.values import parse_ip_block

MAX_SERVICE_ACCOUNT_CHARACTERS: Final = 320  # 63 of a namespace, a slash, 253 of a name, as in Istio's schema

_TYPOGRAPHIC: Final = re.compile("[\u2018-\u201f\u00ab\u00bb]")  # quotes that word processors write

_ENCODED: Final = {
    Attribute.PATH: "write the path percent-encoded, as it is sent",
    Attribute.HOST: "write the name as it is sent, with its xn-- parts",
}


class Problem(NamedTuple):
    """What is wrong with a value, and what to write instead."""

    message: str
    hint: str = ""


def maybe_problem(attribute: Attribute, value: str) -> Problem | None:
    """Judge one value of a clause; None when it is well formed."""
    if attribute in TOKEN:
        return _token(attribute, value)
    if attribute is not Attribute.HEADER and (not value.isprintable() or " " in value):
        hint = "write each value as an item of its own" if len(value.replace(",", " ").split()) > 1 else "remove it"
        if attribute is Attribute.PATH and " " in value.strip():
            hint = "write the path percent-encoded, as it is sent"
        return Problem(f"{quoted(value)} holds a space or a control character, so it matches nothing", hint)
    if attribute is not Attribute.HEADER and not value.isascii():
        hint = _ENCODED.get(attribute, "")
        if _TYPOGRAPHIC.search(value):
            hint = "use the plain quotes \" and '"
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


def _trust_domain(value: str) -> Problem | None:
    if "/" in value:
        return Problem(f"{quoted(value)} is no trust domain", "write the trust domain alone, without slashes")
    if "*" in (value[1:] if value.startswith("*") else value.removesuffix("*")):
        return Problem(f"{quoted(value)} may have one star, at an end", "write out each trust domain")
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


def _any_text(value: str) -> Problem | None:
    return None


def _path(value: str) -> Problem | None:
    problem = template_problem(value)
    return Problem(problem) if problem else None


def _token(attribute: Attribute, value: str) -> Problem | None:
    """Judge a value that is compared with text of a token, which may hold spaces and any letter."""
    if not value.isprintable():
        return Problem(f"{quoted(value)} holds a control character", "remove it")
    if attribute is not Attribute.REQUEST_PRINCIPAL:
        return None
    issuer, slash, subject = value.rpartition("/")
    if value == "*/*":
        return Problem(f"{quoted(value)} matches only a subject that is a star", "write * for any request principal")
    if slash and not (issuer and subject):
        part = "subject" if issuer else "issuer"
        return Problem(f"{quoted(value)} has no {part}, so it matches nothing", "write <issuer>/<subject>")
    if not slash and not value.startswith("*") and not value.endswith("*"):
        return Problem(f"{quoted(value)} is no request principal", "write <issuer>/<subject>")
    return None


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
    Attribute.TRUST_DOMAIN: _trust_domain,
    Attribute.SOURCE_IP: _ip_block,
    Attribute.REMOTE_IP: _ip_block,
    Attribute.DESTINATION_IP: _ip_block,
    Attribute.SNI: _any_text,
    Attribute.PORT: _port,
    Attribute.HOST: _host,
    Attribute.METHOD: _any_text,
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
    "source.trustDomain": Attribute.TRUST_DOMAIN,
    "remote.ip": Attribute.REMOTE_IP,
    "destination.ip": Attribute.DESTINATION_IP,
    "destination.port": Attribute.PORT,
    "connection.sni": Attribute.SNI,
    "request.auth.principal": Attribute.REQUEST_PRINCIPAL,
    "request.auth.audiences": Attribute.AUDIENCES,
    "request.auth.presenter": Attribute.PRESENTER,
}
KNOWN_KEYS: Final = (*_PLAIN_KEYS, "request.headers[<name>]", "request.auth.claims[<name>]")
_REMOVED: Final = {
    "destination.namespace": "use metadata.namespace",
    "destination.labels": "use spec.selector",
    "destination.name": "use spec.selector",
    "destination.user": "use spec.selector",
}

_OPERATION_FIELDS: Final = {
    "request.path": "paths",
    "request.url_path": "paths",
    "request.method": "methods",
    "request.host": "hosts",
}
_BRACKETED: Final = (
    ("request.header", "request.headers[name-of-the-header]"),
    ("request.auth.claim", "request.auth.claims[name-of-the-claim]"),
)


class Key(NamedTuple):
    """A `when` key: the attribute, for a header its lower-case name, for a claim the way to it."""

    attribute: Attribute
    header: str = ""
    claim: tuple[str, ...] = ()


def parse_key(key: str) -> Key | Problem | None:
    """Read the key of a condition; None when it is no key of the language at all."""
    if attribute := _PLAIN_KEYS.get(key):
        return Key(attribute)
    base, bracket, rest = key.partition("[")
    if base == "request.headers":
        return _header_key(key, rest if bracket and rest.endswith("]") else "")
    if base == "request.auth.claims":
        path = parse_claim_path(bracket + rest)
        if path is None:
            return Problem(f"{quoted(key)} names no claim", "write request.auth.claims[name-of-the-claim]")
        return Key(Attribute.CLAIM, claim=path)
    if base in _REMOVED:
        return Problem(f"the condition {quoted(key)} is not part of the language any more", _REMOVED[base])
    if field := _OPERATION_FIELDS.get(base):
        return Problem(f"there is no condition {quoted(key)}", f"write `{field}` under `to`, in `operation`")
    for beginning, form in _BRACKETED:
        if key.startswith(beginning):
            return Problem(f"unknown condition {quoted(key)}", f"write {form}")
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
        return Problem(f"{quoted(name)} is no name of a header", "write its letters and `-`")
    return Key(Attribute.HEADER, name.lower())
