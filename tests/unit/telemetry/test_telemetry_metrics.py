"""Metrics: what is counted comes out in the text format that scrapers read."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.errors import Reason
from proxy.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def test_an_empty_process_can_be_scraped() -> None:
    found = samples(Metrics())
    assert set(found.values()) == {0.0}
    assert {name for name, _ in found if "stage" not in name} == {
        "remora_label_sets",
        "remora_label_sets_overflowed_total",
        "remora_retries_total",
    }


def test_every_count_comes_out_with_its_labels() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.tally("inbound", 200, "allow", Reason.OK).value += 1
    metrics.tally("inbound", 403, "deny", Reason.DENIED_BY_POLICY).value += 1
    metrics.connection_opened("outbound")
    metrics.connection_ended("inbound", "none", Reason.IDLE_TIMEOUT)
    metrics.handshake("inbound", Reason.CERTIFICATE_EXPIRED)
    metrics.limit(Reason.CONNECTION_LIMIT)
    metrics.detection_timeout("inbound|8080")
    metrics.config_rejected |= {"policy": True, "certificates": False}
    metrics.retries += 2
    metrics.gauge("remora_ready", "Whether traffic is served.", lambda: 1.0)
    found = samples(metrics)
    labels = {"decision": "allow", "direction": "inbound", "reason": "ok", "response_code": "200"}
    assert found["remora_requests_total", tuple(labels.items())] == 3
    assert found["remora_connections_opened_total", (("direction", "outbound"),)] == 1
    ended = (("decision", "none"), ("direction", "inbound"), ("reason", "idle_timeout"))
    assert found["remora_connections_ended_total", ended] == 1
    assert found["remora_handshakes_total", (("direction", "inbound"), ("reason", "certificate_expired"))] == 1
    assert found["remora_limits_reached_total", (("reason", "connection_limit"),)] == 1
    assert found["remora_detection_timeouts_total", (("upstream_cluster", "inbound|8080"),)] == 1
    assert found["remora_config_rejected", (("kind", "policy"),)] == 1
    assert found["remora_config_rejected", (("kind", "certificates"),)] == 0
    assert found["remora_retries_total", ()] == 2
    assert found["remora_ready", ()] == 1


def test_every_reason_is_a_label_that_parses() -> None:
    metrics = Metrics()
    for reason in Reason:
        metrics.tally("inbound", 200, "allow", reason)
    assert len([name for name, _ in samples(metrics) if name == "remora_requests_total"]) == len(Reason)


def test_a_gauge_is_read_when_somebody_looks() -> None:
    metrics, value = Metrics(), [1.0]
    metrics.gauge("remora_open", "Open.", lambda: value[0])
    assert samples(metrics)["remora_open", ()] == 1
    value[0] = 7
    assert samples(metrics)["remora_open", ()] == 7


def test_a_gauge_with_labels_and_a_counter_of_somebody_else() -> None:
    metrics, value = Metrics(), [1.0]
    metrics.gauges("remora_pool", "Pool.", ("next_hop", "state"), lambda: {("a", "idle"): value[0], ("a", "busy"): 2.0})
    metrics.counter("remora_lost", "Lost.", lambda: value[0])
    value[0] = 5
    found = samples(metrics)
    assert found["remora_pool", (("next_hop", "a"), ("state", "idle"))] == 5
    assert found["remora_pool", (("next_hop", "a"), ("state", "busy"))] == 2
    assert found["remora_lost_total", ()] == 5


def test_a_handshake_that_succeeded_has_a_time_and_a_failed_one_none() -> None:
    metrics = Metrics()
    metrics.handshake("outbound", Reason.OK, 800_000)
    metrics.handshake("outbound", Reason.HANDSHAKE_TIMEOUT, 10_000_000_000)
    found = samples(metrics)
    outbound = (("direction", "outbound"), ("stage", "handshake"))
    assert found["remora_stage_duration_seconds_count", outbound] == 1
    assert found["remora_stage_duration_seconds_sum", outbound] == pytest.approx(0.0008)
    assert found["remora_stage_duration_seconds_bucket", (outbound[0], ("le", "0.0005"), outbound[1])] == 0
    assert found["remora_stage_duration_seconds_bucket", (outbound[0], ("le", "0.001"), outbound[1])] == 1


@pytest.mark.parametrize("reason", [Reason.HEAD_TOO_LARGE, Reason.POOL_LIMIT])
def test_a_limit_that_a_request_reached_is_counted_with_the_others(reason: Reason) -> None:
    metrics = Metrics()
    metrics.tally("inbound", 503, "none", reason).value += 2
    metrics.tally("outbound", 503, "none", reason).value += 1
    metrics.tally("inbound", 503, "none", Reason.CONNECTION_LIMIT).value += 1
    metrics.opaque_ended(Reason.BUFFER_LIMIT)
    metrics.opaque_ended(Reason.OK)
    limits = {labels: value for (name, labels), value in samples(metrics).items() if "limits" in name}
    assert limits == {(("reason", reason.word),): 3, (("reason", "buffer_limit"),): 1}
