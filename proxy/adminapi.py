"""The admin listener's pages and actions: each path joined to what makes its answer.

    GET   /  /config /connections /certificates /readyz /decisions /explain /services /policy /loglevel
    POST  /loglevel?level=LEVEL  /drain  /quitquitquit          (with the header X-Remora-Admin: true)

Pages come as text; as JSON with `?format=json` or `Accept: application/json`; and `/` as HTML to a browser.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from proxy import overview
from proxy.admin import guard, topics
from proxy.admin.pages import PageText, Readiness, readyz
from proxy.admin.text import as_text
from proxy.admin.words import Data
from proxy.errors import ConfigError
from proxy.policy.snapshot import NO_RULE
from proxy.runtime.pages import Page, PageRequest
from proxy.sidecar import Sidecar
from proxy.telemetry.decisions_log import WINDOW, Decision
from proxy.view import Explained, View

LEVELS: Final = ("debug", "info", "warning", "error")

_SECTIONS: Final = (
    ("refusals", "Refused lately", "/decisions?decision=deny"),
    ("refused", "Refused since the start, by reason", "/decisions"),
    ("traffic", "Traffic by peer", "/metrics"),
    ("permits", "Permitted lately", "/decisions?decision=allow"),
    ("connections", "Open connections, the oldest first", "/connections"),
    ("ports", "Ports", "/config"),
    ("services", "Services", "/services"),
    ("next_hops", "Connections to next hops", "/services"),
)
_FORMATS: Final = ("text", "json", "html")
_UNREAD: Final = ("footer",)

EXPLAINED: Final = 10
"""Decisions with one request id that are explained: ids are the caller's to choose, and each may cost milliseconds."""

_log = logging.getLogger("remora")


