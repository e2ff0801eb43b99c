"""Texts of annotations -> values. Each reader takes the text as written and raises ValueError with what is allowed."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from certs.spiffe import SpiffeId, SpiffeIdError, parse_trust_domain
from injector.ports import Ports
from proxy.config_text import TextError, parse_duration
from proxy.documents import nearest

MAX_TEXT: Final = 4096
"""Bytes of one value. Kubernetes gives 256 KiB to all annotations of an object together; none of ours needs this."""

TRUES: Final = ("true", "enabled")
FALSES: Final = ("false", "disabled")
PROTOCOLS: Final = ("auto", "http", "tcp")

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(n|u|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?\Z")
_SCALE: Final = {
    "": Decimal(1),
    **{unit: Decimal(1000) ** -power for power, unit in enumerate(("m", "u", "n"), 1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
# Of the distribution project's grammar: registry[:port]/path[:tag][@digest].
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}\Z")
_AUDIENCE = re.compile(r"[!-~]{1,253}\Z")


def boolean(text: str) -> bool:
    """Read true or false.

    >>> boolean("true")
    True
    """
    if text in ("true", "false"):
        return text == "true"
    raise ValueError("write true or false")


def word(*choices: str) -> Callable[[str], str]:
    """Give the reader of one of several words."""

    def read(text: str) -> str:
        if text in choices:
            return text
        near = nearest(text, choices)
        raise ValueError(f"write one of {', '.join(choices)}" + (f"; did you mean {near}?" if near else ""))

    return read


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Give the reader of an integer within bounds, both included."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= 9 and minimum <= int(text) <= maximum:
            return int(text)
        raise ValueError(f"write an integer from {minimum} to {maximum}")

    return read


def duration(minimum: float, maximum: float, *, or_none: bool = False) -> Callable[[str], float]:
    """Give the reader of a duration in seconds within bounds, both included: 500ms, 30s, 5m, 24h.

    With `or_none`, 0 s is taken too, for what is not set.
    """

    def read(text: str) -> float:
        try:
            seconds = parse_duration(text)
        except TextError:
            raise ValueError("write a number and a unit: 500ms, 30s, 5m or 24h") from None
        if not minimum <= seconds <= maximum and not (or_none and seconds == 0):
            zero = "0s, or " if or_none else ""
            raise ValueError(f"write {zero}a duration from {duration_text(minimum)} to {duration_text(maximum)}")
        return seconds

    return read


def duration_text(seconds: float) -> str:
    """Write seconds as `duration` reads them.

    >>> duration_text(86400), duration_text(90), duration_text(0.5)
    ('24h', '90s', '500ms')
    """
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0s"


def quantity(text: str) -> str:
    """Read a quantity of Kubernetes, such as 100m or 64Mi, and give it as written; "" means none."""
    if text and not (_QUANTITY.match(text) and amount(text) > 0):
        raise ValueError("write a quantity above zero, such as 100m, 0.5, 64Mi or 1Gi")
    return text


def amount(text: str) -> Decimal:
    """Give a checked quantity as a number.

    >>> amount("100m") < amount("1"), amount("1Gi") == 1024 * amount("1Mi")
    (True, True)
    """
    match = _QUANTITY.match(text)
    return Decimal(match[1]) * _SCALE[match[2] or ""] if match else Decimal(0)


def ports(text: str) -> Ports:
    """Read ports and ranges by commas, `*` for all."""
    try:
        return Ports.parse(text)
    except ValueError as fault:
        raise ValueError(f"{fault}; write ports and ranges by commas, such as 8080,9000-9010, or *") from None


def port_protocols(text: str) -> Mapping[int, str]:
    """Read ports with their protocols, such as 8080=http,5432=tcp."""
    found: dict[int, str] = {}
    for part in _parts(text):
        port, equals, protocol = part.partition("=")
        number = _port(port.strip(), part)
        if not equals or protocol.strip() not in PROTOCOLS:
            raise ValueError(f"{part!r}: write PORT=PROTOCOL, with one of {', '.join(PROTOCOLS)}")
        if number in found:
            raise ValueError(f"the port {number} stands twice")
        found[number] = protocol.strip()
    return MappingProxyType(dict(sorted(found.items())))


def listeners(text: str) -> Mapping[str, int]:
    """Read services with the loopback ports by which the application calls them, such as orders.shop=9001."""
    found: dict[str, int] = {}
    for part in _parts(text):
        service, equals, port = (each.strip() for each in part.partition("="))
        if not equals or not _OBJECT_NAME.match(service.replace(":", "-")):
            raise ValueError(f"{part!r}: write SERVICE=PORT, such as orders.shop=9001")
        number = _port(port, part)
        if service in found or number in found.values():
            raise ValueError(f"{part!r}: the service or the port stands twice")
        found[service] = number
    return MappingProxyType(found)


def ip_ranges(text: str) -> tuple[str, ...]:
    """Read networks by commas, IPv4 and IPv6, `*` for all of both families."""
    if text.strip() == "*":
        return ("0.0.0.0/0", "::/0")
    found = []
    for part in _parts(text):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(f"{_shown(part)}: write networks by commas, such as 10.0.0.0/8,fd00::/8, or *") from None
    return tuple(dict.fromkeys(str(each) for each in found))


def interfaces(text: str) -> tuple[str, ...]:
    """Read names of network interfaces by commas."""
    found = _parts(text)
    for part in found:
        if not _INTERFACE.match(part):
            raise ValueError(f"{_shown(part)}: write names of interfaces by commas, such as eth1,net0")
    return tuple(dict.fromkeys(found))


def image(text: str) -> str:
    """Read a reference to an image."""
    if len(text) <= 512 and _IMAGE.match(text):
        return text
    raise ValueError("write a reference such as registry.example/remora:0.1.0, or with @sha256:<digest>")


def object_name(text: str) -> str:
    """Read the name of an object of Kubernetes."""
    if _OBJECT_NAME.match(text) and ".." not in text:
        return text
    raise ValueError("write the name of an object: a-z, 0-9, - and dots, at most 253 characters")


def namespace(text: str) -> str:
    """Read the name of a namespace."""
    if _LABEL.match(text):
        return text
    raise ValueError("write the name of a namespace: a-z, 0-9 and -, at most 63 characters")


def trust_domain(text: str) -> str:
    """Read a trust domain of SPIFFE."""
    try:
        return str(parse_trust_domain(text))
    except SpiffeIdError as fault:
        raise ValueError(f"{fault}; write a name such as cluster.local") from None


def spiffe_id(text: str) -> str:
    """Read a SPIFFE ID; "" means the usual one."""
    try:
        return str(SpiffeId.parse(text)) if text else ""
    except SpiffeIdError as fault:
        raise ValueError(f"{fault}; write an ID such as spiffe://cluster.local/ns/remora-system/sa/authority") from None


def authority_url(text: str) -> str:
    """Read the address of an authority: https, a host and perhaps a port, nothing else."""
    try:
        parts = urllib.parse.urlsplit(text)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good, parts = False, urllib.parse.urlsplit("")
    good = parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and text.isprintable()
    if good and port_is_good and "@" not in text and "?" not in text and "#" not in text and " " not in text:
        return text.removesuffix("/")
    raise ValueError("write https://HOST:PORT")


def audience(text: str) -> str:
    """Read the audience of a token."""
    if _AUDIENCE.match(text):
        return text
    raise ValueError("write a word without spaces, as the authority's --audience has it")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _port(text: str, part: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= 65_535):
        raise ValueError(f"{_shown(part)}: {_shown(text)} is no port from 1 to 65535")
    return int(text)


def _shown(text: str) -> str:
    return repr(text[:60])
