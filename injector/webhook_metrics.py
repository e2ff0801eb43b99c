"""Counts what the webhook does, and gives it for a scrape."""

from __future__ import annotations

import datetime
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from injector.decision import Why
from injector.review import Audit, Reason, Verdict
from proxy.https.counts import DoorCounts
from proxy.telemetry.families import Family, Histogram, Numbers

LIMITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds: from a review with nothing to do up to what API servers wait for. The target, 50 ms, is one of them."""

_VERDICT_BY_WHY: Final[Mapping[Why, Verdict]] = {
    Why.ASKED_BY_LABEL: Verdict.INJECTED,
    Why.ASKED_BY_ANNOTATION: Verdict.INJECTED,
    Why.ASKED_BY_NAMESPACE: Verdict.INJECTED,
    Why.ALREADY_INJECTED: Verdict.UNCHANGED,
    Why.HOST_NETWORK: Verdict.SKIPPED,
    Why.SYSTEM_NAMESPACE: Verdict.SKIPPED,
    Why.OWN_NAMESPACE: Verdict.SKIPPED,
    Why.WINDOWS: Verdict.SKIPPED,
    Why.FOREIGN_SIDECAR: Verdict.SKIPPED,
    Why.DISABLED_BY_LABEL: Verdict.SKIPPED,
    Why.DISABLED_BY_ANNOTATION: Verdict.SKIPPED,
}
_FIRST: Final = (
    *((verdict.value, why.value) for why, verdict in _VERDICT_BY_WHY.items()),
    (Verdict.INJECTED.value, Why.ALREADY_INJECTED.value),  # anew
    (Verdict.REFUSED.value, Reason.BAD_POD.value),
    (Verdict.ERROR.value, Reason.BAD_REVIEW.value),
    (Verdict.ERROR.value, Reason.INTERNAL.value),
)
"""The series that stand there from the start, so that a rate has a begin."""


class Counts(DoorCounts):
    """What happens at the door and to reviews; the verdicts are a closed set, and so are the series."""

    __slots__ = ("_buckets", "_seconds", "audit_faults", "looks", "reviews", "unanswered")

    def __init__(self) -> None:
        super().__init__()
        self.reviews: dict[tuple[str, str], int] = dict.fromkeys(_FIRST, 0)
        self.unanswered: dict[str, int] = {"not_ready": 0, "too_late": 0, "bad_request": 0}
        """Requests that got no review for an answer, by why."""
        self.audit_faults = 0
        self.looks: dict[str, int] = {"ok": 0, "failed": 0}
        """Looks after the certificate in the cluster, by result."""
        self._buckets = [0] * (len(LIMITS) + 1)
        self._seconds = 0.0

    def review(self, audit: Audit, seconds: float) -> None:
        """Count a review that was answered, and how long it took from the last byte of it."""
        key = (audit.verdict.value, audit.reason)
        self.reviews[key] = self.reviews.get(key, 0) + 1
        self._buckets[bisect_left(LIMITS, seconds)] += 1
        self._seconds += seconds

    @property
    def duration(self) -> tuple[list[tuple[str, int]], float]:
        """The buckets, each with all that lie below, and the sum of seconds."""
        names = [*(str(limit) for limit in LIMITS), "+Inf"]
        return list(zip(names, accumulate(self._buckets), strict=True)), self._seconds


def families(
    counts: Counts,
    *,
    under_way: int,
    is_ready: bool,
    certificate_end: datetime.datetime | None,
    now: datetime.datetime,
) -> Iterator[Family]:
    """Yield every family.

    `under_way` are reviews without an answer yet; `certificate_end` is when the certificate ends that is shown, None
    while there is none.
    """
    yield Numbers(
        "counter",
        "remora_injector_reviews",
        "Reviews that were answered, by verdict and reason.",
        {key: float(count) for key, count in counts.reviews.items()},
        ("verdict", "reason"),
    )
    yield Histogram(
        "remora_injector_review_seconds",
        "Seconds from the last byte of a review to its answer.",
        {(): counts.duration},
        (),
    )
    yield Numbers(
        "counter",
        "remora_injector_requests_unanswered",
        "Requests that got no review for an answer, by why.",
        {(why,): float(count) for why, count in counts.unanswered.items()},
        ("reason",),
    )
    yield Numbers(
        "counter",
        "remora_injector_handshakes",
        "TLS handshakes by their result and listener.",
        {(reason.word, listener): float(count) for (listener, reason), count in counts.handshakes.items()},
        ("reason", "listener"),
    )
    yield Numbers(
        "counter",
        "remora_injector_connections_turned_away",
        "Connections that were closed at once because too many were open.",
        {(): float(counts.turned_away)},
    )
    yield Numbers(
        "counter",
        "remora_injector_audit_faults",
        "Audit lines that could not be written.",
        {(): float(counts.audit_faults)},
    )
    yield Numbers(
        "gauge",
        "remora_injector_files_rejected",
        "Whether the content of mounted files is rejected and an older one serves.",
        {(kind,): float(rejected) for kind, rejected in counts.rejected.items()},
        ("kind",),
    )
    yield Numbers(
        "counter",
        "remora_injector_certificate_looks",
        "Looks after our own certificate in the cluster, by result.",
        {(result,): float(count) for result, count in counts.looks.items()},
        ("result",),
    )
    yield Numbers(
        "gauge", "remora_injector_reviews_under_way", "Reviews that have no answer yet.", {(): float(under_way)}
    )
    yield Numbers("gauge", "remora_injector_ready", "Whether reviews are answered.", {(): float(is_ready)})
    if certificate_end is not None:
        yield Numbers(
            "gauge",
            "remora_injector_certificate_seconds_left",
            "Seconds until the certificate ends that API servers are shown.",
            {(): (certificate_end - now).total_seconds()},
        )
