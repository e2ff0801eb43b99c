"""The second parser's veto: a head that h11 refuses or reads otherwise is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol import referee
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.referee import agree_on_request, agree_on_response
from proxy.protocol.stream import CHUNKED, Field, HeadLimits, Kind

LIMITS = HeadLimits()
REQUEST = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
OTHER_FIELDS = [Field(b"host", b"h", b"Host: h\r\n", Kind.FRAMING)]


@pytest.mark.parametrize(
    "misreading",
    [
        {"method": b"GET"},
        {"target": b"/b"},
        {"version": b"1.0"},
        {"fields": OTHER_FIELDS},
        {"content_length": 0},
    ],
)
def test_a_request_read_otherwise(misreading: dict[str, Any]) -> None:
    parsed = parse_request_head(REQUEST, limits=LIMITS, normalization=PathNormalization.BASE)
    agree_on_request(REQUEST, parsed)
    with pytest.raises(ProtocolError, match="differently") as refusal:
        agree_on_request(REQUEST, dataclasses.replace(parsed, **misreading))
    assert refusal.value.reason is Reason.HEADER_INVALID


def test_a_request_that_only_the_second_parser_refuses() -> None:
    parsed = parse_request_head(REQUEST, limits=LIMITS, normalization=PathNormalization.BASE)
    with pytest.raises(ProtocolError, match="second parser refuses"):
        agree_on_request(REQUEST.replace(b"Chunked", b"gzip"), parsed)


@pytest.mark.parametrize(
    "misreading",
    [
        {"status": 201},
        {"reason_phrase": b"Fine"},
        {"version": b"1.0"},
        {"fields": OTHER_FIELDS},
        {"content_length": 0},
    ],
)
def test_an_answer_read_otherwise(misreading: dict[str, Any]) -> None:
    parsed = parse_response_head(RESPONSE, request_method=b"GET", limits=LIMITS)
    agree_on_response(RESPONSE, parsed, b"GET")
    with pytest.raises(ProtocolError, match="differently") as refusal:
        agree_on_response(RESPONSE, dataclasses.replace(parsed, **misreading), b"GET")
    assert (refusal.value.reason, refusal.value.side) == (Reason.UPSTREAM_RESPONSE_INVALID, "upstream")


def test_an_answer_that_only_the_second_parser_refuses() -> None:
    parsed = parse_response_head(RESPONSE, request_method=b"GET", limits=LIMITS)
    with pytest.raises(ProtocolError, match="second parser refuses"):
        agree_on_response(RESPONSE.replace(b"5", b"five"), parsed, b"GET")


def test_the_answer_to_head_has_no_body_for_either() -> None:
    parsed = parse_response_head(RESPONSE, request_method=b"HEAD", limits=LIMITS)
    with pytest.raises(ProtocolError, match="differently"):
        agree_on_response(RESPONSE, dataclasses.replace(parsed, content_length=CHUNKED), b"HEAD")


def test_the_gate_asks_for_the_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    def veto(*_: object) -> None:
        raise ProtocolError("no", Reason.HEADER_INVALID)

    monkeypatch.setattr(referee, "agree_on_request", veto)
    monkeypatch.setattr(referee, "agree_on_response", veto)
    with pytest.raises(ProtocolError):
        parse_request_head(REQUEST, limits=LIMITS, normalization=PathNormalization.BASE)
    with pytest.raises(ProtocolError):
        parse_response_head(RESPONSE, request_method=b"GET", limits=LIMITS)
