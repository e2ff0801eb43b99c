"""Metrics of our own as values. `collector` makes families of prometheus-client of them when somebody scrapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class Numbers(NamedTuple):
    """A counter or a gauge: the value for each tuple of label values. A counter's name comes without `_total`."""

    kind: Literal["counter", "gauge"]
    name: str
    documentation: str
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()


class Histogram(NamedTuple):
    """A histogram: for each tuple of label values its buckets, each with its limit and all that lies below, and sum."""

    name: str
    documentation: str
    values: Mapping[tuple[str, ...], tuple[Sequence[tuple[str, int]], float]]
    labels: tuple[str, ...]


Family = Numbers | Histogram
