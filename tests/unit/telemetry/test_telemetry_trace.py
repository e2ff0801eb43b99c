"""Request and trace identifiers: passed on, made, replaced, and always well-formed."""

from __future__ import annotations

import re
import uuid

import pytest

from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import write_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.telemetry.trace import identifiers, new_request_id, new_traceparent


def head(*fields: bytes) -> RequestHead:
    lines = b"".join(field + b"\r\n" for field in fields)
    return parse_request_head(
        b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % lines,
        limits=HeadLimits(),
        normalization=PathNormalization.BASE,
        stream=1,
    )


def test_a_request_id_is_a_random_uuid() -> None:
    made = {new_request_id() for _ in range(1_000)}
    assert len(made) == 1_000
    for text in made:
        parsed = uuid.UUID(text)
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122
        assert str(parsed) == text


def test_a_traceparent_is_well_formed_and_never_zero() -> None:
    for _ in range(1_000):
        found = re.fullmatch(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-00", new_traceparent())
        assert found is not None
        assert int(found[1], 16)
        assert int(found[2], 16)


def test_what_a_request_lacks_is_made() -> None:
    request_id, lines = identifiers(head())
    assert lines.startswith(b"x-request-id: %b\r\ntraceparent: 00-" % request_id.encode())
    assert lines.endswith(b"\r\n")
    assert lines.count(b"\r\n") == 2


def test_what_a_request_has_is_passed_on() -> None:
    request = head(b"X-Request-Id: their-own", b"traceparent: 00-%032x-%016x-01" % (1, 1))
    assert identifiers(request) == ("their-own", b"")
    assert b"their-own" in write_request_head(request, strip_reserved=True)


@pytest.mark.parametrize("field", [b"b3: 0", b"x-b3-traceid: 463ac35c9f6413ad48485a3953bb6124"])
def test_b3_is_a_trace_too(field: bytes) -> None:
    _, lines = identifiers(head(field))
    assert b"traceparent" not in lines


def test_a_request_id_of_128_bytes_is_passed_on_and_a_longer_one_replaced() -> None:
    assert identifiers(head(b"x-request-id: " + b"x" * 128))[0] == "x" * 128
    request = head(b"x-request-id: " + b"x" * 129)
    made, lines = identifiers(request)
    assert uuid.UUID(made).version == 4
    assert b"xxx" not in write_request_head(request, extra=lines, strip_reserved=True)


@pytest.mark.parametrize(
    "fields",
    [
        (b"x-request-id: one", b"x-request-id: two"),
        (b"x-request-id: ", b"x-request-id: two"),
        (b"x-request-id: one", b"x-request-id: "),
        (b"x-request-id:",),
    ],
)
def test_a_request_id_that_is_there_twice_or_empty_is_replaced_by_one(fields: tuple[bytes, ...]) -> None:
    request = head(*fields)
    made, lines = identifiers(request)
    assert uuid.UUID(made).version == 4
    out = write_request_head(request, extra=lines, strip_reserved=True)
    assert out.count(b"x-request-id") == 1
    assert made.encode() in out
