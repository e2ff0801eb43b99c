"""The page that a person opens in a browser: everything at a glance, without a script.

Whatever is shown may have been chosen by an attacker: a path, a name in a certificate, a header. Three things stand
between him and the reader: `_text` escapes every text on its only way into the page, the Content-Security-Policy lets
nothing run and nothing be loaded, and no link leads anywhere but to pages of this listener.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from proxy.admin.words import Data, columns, is_table, sentences, title, word

REFRESH: Final = 10
"""Seconds after which the page loads itself again: recent enough to watch, and leaves time to read."""

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #59636e; --good: #1a7f37; --bad: #cf222e; --back: #fff;
  --card: #f6f8fa; --text: #1f2328; --link: #0969da }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #9198a1; --good: #3fb950; --bad: #f85149; --back: #0d1117; --card: #151b23;
    --text: #e6edf3; --link: #58a6ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem 1.5rem 3rem; max-width: 84rem; background: var(--back); color: var(--text);
  font: 14px/1.45 system-ui, sans-serif }
h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1rem; margin: 1.6rem 0 .4rem }
h2 a { font-weight: normal; font-size: .8rem; margin-left: .5rem }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .8rem }
header p { margin: 0; color: var(--soft); flex-basis: 100% }
.good, .bad { font-weight: 600; color: var(--good) }
.bad { color: var(--bad) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .6rem; margin: 1rem 0 0 }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .4rem .7rem }
dt { color: var(--soft); font-size: .78rem }
dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto;
  width: fit-content; min-width: min(36rem, 100%); max-width: 100%; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .82rem; font-variant-numeric: tabular-nums }
th { text-align: left; color: var(--soft); font-weight: 500; background: var(--card); white-space: nowrap }
th, td { padding: .28rem .6rem; vertical-align: top }
td { overflow-wrap: break-word; max-width: 26rem; border-top: 1px solid var(--line) }
.number { text-align: right }
td:first-child:not(.said) { white-space: nowrap }
td.said { border-top: 0; padding-top: 0; max-width: none; color: var(--soft) }
p.none { color: var(--soft); margin: .2rem 0 }
ul.faults { margin: .8rem 0 0; padding: .5rem .8rem .5rem 1.8rem; border: 1px solid var(--bad); border-radius: 6px }
footer { margin-top: 2rem; color: var(--soft); font-size: .8rem }
"""

_SPIFFE_IDS: Final = ("identity", "source", "destination", "peer")
"""Columns that hold a SPIFFE ID, which the reader knows to be one: shown without its scheme."""


def security_policy() -> str:
    """Give the Content-Security-Policy of the page: its own style and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def as_html(overview: Data, sections: Sequence[tuple[str, str, str]]) -> str:
    """Write the page. `sections` are the tables in order: key in `overview`, heading, path of the page with more."""
    identity, readiness = overview["identity"], overview["readiness"]
    ready = "good" if readiness["ready"] else "bad"
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="refresh" content="{REFRESH}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(identity['name'])} - Remora</title><style>{_STYLE}</style></head><body>\n",
        f"<header><h1>{_text(identity['name'])}</h1>",
        f'<span class="{ready}">{"ready" if readiness["ready"] else "not ready"}</span>',
        f"<p>{_text(identity['spiffe_id'])}</p></header>\n",
        *_faults(readiness),
        *_facts(overview["facts"]),
    ]
    for key, heading, path in sections:
        parts.append(f'<h2>{_text(heading)}<a href="{_text(path)}">more</a></h2>\n')
        rows = overview[key]
        parts += _table(rows) if is_table(rows) else ['<p class="none">none</p>\n']
    parts.append(f"<footer>{_text(overview['footer'])} This page loads itself again every {REFRESH} s.</footer>")
    parts.append("</body></html>\n")
    return "".join(parts)


def _text(value: Any) -> str:
    return html.escape(word("", value), quote=True)


def _faults(readiness: Mapping[str, Any]) -> Iterator[str]:
    told = [
        f"{what}: {name}: {sentence}"
        for what in ("missing", "rejected")
        for name, sentences_of in readiness[what].items()
        for sentence in sentences_of
    ]
    if told:
        yield '<ul class="faults">' + "".join(f"<li>{_text(line)}</li>" for line in told) + "</ul>\n"


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "<dl>"
    for key, value in facts.items():
        yield f"<div><dt>{_text(title(key))}</dt><dd>{html.escape(word(key, value))}</dd></div>"
    yield "</dl>\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    keys = columns(rows)
    heads = (f"<th{_number(rows[0].get(key))}>{_text(title(key))}</th>" for key in keys)
    yield '<div class="wide"><table><tr>' + "".join(heads) + "</tr>\n"
    for row in rows:
        yield "<tr>" + "".join(_cell(key, row.get(key)) for key in keys) + "</tr>\n"
        if told := "<br>".join(f"{_text(name)}: {_text(sentence)}" for name, sentence in sentences(row)):
            yield f'<tr><td class="said" colspan="{len(keys)}">{told}</td></tr>\n'
    yield "</table></div>\n"


def _cell(key: str, value: Any) -> str:
    shown = word(key, value)
    if key in _SPIFFE_IDS:
        shown = shown.removeprefix("spiffe://")
    text = html.escape(shown, quote=True)
    if key == "request_id" and value:
        return f'<td><a href="/decisions?request_id={quote(str(value), safe="", errors="replace")}">{text}</a></td>'
    if key in ("decision", "state"):
        return f'<td class="{"good" if value in ("allow", "ready") else "bad"}">{text}</td>'
    return f"<td{_number(value)}>{text}</td>"


def _number(value: Any) -> str:
    return ' class="number"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
