"""What a scrape of the webhook finds: every series from the start, each review once, in its bucket."""

from __future__ import annotations

import datetime

from injector.decision import Why
from injector.review import Audit, Verdict
from injector.webhook_metrics import Counts, families
from proxy.telemetry import collector

NOW = datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC)


def scraped(counts: Counts, end: datetime.datetime | None = None) -> str:
    found = families(counts, under_way=0, is_ready=True, certificate_end=end, now=NOW)
    return b"".join(map(collector.text, found)).decode()


def test_every_series_of_reviews_stands_there_from_the_start() -> None:
    text = scraped(Counts())
    for line in (
        'remora_injector_reviews_total{reason="namespace_label",verdict="injected"} 0.0',
        'remora_injector_reviews_total{reason="host_network",verdict="skipped"} 0.0',
        'remora_injector_reviews_total{reason="bad_pod",verdict="refused"} 0.0',
        'remora_injector_requests_unanswered_total{reason="too_late"} 0.0',
    ):
        assert line in text
    assert "certificate_seconds_left" not in text


def test_every_reason_for_a_skip_has_a_series() -> None:
    series = {reason for _, reason in Counts().reviews}
    assert {why.value for why in Why} - series == {"default", "disabled_by_namespace_label", "not_asked"}, (
        "what a webhook cannot come to, as its namespace asks"
    )


def test_a_review_is_counted_once_and_falls_into_the_bucket_of_its_time() -> None:
    counts = Counts()
    audit = Audit(verdict=Verdict.INJECTED, reason=Why.ASKED_BY_LABEL.value)
    for seconds in (0.0004, 0.05, 60.0):
        counts.review(audit, seconds)
    text = scraped(counts)
    assert 'remora_injector_reviews_total{reason="label",verdict="injected"} 3.0' in text
    assert 'remora_injector_review_seconds_bucket{le="0.001"} 1.0' in text
    assert 'remora_injector_review_seconds_bucket{le="0.025"} 1.0' in text
    assert 'remora_injector_review_seconds_bucket{le="0.05"} 2.0' in text
    assert 'remora_injector_review_seconds_bucket{le="5.0"} 2.0' in text
    assert 'remora_injector_review_seconds_bucket{le="+Inf"} 3.0' in text
    assert "remora_injector_review_seconds_count 3.0" in text


def test_the_end_of_the_certificate_is_told_in_seconds() -> None:
    assert "remora_injector_certificate_seconds_left 3600.0" in scraped(Counts(), NOW + datetime.timedelta(hours=1))
