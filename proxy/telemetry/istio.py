"""Istio's metrics as text that costs a fiftieth of what prometheus-client's costs.

Each label set has 44 samples with 25 labels. prometheus-client sorts and escapes the labels of every sample, 25 µs, so
that 1,000 label sets would hold up all traffic for a second; here the labels of a set were written once, when it was
made, and a sample is one f-string. The text comes in parts, so that traffic goes on between them. A test compares the
two ways (`collector` is the other) sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from proxy.telemetry.label_sets import LabelSets
from proxy.telemetry.series import DURATION_LIMITS, SIZE_LIMITS, ConnectionSeries, RequestSeries

_PART: Final = 32_768
"""Characters of one part: a tenth of a millisecond to write, and less than a connection holds for a slow reader."""

_MS: Final = 1_000_000

REQUESTS: Final = ("istio_requests", "Finished HTTP requests.")

HISTOGRAMS: Final[tuple[tuple[str, str, tuple[str, ...], Callable[[RequestSeries], tuple[list[int], float]]], ...]] = (
    (
        "istio_request_duration_milliseconds",
        "Time from the head of a request to the end of its answer.",
        DURATION_LIMITS,
        lambda series: (series.durations, series.duration_sum / _MS),
    ),
    (
        "istio_request_bytes",
        "Bytes of the bodies of requests.",
        SIZE_LIMITS,
        lambda series: (series.received, series.received_sum),
    ),
    (
        "istio_response_bytes",
        "Bytes of the bodies of answers.",
        SIZE_LIMITS,
        lambda series: (series.sent, series.sent_sum),
    ),
)

CONNECTIONS: Final[tuple[tuple[str, str, Callable[[ConnectionSeries], int]], ...]] = (
    ("istio_tcp_sent_bytes", "Bytes of opaque connections towards their caller.", lambda series: series.sent),
    ("istio_tcp_received_bytes", "Bytes of opaque connections from their caller.", lambda series: series.received),
    ("istio_tcp_connections_opened", "Opaque connections begun.", lambda series: series.opened),
    ("istio_tcp_connections_closed", "Opaque connections ended.", lambda series: series.closed),
)


def text(label_sets: LabelSets) -> Iterator[bytes]:
    """Yield Prometheus' text format, in parts. An opaque connection's sample is left out while it is 0."""
    lines: list[str] = []
    size = 0
    for piece in _pieces(label_sets):
        lines.append(piece)
        size += len(piece)
        if size >= _PART:
            yield "".join(lines).encode()
            lines.clear()
            size = 0
    yield "".join(lines).encode()


def _pieces(label_sets: LabelSets) -> Iterator[str]:
    name, documentation = REQUESTS
    yield f"# HELP {name}_total {documentation}\n# TYPE {name}_total counter\n"
    for series in label_sets.all_requests():
        yield f"{name}_total{{{series.text}}} {series.count}\n"
    for name, documentation, limits, read in HISTOGRAMS:
        yield f"# HELP {name} {documentation}\n# TYPE {name} histogram\n"
        for series in label_sets.all_requests():
            buckets, total = read(series)
            labels, count = series.text, 0
            lines = []
            for limit, more in zip(limits, buckets, strict=True):
                count += more
                lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {count}\n')
            lines.append(f"{name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} {total}\n")
            yield "".join(lines)
    for name, documentation, value_of in CONNECTIONS:
        yield f"# HELP {name}_total {documentation}\n# TYPE {name}_total counter\n"
        for connections in label_sets.all_connections():
            if value := value_of(connections):
                yield f"{name}_total{{{connections.text}}} {value}\n"
