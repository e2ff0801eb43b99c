"""Access logs are read whole line by whole line, and say who called whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_samples import access, empty_logs, line, spiffe

from demo.records import AccessLogs, parse_access


def test_a_request_that_was_allowed() -> None:
    access = parse_access("orders", line())
    assert (access.what, access.status, access.allowed) == ("GET /orders/7", 200, True)
    assert access.hop == "ns/shop/sa/web → ns/shop/sa/orders"
    assert access.telling


def test_a_refused_handshake_gives_its_own_reason() -> None:
    refused = line(
        kind="connection",
        method=None,
        path=None,
        protocol="TCP",
        response_code=0,
        source_principal=None,
        decision="none",
        policy=None,
        reason="not_tls",
        upstream_transport_failure_reason="the first bytes are no TLS",
    )
    access = parse_access("orders", refused)
    assert (access.what, access.source, access.why) == ("TCP", "", "the first bytes are no TLS")
    assert access.hop == "nobody → ns/shop/sa/orders"
    assert access.telling
    assert not access.allowed


def test_the_explanation_of_a_denial_comes_before_anything_else() -> None:
    denied = line(decision="deny", explanation="no rule", upstream_transport_failure_reason="broken")
    assert parse_access("orders", denied).why == "no rule"


def test_the_connection_of_requests_tells_nothing_new() -> None:
    assert not parse_access("web", line(kind="connection", method=None, path=None)).telling


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_what_is_no_record_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_access("web", text)


def test_an_identity_of_another_domain_is_shown_whole() -> None:
    assert access(source="spiffe://other.example/a").hop.startswith("spiffe://other.example/a →")


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    layout = empty_logs(tmp_path)
    logs = AccessLogs(layout)
    text = line()
    with layout.access_log("orders").open("w") as log:
        log.write(text + text[:40])
        log.flush()
        assert len(logs.new()) == 1
        assert logs.new() == []
        log.write(text[40:])
        log.flush()
        assert len(logs.new()) == 1
    assert logs.counts["orders"] == logs.counts.total() == 2


def test_verdicts_are_those_of_the_callees_in_order_of_time(tmp_path: Path) -> None:
    layout = empty_logs(tmp_path)
    layout.access_log("web").write_text(line(direction="outbound"))
    layout.access_log("orders").write_text(line(start_time="2030-01-01T00:00:00.002Z"))
    layout.access_log("ledger").write_text(
        line(
            start_time="2030-01-01T00:00:00.001Z", kind="connection", protocol="TCP", source_principal=spiffe("orders")
        )
    )
    logs = AccessLogs(layout)
    assert [access.workload for access in logs.new_verdicts()] == ["ledger", "orders"]
    assert sum(logs.counts.values()) == 3