class AdminApi:
    """Pages and actions of one sidecar. `drain` and `end` do what /drain and /quitquitquit promise."""

    def __init__(
        self,
        sidecar: Sidecar,
        readiness: Readiness,
        *,
        view: View,
        started_at: float,
        drain: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """`started_at` is when the process began, in seconds since the epoch."""
        self._sidecar = sidecar
        self._view = view
        self._readiness = readiness
        self._drain = drain
        self._end = end
        self._started_at = started_at

    def pages(self) -> Mapping[str, Callable[[PageRequest], Page]]:
        """Give the pages, by path."""
        return {
            "/": self._overview,
            "/config": lambda request: _shown(request, topics.configuration(self._sidecar.config)),
            "/connections": self._connections,
            "/certificates": self._certificates,
            "/readyz": self._readyz,
            "/decisions": self._decisions,
            "/explain": self._explain,
            "/services": self._services,
            "/policy": lambda request: _shown(request, topics.policy(self._sidecar.policy)),
            "/loglevel": lambda request: _shown(request, _level()),
        }

    def actions(self) -> Mapping[str, Callable[[PageRequest], Page]]:
        """Give what POST does, by path."""
        return {"/loglevel": self._set_level, "/drain": self._begin_drain, "/quitquitquit": self._quit}

    # --- pages ---

    def _overview(self, request: PageRequest) -> Page:
        data = overview.overview(self._sidecar, self._readiness, self._view, self._started_at)
        chosen = _format(request)
        if chosen == "html" or (not chosen and "text/html" in request.headers.get("accept", "")):
            # Imported when somebody looks: it is 0.4 MiB of an idle process.
            from proxy.admin.html import as_html, security_policy

            return Page(
                content_type="text/html; charset=utf-8",
                body=as_html(data, _SECTIONS).encode(),
                headers={"content-security-policy": security_policy(), "referrer-policy": "no-referrer"},
            )
        return _shown(request, data)

    def _connections(self, request: PageRequest) -> Page:
        count, rows = self._view.connections(time.time())
        return _shown(request, {"open": count, "connections": rows})

    def _certificates(self, request: PageRequest) -> Page:
        tls = self._sidecar.tls
        identity_set = tls.identity_set if tls is not None else None
        return _shown(request, topics.certificates(identity_set, self._sidecar.tls_generation, time.time()))

    def _readyz(self, request: PageRequest) -> Page:
        text = readyz(self._readiness, detail=True)
        if _format(request) != "json":
            return _page(text)
        return _json(topics.readiness(self._readiness), status=text.status)

    def _decisions(self, request: PageRequest) -> Page:
        found = self._view.decisions(time.time())
        request_id, decision = request.query.get("request_id"), request.query.get("decision")
        if request_id is not None:
            found = [each for each in found if each.request_id == request_id]
        if decision is not None:
            found = [each for each in found if each.decision == decision]
        status = 404 if request_id is not None and not found else 200
        count, rows = overview.some([overview.whole(each) for each in found])
        reports = [self._view.explained(each) for each in found[:EXPLAINED]] if request_id else []
        if _format(request) == "json":
            for row, report in zip(rows, reports, strict=False):
                row["explained"] = report[0] if report is not None else None
            return _json({"count": count, "decisions": rows}, status=status)
        if status == 404:
            return _text(f"no decision of the last {WINDOW / 60:g} minutes has this request id", status=404)
        if request_id is not None:
            told = [f"\n{report[1]}" if report is not None else "" for report in reports]
            told += [""] * (len(rows) - len(told))
            return _text("\n".join(as_text(row) + why for row, why in zip(rows, told, strict=True)).rstrip("\n"))
        return _text(as_text({"count": count, "decisions": [overview.brief(each) for each in found[: len(rows)]]}))

    def _explain(self, request: PageRequest) -> Page:
        # Imported when somebody asks: it is 0.7 MiB of an idle process.
        from proxy import explained
        from proxy.answers.told import as_json
        from proxy.answers.told import as_text as report_as_text

        sidecar, text, request_id = self._sidecar, request.query.get("question"), request.query.get("request_id")
        if (text is None) is (request_id is None):
            return _text("ask with /explain?question={...} or /explain?request_id=ID", status=400)
        if sidecar.policy is None:
            return _text("no valid policy set has been loaded yet; /readyz says what is missing", status=503)
        told: Explained | None
        if text is not None:
            try:
                report = explained.of_question(sidecar, sidecar.policy, text, time.time())
            except ConfigError as failure:
                return _text("\n".join(map(str, failure.faults)), status=400)
            told = as_json(report), report_as_text(report)
        else:
            found = [each for each in self._view.decisions(time.time()) if each.request_id == request_id]
            if not found:
                return _text(f"no decision of the last {WINDOW / 60:g} minutes has this request id", status=404)
            asked_about = to_explain(found)
            told = self._view.explained(asked_about)
            if told is None:
                told = _record_only(asked_about), as_text(overview.whole(asked_about))
        return _json(told[0]) if _format(request) == "json" else _text(told[1])

    def _services(self, request: PageRequest) -> Page:
        sidecar = self._sidecar
        return _shown(
            request,
            {
                "ports": overview.ports(sidecar),
                "services": overview.services(sidecar),
                "next_hops": overview.next_hops(self._view),
            },
        )

    # --- actions ---

    def _set_level(self, request: PageRequest) -> Page:
        level = request.query.get("level", request.body.decode("latin-1").strip().removeprefix("level=")).lower()
        if level not in LEVELS:
            return _text(f"the level is one of {', '.join(LEVELS)}: POST /loglevel?level=debug", status=400)
        logging.getLogger("remora").setLevel(level.upper())
        _log.warning("log level %s, by the admin listener", level)
        return _shown(request, _level())

    def _begin_drain(self, request: PageRequest) -> Page:
        self._drain()
        counts = {f"{direction}_open": self._view.open_count(direction) for direction in ("inbound", "outbound")}
        return _shown(request, {"draining": True, **counts})

    def _quit(self, request: PageRequest) -> Page:
        _log.warning("asked to end, by the admin listener")
        self._end()
        return _shown(request, {"ending": True})


def guard_of(*, unix: bool) -> Callable[[PageRequest], Page | None]:
    """Give what refuses a request that a stranger's page in a browser could have sent; `unix`: on a unix socket."""

    def refuse(request: PageRequest) -> Page | None:
        text = guard.refusal(method=request.method, headers=request.headers, unix=unix)
        return _page(text) if text is not None else None

    return refuse


def to_explain(found: Sequence[Decision]) -> Decision:
    """Choose of decisions with one request id: a caller may send it several times, and asks about what was denied."""
    return next((each for each in found if each.decision == "deny"), found[0])


def _record_only(decision: Decision) -> Data:
    """Give a decision of which nothing beyond its record is known in the form of an explanation."""
    return {
        "decision": "allow" if decision.decision == "allow" else "deny",
        "policy": None,
        "rule": decision.rule or NO_RULE,
        "path": {"sent": decision.path, "judged": decision.path, "steps": []} if decision.path else None,
        "nearest_miss": None,
        "reason": decision.reason,
        "explanation": decision.explanation or decision.detail or None,
        "record": overview.whole(decision),
    }


def _level() -> Data:
    return {"level": logging.getLevelName(logging.getLogger("remora").getEffectiveLevel()).lower()}


def _format(request: PageRequest) -> str:
    """Say which form was asked for, "" when none was."""
    wanted = request.query.get("format", "")
    if wanted in _FORMATS:
        return wanted
    return "json" if "application/json" in request.headers.get("accept", "") else ""


def _shown(request: PageRequest, data: Data) -> Page:
    if _format(request) == "json":
        return _json(data)
    return _text(as_text({key: value for key, value in data.items() if key not in _UNREAD}))


def _json(data: Data, *, status: int = 200) -> Page:
    return Page(status=status, content_type="application/json", body=f"{json.dumps(data, indent=2)}\n".encode())


def _text(text: str, *, status: int = 200) -> Page:
    body = text if text.endswith("\n") else f"{text}\n"
    return Page(status=status, body=body.encode("utf-8", "backslashreplace"))


def _page(text: PageText) -> Page:
    return Page(status=text.status, content_type=text.content_type, body=text.body)
