"""What is read and written without a socket: metrics beside ours, the messages of a gRPC health check."""

from __future__ import annotations

import pytest

from proxy.application.ask import AskError, health_request, health_status
from proxy.application.metrics_text import beside_ours, up


def test_the_applications_lines_stand_beside_ours() -> None:
    text = b'# HELP a one\n# TYPE a counter\na{x="y"} 1\n\n  b 2 \r\n'
    assert beside_ours(text) == b'# HELP a one\n# TYPE a counter\na{x="y"} 1\nb 2\n'


@pytest.mark.parametrize(
    "line",
    [
        b"istio_requests_total 5",
        b"# TYPE istio_requests_total counter",
        b"# HELP remora_ready x",
        b'remora_ready{a="b"} 1',
        b"  remora_ready 1",
    ],
)
def test_nobody_else_writes_the_sidecars_metrics(line: bytes) -> None:
    assert beside_ours(b"a 1\n" + line + b"\nb 2") == b"a 1\nb 2\n"


def test_the_end_of_openmetrics_and_what_is_no_line_are_left_out() -> None:
    assert beside_ours(b"a 1\n# EOF\n<html>\n# a comment\n") == b"a 1\n# a comment\n"


def test_the_gauge_says_whether_they_could_be_had() -> None:
    assert up(True).endswith(b"remora_application_metrics_up 1\n")
    assert up(False).endswith(b"remora_application_metrics_up 0\n")


def test_a_health_request_names_the_service() -> None:
    assert health_request("a.B") == b"\0\0\0\0\x05\x0a\x03a.B"
    long = health_request("x" * 200)
    assert long[5:8] == b"\x0a\xc8\x01"
    assert int.from_bytes(long[1:5], "big") == len(long) - 5


@pytest.mark.parametrize(("message", "status"), [(b"", 0), (b"\x08\x01", 1), (b"\x08\x02", 2)])
def test_a_health_response_is_read(message: bytes, status: int) -> None:
    assert health_status(b"\0" + len(message).to_bytes(4, "big") + message) == status


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\x05\x08\x01", b"\0\0\0\0\x02\x10\x01", b"\0\0\0\0\x02\x08\xff"]
)
def test_what_is_no_health_response_is_refused(body: bytes) -> None:
    with pytest.raises(AskError):
        health_status(body)
