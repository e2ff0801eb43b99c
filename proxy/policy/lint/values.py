"""RM01: values that match nothing, or more than they seem to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from proxy.documents import quoted, shown
from proxy.errors import ProtocolError
from proxy.policy.lint.scene import Remark, Scene
from proxy.policy.lint.sets import ADDRESSES, covering
from proxy.policy.model import Action, Attribute, Clause
from proxy.policy.templates import ANY, ONE, is_template
from proxy.protocol.path import PathNormalization, normalize_path

_STARRED: Final = frozenset(
    {
        Attribute.PRINCIPAL,
        Attribute.SNI,
        Attribute.HOST,
        Attribute.METHOD,
        Attribute.PATH,
        Attribute.HEADER,
        Attribute.AUDIENCES,
        Attribute.PRESENTER,
        Attribute.CLAIM,
    }
)
"""Where a star counts at one end only. In a namespace it counts everywhere."""

MAX_WIDE: Final = 32
"""Values with a star or a prefix that the others of a list are compared with: they are compared each with each."""


def value_remarks(clause: Clause, action: Action, scene: Scene) -> Iterator[Remark]:
    """Judge each value of a clause by itself and beside the others of its list."""
    for value in clause.values:
        if clause.attribute in _STARRED:
            yield from _inner_star(clause.attribute, value)
        match clause.attribute:
            case Attribute.PATH:
                yield from _path(value, scene.normalization)
            case Attribute.HOST:
                yield from _host(value, clause, action)
            case Attribute.METHOD if value != value.upper():
                message = f"{quoted(value)} matches no usual method: methods are compared exactly"
                yield Remark("RM0106", message, f"write {quoted(value.upper())}")
            case Attribute.SNI if value != value.lower():
                message = f"{quoted(value)} matches no server name: the one that a client asks for is put in lower case"
                yield Remark("RM0113", message, f"write {quoted(value.lower())}")
            case attribute if attribute in ADDRESSES:
                yield from _address(value)
    yield from _redundant(clause)
    if clause.attribute is Attribute.HEADER and "_" in clause.header:
        message = f"a request with the header {shown(clause.header)} is answered 400 before policy, for its underscore"
        yield Remark("RM0111", message, f"write the header with dashes: {shown(clause.header.replace('_', '-'))}")
    if clause.attribute is Attribute.REMOTE_IP and scene.is_configured and scene.settings.trusted_proxies == 0:
        message = (
            "policy.trusted_proxies is 0, so this is the address of the connection and x-forwarded-for is not read"
        )
        yield Remark("RM0112", message, "set policy.trusted_proxies, or write `ipBlocks`")


def _inner_star(attribute: Attribute, value: str) -> Iterator[Remark]:
    if attribute is Attribute.PATH and is_template(value):
        return
    inner = value[1:] if value.startswith("*") else value.removesuffix("*")
    if "*" in inner:
        hint = "in a path, {*} is one segment and {**} is any rest" if attribute is Attribute.PATH else ""
        message = f"the star inside {quoted(value)} is a plain character and matches only itself"
        yield Remark("RM0102", message, hint or "a star counts at one end only; write the values out")


def _path(value: str, mode: PathNormalization | None) -> Iterator[Remark]:
    if not value.startswith(("/", "*")):
        yield Remark(
            "RM0103", f"{quoted(value)} does not begin with / and matches no path", f"write {quoted('/' + value)}"
        )
    elif "?" in value or "#" in value:
        bare = value.partition("?")[0].partition("#")[0]
        message = f"{quoted(value)} holds a ? or #, which the compared path never does"
        yield Remark("RM0104", message, f"leave the query out: {quoted(bare)}")
    elif mode is not None and (instead := _not_normal(value, mode)) is not None:
        message = f"{quoted(value)} is not in normal form ({mode.value}), and paths are compared in it"
        yield Remark("RM0105", message, f"write {quoted(instead)}" if instead else "such a path is answered 400")
    if value.endswith("*") and len(value) > 1 and not value.startswith("*") and not value.endswith("/*"):
        bare, more = value[:-1], value[:-1] + "secret"
        hint = f"write {quoted(bare)} and {quoted(bare + '/*')} to stop at the slash"
        yield Remark("RM0101", f"{quoted(value)} also matches {quoted(more)}", hint)


def _not_normal(value: str, mode: PathNormalization) -> str | None:
    """Give the value in normal form if a path in normal form can never match it; "" if no path has that form."""
    literal = value.replace(ANY, "x").replace(ONE, "x") if is_template(value) else value
    # What a star stands for is text like any other, so a letter in its place shows whether the rest can be normal.
    before, after = ("/x", "") if literal.startswith("*") else ("", "x") if literal.endswith("*") else ("", "")
    star = "*" if before or after else ""
    core = literal.removeprefix("*") if before else literal[:-1] if after else literal
    whole = (before + core + after).encode("utf-8", "surrogateescape")
    try:
        normal = normalize_path(whole, mode)
    except ProtocolError:
        return ""
    if normal == whole:
        return None
    text = normal.decode("utf-8", "surrogateescape")
    if is_template(value) or not text.startswith(before) or not text.endswith(after):
        return ""
    return (star if before else "") + text[len(before) : len(text) - len(after)] + (star if after else "")


def _host(value: str, clause: Clause, action: Action) -> Iterator[Remark]:
    if "*" in value or ":" in value or {f"{value}:*", f"{value}*"} & set(clause.values):
        return
    # In a DENY `hosts`, and in an ALLOW `notHosts`, the forms that are left out are let through.
    if (action is Action.DENY) is not clause.negated:
        message = f"{quoted(value)} does not match the same host with a port, which is let through"
        yield Remark("RM0107", message, f"add {quoted(value + ':*')}")
    elif action is Action.ALLOW:
        yield Remark(
            "RM0108", f"{quoted(value)} does not match the same host with a port", f"add {quoted(value + ':*')}"
        )


def _address(value: str) -> Iterator[Remark]:
    if "/" in value:
        network = ipaddress.ip_network(value, strict=False)
        if network.network_address != ipaddress.ip_address(value.partition("/")[0]):
            yield Remark("RM0110", f"{quoted(value)} is the whole block {network}", f"write {network}, or one address")


def _redundant(clause: Clause) -> Iterator[Remark]:
    attribute, values = clause.attribute, clause.values
    if len(values) < 2:
        return
    seen: set[str] = set()
    wide = [value for value in dict.fromkeys(values) if "*" in value or "/" in value][:MAX_WIDE]
    is_covered = covering(attribute, wide)
    for value in values:
        if value in seen:
            yield Remark("RM0109", f"{quoted(value)} stands twice", "keep one of the two")
            continue
        seen.add(value)
        if not is_covered(value):
            continue
        for other in wide:
            # Of two values that cover each other (blocks written in two ways) the later one is named.
            if other == value or not covering(attribute, (other,))(value):
                continue
            if other in seen or not covering(attribute, (value,))(other):
                message = f"{quoted(value)} is covered by {quoted(other)} of the same list"
                yield Remark("RM0109", message, "leave it out")
                break
