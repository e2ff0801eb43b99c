"""The admin listener's pages and actions: each path joined to what makes its answer.

    GET   /  /config /connections /certificates /readyz /decisions /services /policy /loglevel
    POST  /loglevel?level=LEVEL  /drain  /quitquitquit          (with the header X-Remora-Admin: true)

Pages come as text; as JSON with `?format=json` or `Accept: application/json`; and `/` as HTML to a browser.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from proxy import overview
from proxy.admin import guard, topics
from proxy.admin.html import as_html, security_policy
from proxy.admin.pages import PageText, Readiness, readyz
from proxy.admin.text import as_text
from proxy.admin.words import Data
from proxy.runtime.pages import Page, PageMaker, PageRequest
from proxy.sidecar import Sidecar
from proxy.telemetry.decisions_log import WINDOW

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

_log = logging.getLogger("remora")


class AdminApi:
    """Pages and actions of one sidecar. `drain` and `end` do what /drain and /quitquitquit promise."""

    def __init__(
        self,
        sidecar: Sidecar,
        readiness: Readiness,
        *,
        unix: bool,
        drain: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """`unix` says that the listener is a unix socket."""
        self._sidecar = sidecar
        self._readiness = readiness
        self._unix = unix
        self._drain = drain
        self._end = end
        self._started_at = time.time()

    def guard(self, request: PageRequest) -> Page | None:
        """Refuse what a stranger's page in a browser could have sent."""
        text = guard.refusal(method=request.method, headers=request.headers, unix=self._unix)
        return _page(text) if text is not None else None

    def pages(self) -> Mapping[str, PageMaker]:
        """Give the pages, by path."""
        return {
            "/": self._overview,
            "/config": lambda request: _shown(request, topics.configuration(self._sidecar.config)),
            "/connections": self._connections,
            "/certificates": self._certificates,
            "/readyz": self._readyz,
            "/decisions": self._decisions,
            "/services": self._services,
            "/policy": lambda request: _shown(request, topics.policy(self._sidecar.policy)),
            "/loglevel": lambda request: _shown(request, _level()),
        }

    def actions(self) -> Mapping[str, PageMaker]:
        """Give what POST does, by path."""
        return {"/loglevel": self._set_level, "/drain": self._begin_drain, "/quitquitquit": self._quit}

    # --- pages ---

    def _overview(self, request: PageRequest) -> Page:
        data = overview.overview(self._sidecar, self._readiness, self._started_at)
        chosen = _format(request)
        if chosen == "html" or (not chosen and "text/html" in request.headers.get("accept", "")):
            return Page(
                content_type="text/html; charset=utf-8",
                body=as_html(data, _SECTIONS).encode(),
                headers={"content-security-policy": security_policy(), "referrer-policy": "no-referrer"},
            )
        return _shown(request, data)

    def _connections(self, request: PageRequest) -> Page:
        count, rows = overview.some(overview.connections(self._sidecar, time.time()))
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
        found = overview.decisions(self._sidecar, time.time())
        request_id, decision = request.query.get("request_id"), request.query.get("decision")
        if request_id is not None:
            found = [each for each in found if each.request_id == request_id]
        if decision is not None:
            found = [each for each in found if each.decision == decision]
        status = 404 if request_id is not None and not found else 200
        count, rows = overview.some([overview.whole(each) for each in found])
        if _format(request) == "json":
            return _json({"count": count, "decisions": rows}, status=status)
        if status == 404:
            return _text(f"no decision of the last {WINDOW / 60:g} minutes has this request id", status=404)
        if request_id is not None:
            return _text("\n".join(as_text(row) for row in rows).rstrip("\n"))
        return _text(as_text({"count": count, "decisions": [overview.brief(each) for each in found[: len(rows)]]}))

    def _services(self, request: PageRequest) -> Page:
        sidecar = self._sidecar
        return _shown(
            request,
            {
                "ports": overview.ports(sidecar),
                "services": overview.services(sidecar),
                "next_hops": overview.next_hops(sidecar),
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
        registry = self._sidecar.registry
        count = registry.count("inbound")
        return _shown(request, {"draining": True, "inbound_open": count, "outbound_open": registry.count("outbound")})

    def _quit(self, request: PageRequest) -> Page:
        _log.warning("asked to end, by the admin listener")
        self._end()
        return _shown(request, {"ending": True})


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
