"""What pages show is escaped whatever a peer sent, in text, in HTML and in a terminal, and the examples run."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admin.html import as_html, security_policy
from proxy.admin.text import as_text
from proxy.admin.words import columns, duration, size, word
from proxy.status import render

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table></body><h1>owned",
    "&lt;b&gt; &#60;",
    "\x1b[2J\x1b]0;owned\x07",
    "\r\nforged: line",
    "\u202egnp.exe",
    "\udc80\ud800",
    "javascript:alert(1)",
)
ANY_TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=30)
SECTIONS = (("refusals", "Refused lately", "/decisions?decision=deny"), ("traffic", "Traffic", "/metrics"))


def overview(hostile: str = "/orders") -> dict[str, Any]:
    """An overview in which every text that somebody else chose is `hostile`."""
    refusal = {
        "at": "10:11:12",
        "direction": "inbound",
        "decision": "deny",
        "reason": "denied_by_policy",
        "status": 403,
        "method": "GET",
        "path": hostile,
        "peer": hostile,
        "rule": hostile,
        "request_id": hostile,
        "explanation": hostile,
        "nearest_miss": hostile,
        "detail": hostile,
    }
    return {
        "identity": {"name": hostile, "spiffe_id": hostile},
        "readiness": {"ready": False, "missing": {hostile: [hostile]}, "rejected": {"policy": [hostile, "b"]}},
        "facts": {
            "certificate_left_seconds": 90_000,
            "certificate_generation": 3,
            "policy_generation": 4,
            "policy_default": "deny",
            "policy_rules": 2,
            "policy_warnings": 1,
            "inbound_open": 5,
            "outbound_open": 6,
            "draining": False,
            "records_lost": 7,
            "up_seconds": 61,
            "process": 8,
        },
        "ports": [],
        "services": [{"name": hostile, "protocol": "http", "tls": "mutual", "endpoints": [hostile]}],
        "next_hops": [{"next_hop": hostile, "connections": 2, "busy": 1, "idle": 1, "waiting": 0}],
        "traffic": [
            {
                "direction": "inbound",
                "service": "",
                "peer": hostile,
                "requests": 4,
                "ok": 3,
                "4xx": 1,
                "5xx": 0,
                "tcp": 0,
            }
        ],
        "refused": [{"direction": "inbound", "what": "requests", "reason": "denied_by_policy", "count": 1}],
        "refusals": [refusal],
        "permits": [],
        "connections": [],
        "footer": "As of now.",
    }


class Seen(HTMLParser):
    """What a browser makes of a page: elements, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


PLAIN = Seen(as_html(overview(), SECTIONS))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(hostile=ANY_TEXT)
def test_no_text_becomes_an_element_or_an_attribute(hostile: str) -> None:
    page = as_html(overview(hostile), SECTIONS)
    seen = Seen(page)
    page.encode()
    assert set(seen.tags) <= set(PLAIN.tags)
    assert len(seen.tags) <= len(PLAIN.tags)
    assert {name for name, _ in seen.attributes} <= {name for name, _ in PLAIN.attributes}
    links = [value for name, value in seen.attributes if name == "href"]
    assert all(re.fullmatch(r"/[a-z]+(\?[a-z_]+=[A-Za-z0-9%._~-]*)?", value or "") for value in links), links


@settings(derandomize=True, deadline=None, max_examples=300)
@given(hostile=ANY_TEXT, width=st.integers(20, 200), coloured=st.booleans())
def test_no_text_drives_a_terminal(hostile: str, width: int, coloured: bool) -> None:
    data = overview(hostile)
    shown = render(data, width, coloured=coloured)
    for text in (as_text(data), re.sub(r"\x1b\[\d+m", "", shown)):
        assert all(line.isprintable() for line in text.split("\n"))
        text.encode()
    if not coloured:
        assert "\x1b" not in shown


def test_what_is_hostile_is_still_told() -> None:
    data = overview("<script>alert(1)</script>")
    page = as_html(data, SECTIONS)
    assert "<script" not in page
    assert "<script>alert(1)</script>" in Seen(page).text
    assert "<script>alert(1)</script>" in as_text(data)
    assert json.loads(json.dumps(data)) == data


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    assert not {"script", "link", "img", "iframe", "form", "object"} & set(PLAIN.tags)
    assert not [name for name, _ in PLAIN.attributes if name in ("src", "style") or name.startswith("on")]
    assert security_policy().startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in security_policy()


def test_empty_columns_are_left_out_and_sentences_stand_below() -> None:
    rows = [{"a": 1, "b": "", "detail": "why"}, {"a": 2, "c": None, "d": "x"}]
    assert columns(rows) == ["a", "d"]
    assert as_text({"rows": rows}) == "rows\n  a  d\n  1  -\n      detail: why\n  2  x\n"


def test_a_long_value_pushes_its_own_row_only() -> None:
    lines = as_text({"rows": [{"a": "x" * 200, "b": "1"}, {"a": "y", "b": "2"}]}).splitlines()
    assert lines[3] == "  y  2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (9.94, "9.9 s"), (60, "1 min"), (3_600, "1 h"), (86_400, "1 d"), (86_461, "1 d"), (-5, "5 s ago")],
)
def test_a_span_of_time_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_words() -> None:
    assert [size(count) for count in (0, 1023, 1024, 150_000, 5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "146 KiB",
        "5120 GiB",
    ]
    assert [word("x", value) for value in (None, "", [], False, 0, 1234567)] == ["-", "-", "-", "no", "0", "1234567"]


@pytest.mark.parametrize("module", ["proxy.admin.words", "proxy.admin.text", "proxy.admin.guard", "proxy.status"])
def test_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
