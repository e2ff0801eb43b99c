"""Everything counted as a collector of prometheus-client, whose writer makes the text of a scrape.

Imported by the first scrape: it is 2.4 MiB of a process that nobody scrapes. For Istio's metrics this is the slower
reference; what a scrape is answered with is `istio.text`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from proxy.telemetry.families import Family, Histogram
from proxy.telemetry.istio import CONNECTIONS, HISTOGRAMS, REQUESTS
from proxy.telemetry.label_sets import LabelSets
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import LABELS, TCP_LABELS


def text(family: Family) -> bytes:
    """Write one family in Prometheus' text format."""
    return generate_latest(_One(_made(family)))


class _One(Collector):
    """A registry of one family, for the writer of prometheus-client."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class MetricsCollector(Collector):
    """The families of one `Metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the families; called by prometheus-client."""
        for family in self._metrics.own():
            yield _made(family)
        yield from _istio(self._metrics.label_sets)


def _made(family: Family) -> Metric:
    if isinstance(family, Histogram):
        histogram = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
        for label_values, (buckets, total) in family.values.items():
            histogram.add_metric(label_values, list(buckets), total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    numbers = make(family.name, family.documentation, labels=family.labels)
    for label_values, value in family.values.items():
        numbers.add_metric(label_values, value)
    return numbers


def _istio(label_sets: LabelSets) -> Iterator[Metric]:
    """Yield Istio's. An opaque connection's sample is left out while it is 0."""
    name, documentation = REQUESTS
    requests = CounterMetricFamily(name, documentation, labels=LABELS)
    for series in label_sets.all_requests():
        requests.add_metric(tuple(series.labels.values()), series.count)
    yield requests
    for name, documentation, limits, read in HISTOGRAMS:
        histogram = HistogramMetricFamily(name, documentation, labels=LABELS)
        for series in label_sets.all_requests():
            buckets, total = read(series)
            histogram.add_metric(
                tuple(series.labels.values()), list(zip(limits, accumulate(buckets), strict=True)), total
            )
        yield histogram
    for name, documentation, value_of in CONNECTIONS:
        counter = CounterMetricFamily(name, documentation, labels=TCP_LABELS)
        for connections in label_sets.all_connections():
            if value := value_of(connections):
                counter.add_metric(tuple(connections.labels.values()), value)
        yield counter
