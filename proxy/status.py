"""The command `remora status`: what a running sidecar says of itself, in a terminal.

It asks the admin listener for its overview. Exit codes: 0 shown, 1 nobody answers there, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.admin.words import columns, duration, sentences, title, word
from proxy.admin_client import DEFAULT_ADMIN, AdminError, ask_admin, parse_admin, place_of
from proxy.config import Address
from proxy.config_text import TextError

_LAST: Final = 5
"""Decisions that are shown: what happened a moment ago, on a screen that holds the rest as well."""

_NOTHING: Final = (None, "", "-")

_GREEN, _RED, _BOLD, _DIM = "32", "31", "1", "2"


def main(argv: Sequence[str]) -> int:
    """Run `remora status` with the words after it; return the exit code."""
    parser = argparse.ArgumentParser(prog="remora status", description="Show what a running sidecar does.")
    parser.add_argument(
        "--admin",
        metavar="ADDR",
        default=DEFAULT_ADMIN,
        help=f"its admin listener, HOST:PORT or unix:PATH; default: {DEFAULT_ADMIN}",
    )
    parser.add_argument("--json", action="store_true", help="show everything, as JSON")
    options = parser.parse_args(argv)
    try:
        where = parse_admin(options.admin)
    except TextError as failure:
        parser.error(f"--admin: {failure}; {failure.hint}" if failure.hint else f"--admin: {failure}")
    try:
        data = _ask(where)
    except AdminError as failure:
        sys.stderr.write(f"remora status: {failure}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
        return 0
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    sys.stdout.write(render(data, shutil.get_terminal_size((100, 24)).columns, coloured=coloured))
    return 0


# --- asking ---


def _ask(where: Address | str) -> dict[str, Any]:
    answer = ask_admin(where, "/?format=json")
    if answer.status == 200:
        try:
            data = json.loads(answer.body)
            if isinstance(data, dict) and "facts" in data:
                return data
        except ValueError:
            pass
    raise AdminError(f"what answers on {place_of(where)} is no admin listener of Remora (status {answer.status})")


# --- showing ---


def render(data: Mapping[str, Any], width: int, *, coloured: bool = False) -> str:
    """Write the overview for a terminal of `width` columns."""
    return "".join(line.rstrip() + "\n" for line in _Screen(max(width, 60), coloured).lines(data))


class _Screen:
    """A terminal of a width, with or without colour."""

    def __init__(self, width: int, coloured: bool) -> None:
        self._width = width
        self._coloured = coloured

    def lines(self, data: Mapping[str, Any]) -> Iterator[str]:
        yield from self._head(data)
        yield from self._section("services", _picked(data["services"], "name", "protocol", "tls", "endpoints"))
        hops = _picked(data["next_hops"], "next_hop", "connections", "busy", "idle", "waiting")
        yield from self._section("connections to next hops", hops)
        peers = _picked(data["traffic"], "direction", "service", "peer", "requests", "ok", "4xx", "5xx", "tcp")
        yield from self._section("traffic by peer", peers)
        yield from self._section("refused since the start", data["refused"])
        yield from self._decisions("refused lately", data["refusals"])
        yield ""
        yield from textwrap.wrap(word("", data["footer"]), self._width)

    def _head(self, data: Mapping[str, Any]) -> Iterator[str]:
        identity, readiness, facts = data["identity"], data["readiness"], data["facts"]
        ready = self._paint("ready", _GREEN) if readiness["ready"] else self._paint("not ready", _RED)
        yield f"{self._paint(word('', identity['name']), _BOLD)}  {ready}"
        yield word("", identity["spiffe_id"])
        yield ""
        left = facts["certificate_left_seconds"]
        time_left = "none" if left is None else f"{duration(left)} left" if left >= 0 else f"ended {duration(left)}"
        warnings, rules = facts["policy_warnings"], facts["policy_rules"]
        rows = {
            "certificate": f"{time_left}, generation {facts['certificate_generation']}",
            "policy": f"generation {facts['policy_generation']}, {_count(rules, 'rule')}, "
            f"default {facts['policy_default']}"
            + (f", {_count(warnings, 'warning')} (see /policy)" if warnings else ""),
            "open": f"{facts['inbound_open']} inbound, {facts['outbound_open']} outbound",
            "up": f"{duration(facts['up_seconds'])}, process {facts['process']}",
        }
        if facts.get("workers") is not None:
            rows["workers"] = str(facts["workers"])
            if missing := facts.get("workers_without_answer"):
                rows["workers"] += f", without an answer: {word('', missing)}"
        if facts["records_lost"]:
            rows["access log"] = f"{_count(facts['records_lost'], 'record')} lost"
        for name, text in rows.items():
            yield f"{name:<12} {word('', text)}"
        for what in ("missing", "rejected"):
            for name, told in readiness[what].items():
                for sentence in told:
                    text = word("", f"{what}: {name}: {sentence}")
                    wrapped = textwrap.wrap(text, self._width, subsequent_indent="  ", break_on_hyphens=False)
                    yield from (self._paint(line, _RED) for line in wrapped)

    def _section(self, heading: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        if not rows:
            return
        yield ""
        yield self._paint(heading, _BOLD)
        keys = columns(rows)
        cells = [[title(key) for key in keys], *([_short(word(key, row.get(key))) for key in keys] for row in rows)]
        widths = _fitted([max(len(row[i]) for row in cells) for i in range(len(keys))], self._width - 2)
        numeric = [all(isinstance(row.get(key), int | float) for row in rows) for key in keys]
        for number, row in enumerate(cells):
            texts = (
                _middle(text, size).rjust(size) if right else _middle(text, size).ljust(size)
                for text, size, right in zip(row, widths, numeric, strict=True)
            )
            line = "  " + "  ".join(texts).rstrip()
            yield line if number else self._paint(line, _DIM)

    def _decisions(self, heading: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        if not rows:
            return
        yield ""
        yield self._paint(heading, _BOLD)
        for row in rows[:_LAST]:
            what = " ".join(word("", row[key]) for key in ("status", "method", "path") if row[key] not in _NOTHING)
            line = f"  {word('', row['at'])}  {word('', row['reason'])}  {what}"
            yield self._paint(_middle(line, self._width), _RED)
            for key in ("peer", "request_id"):
                if row[key]:
                    yield "    " + _middle(f"{title(key)}: {_short(word('', row[key]))}", self._width - 4)
            for name, sentence in sentences(row):
                yield from textwrap.wrap(
                    f"{name}: {sentence}",
                    self._width,
                    initial_indent="    ",
                    subsequent_indent="      ",
                    break_on_hyphens=False,
                )

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _picked(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: row.get(key) for key in keys} for row in rows]


def _short(text: str) -> str:
    """Leave out the scheme of identities: everybody here has one."""
    return text.replace("spiffe://", "")


def _fitted(widths: list[int], room: int) -> list[int]:
    """Narrow the widest columns until all fit, two spaces between them."""
    room -= 2 * (len(widths) - 1)
    widths = list(widths)
    while sum(widths) > room and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    return widths


def _middle(text: str, room: int) -> str:
    """Cut text in its middle: of an identity or a path, both ends say more.

    >>> _middle("cluster.local/ns/demo/sa/web", 16)
    'cluster...sa/web'
    """
    if len(text) <= room:
        return text
    begin = (room - 3 + 1) // 2
    return f"{text[:begin]}...{text[len(text) - (room - 3 - begin) :]}"
