"""Reads the small texts of the configuration file: addresses, durations, sizes.

Each function raises `TextError` with what is wrong and what to write instead; the caller knows the place.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import Final

from proxy.config_values import Address, UnixSocket
from proxy.constants import MAX_DNS_LABEL, MAX_DNS_NAME, MAX_UNIX_PATH

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS_OF: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+)(KiB|MiB)")
_BYTES_OF: Final = {"KiB": 1 << 10, "MiB": 1 << 20}
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Underscores are no host names after RFC 1123, but clusters and compose files are full of them.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


class TextError(ValueError):
    """A text that does not say what it should: the message, and a hint what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Use(enum.Enum):
    """What an address is for, which decides what it may say."""

    LISTEN = enum.auto()
    """An IP address of this machine; port 0 lets the kernel choose one."""
    DIAL = enum.auto()
    """An IP address or a DNS name, with a port."""


def parse_address(text: str, use: Use) -> Address:
    """Read `host:port`, an IPv6 host in brackets.

    Raises TextError. Only what is dialled may be a name: which interface a name means can change while it is bound.

    >>> parse_address("[::]:15443", Use.LISTEN)
    Address(host='::', port=15443)
    """
    host, port_text = _split(text, use)
    if not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5 or int(port_text) > 65_535:
        raise TextError(f"{port_text!r} is no port", "write a number from 1 to 65535")
    port = int(port_text)
    if port == 0 and use is Use.DIAL:
        raise TextError(f"{text!r} has port 0, which nothing listens on", "write a number from 1 to 65535")
    bracketed = text.startswith("[")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        if bracketed:
            raise TextError(f"{host!r} is no IPv6 address", _example(use)) from None
        return Address(host=_name(host, use), port=port)
    if ip.version == 4 and bracketed:
        raise TextError(f"{text!r} has an IPv4 address in brackets", f"write {host}:{port}")
    if use is Use.DIAL and ip.is_unspecified:
        loopback = "127.0.0.1" if ip.version == 4 else "[::1]"
        raise TextError(
            f"{text!r} means every address and is none to dial", f"write {loopback}:{port} for this machine"
        )
    return Address(host=str(ip), port=port)


def parse_listen(text: str) -> Address | UnixSocket:
    """Read an address to listen on, or `unix:/absolute/path`. Raises TextError."""
    if not text.startswith(("unix:", "/")):
        return parse_address(text, Use.LISTEN)
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise TextError(
            f"{text!r} is no path of a unix socket", "write an absolute path, such as unix:/run/remora/admin.sock"
        )
    if len(path.encode("utf-8", "surrogatepass")) > MAX_UNIX_PATH:
        raise TextError(f"the path of the unix socket is longer than {MAX_UNIX_PATH} bytes", "choose a shorter path")
    return UnixSocket(path=path)


def parse_duration(value: object) -> float:
    """Read a duration in seconds: a number, or a number with `ms`, `s`, `m` or `h`. Raises TextError.

    >>> parse_duration("500ms")
    0.5
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == value and 0 <= value < float("inf"):
            return float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _SECONDS_OF[match[2]]
    raise TextError(f"{shown(value)} is no duration", "write seconds as a number, or a number with ms, s, m or h: 15s")


def parse_size(value: object) -> int:
    """Read a number of bytes: an integer, or an integer with `KiB` or `MiB`. Raises TextError.

    >>> parse_size("60KiB")
    61440
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _BYTES_OF[match[2]]
    raise TextError(f"{shown(value)} is no number of bytes", "write an integer, or one with KiB or MiB: 64KiB")


def parse_host(text: str) -> str:
    """Read a name by which requests mean a service: a DNS name or an IP address, no port. Raises TextError."""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        if not _is_name(text):
            raise TextError(
                f"{shown(text)} is no host", "write a DNS name without scheme and port: orders.demo"
            ) from None
        return text.lower()


def parse_name(text: str) -> str:
    """Read the name of a service, as records and metrics will carry it. Raises TextError."""
    if len(text) > MAX_DNS_NAME or not _SERVICE_NAME.fullmatch(text):
        raise TextError(f"{shown(text)} is no name for a service", "use letters, digits and . - _ only")
    return text


def shown(value: object) -> str:
    """Quote a value of the file for a message, not more of it than a line can bear."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _split(text: str, use: Use) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if colon and host and ":" not in host and "[" not in text and "]" not in text:
        return host, port
    if text.count(":") > 1 and "[" not in text:
        raise TextError(f"{shown(text)} is ambiguous: an IPv6 address needs brackets", "write [::1]:8080")
    if text.startswith(":") or (not colon and text.isdigit()):
        port = text.removeprefix(":")
        hint = f'write "[::]:{port}" for every interface' if use is Use.LISTEN else f"write 127.0.0.1:{port}"
        raise TextError(f"{shown(text)} has no host", hint)
    raise TextError(f"{shown(text)} is no address", _example(use))


def _example(use: Use) -> str:
    return "write ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080" + ("" if use is Use.LISTEN else ", or NAME:PORT")


def _name(host: str, use: Use) -> str:
    if not _is_name(host):
        raise TextError(f"{shown(host)} is neither an IP address nor a DNS name", _example(use))
    if use is Use.LISTEN:
        hint = "write 127.0.0.1 or [::1]" if host.lower() == "localhost" else "write the address of an interface"
        raise TextError(f"{host!r} is a name, and listening needs an IP address", hint)
    return host.lower()


def _is_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_DNS_NAME or any(len(label) > MAX_DNS_LABEL or not _LABEL.fullmatch(label) for label in labels):
        return False
    # A last label of digits alone is a mistyped IPv4 address: no top-level domain is one (RFC 3696 section 2).
    return not labels[-1].isdigit()
