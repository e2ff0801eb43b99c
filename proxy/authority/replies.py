"""Turns what is asked of a listener into questions for `certs.service`, and answers into pages; policy comes first."""

from __future__ import annotations

import datetime
import email.utils
import time
from typing import Final

from certs.caller import Caller
from certs.service import Answer, Moment, Service
from proxy.admin.pages import PageText
from proxy.authority.gatekeeper import Gatekeeper
from proxy.https.door import Origin
from proxy.runtime.pages import Page, PageRequest
from proxy.types import RequestAttributes

SIGN: Final = "/v1/sign"


class Replies:
    """The pages of the authority, for every listener that came by a Door."""

    def __init__(self, service: Service, gatekeeper: Gatekeeper) -> None:
        self._service = service
        self._gatekeeper = gatekeeper

    async def sign(self, request: PageRequest) -> Page:
        """Answer `POST /v1/sign`."""
        origin = _origin(request)
        answer = await self._service.sign(
            request.body, origin.connection, lambda caller: self._denial(request, origin, caller), _moment()
        )
        return _page(answer)

    def oversize(self, request: PageRequest) -> Page:
        """Answer a request whose body is too large; one for a certificate leaves its audit line."""
        if request.path != SIGN:
            return Page(status=413, body=b"nothing here takes so much\n")
        return _page(self._service.too_large(_origin(request).connection, _moment()))

    def bundle(self, request: PageRequest) -> Page:
        """Answer `GET /v1/bundle`."""
        origin, moment = _origin(request), _moment()
        refused = self._refused(request, origin, moment)
        if refused is not None:
            return refused
        etags = request.headers.get("if-none-match")
        return _page(self._service.bundle(origin.connection, request.query, etags, moment))

    def crl(self, request: PageRequest) -> Page:
        """Answer `GET /v1/crl`."""
        refused = self._refused(request, _origin(request), _moment())
        return refused or _page(self._service.crl(request.headers.get("if-none-match")))

    def _refused(self, request: PageRequest, origin: Origin, moment: Moment) -> Page | None:
        crowded = self._service.crowded(origin.connection, moment)
        if crowded is not None:
            return _page(crowded)
        denied = self._denial(request, origin, None)
        return None if denied is None else _page(self._service.deny(denied, origin.connection, moment))

    def _denial(self, request: PageRequest, origin: Origin, caller: Caller | None) -> str | None:
        asked = RequestAttributes(
            method=request.method,
            path=request.path,
            host=request.headers.get("host", ""),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        )
        return self._gatekeeper.denial(origin.attributes, asked, caller)


def text_page(text: PageText) -> Page:
    """Put a text on the wire."""
    return Page(status=text.status, content_type=text.content_type, body=text.body)


def _page(answer: Answer) -> Page:
    # RFC 9110 section 6.6.1: a caller whose clock is off can see by how much.
    headers = {**answer.headers, "date": email.utils.format_datetime(_now(), usegmt=True)}
    return Page(status=answer.status, content_type=answer.content_type, body=answer.body, headers=headers)


def _origin(request: PageRequest) -> Origin:
    if not isinstance(request.origin, Origin):
        raise TypeError("a request came by a connection that nobody admitted")
    return request.origin


def _moment() -> Moment:
    return Moment(now=_now(), ticks=time.monotonic())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
