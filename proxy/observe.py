"""What metrics say of a sidecar's state: read from its parts whenever somebody scrapes, and never kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.sidecar import Sidecar

_DIRECTIONS: Final = ("inbound", "outbound")


def publish(sidecar: Sidecar) -> None:
    """Register every gauge and counter that is read at scrape time."""
    metrics, registry = sidecar.metrics, sidecar.registry
    metrics.gauge("remora_ready", "1 while traffic is served.", lambda: float(sidecar.ready))
    metrics.gauge("remora_policy_generation", "The policy set in force.", lambda: float(sidecar.policy_generation))
    metrics.gauge(
        "remora_certificate_generation", "The certificates and trust in force.", lambda: float(sidecar.tls_generation)
    )
    metrics.gauge(
        "remora_certificate_expiry_seconds",
        "When our certificate ends, in seconds since the epoch; 0 without one.",
        lambda: sidecar.tls.identity_set.not_after if sidecar.tls is not None else 0.0,
    )
    metrics.gauges(
        "remora_connections_active",
        "Open connections.",
        ("direction",),
        lambda: {(direction,): float(registry.count(direction)) for direction in _DIRECTIONS},
    )
    metrics.gauges(
        "remora_pool_connections",
        "Connections to a next hop; one that is being dialled is busy.",
        ("next_hop", "state"),
        _pools(sidecar),
    )
    metrics.gauges(
        "remora_pool_waiting",
        "Requests that wait for a connection to a next hop.",
        ("next_hop",),
        _waiting(sidecar),
    )
    metrics.gauges(
        "remora_jwks_up",
        "1 while the last fetch of a jwksUri gave keys.",
        ("uri",),
        sidecar.key_store.up,
    )
    metrics.counter(
        "remora_access_records_dropped",
        "Access records lost: the writer had fallen behind, or the destination did not take them.",
        lambda: sidecar.access_log.dropped,
    )


def _pools(sidecar: Sidecar) -> Callable[[], dict[tuple[str, ...], float]]:
    def read() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for pool in sidecar.pools:
            for state, count in (("idle", pool.idle), ("busy", pool.total - pool.idle)):
                key = pool.name, state
                found[key] = found.get(key, 0.0) + count
        return found

    return read


def _waiting(sidecar: Sidecar) -> Callable[[], dict[tuple[str, ...], float]]:
    def read() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for pool in sidecar.pools:
            found[pool.name,] = found.get((pool.name,), 0.0) + pool.waiting
        return found

    return read
