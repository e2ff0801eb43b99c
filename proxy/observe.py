"""What metrics say of a sidecar's state: read from its parts whenever somebody scrapes, and never kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from certs.crl import CrlSnapshot
from proxy.sidecar import Sidecar
from proxy.view import Live

_DIRECTIONS: Final = ("inbound", "outbound")


def publish(sidecar: Sidecar, live: Live) -> None:
    """Register every gauge and counter that is read at scrape time: of what is in force, and of the traffic."""
    metrics = sidecar.metrics
    metrics.gauge("remora_ready", "1 while traffic is served.", lambda: float(live.ready()))
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
        "remora_revocation_list_sequence",
        "The revocation list in force, by trust domain.",
        ("trust_domain",),
        _lists(sidecar, lambda held: float(held.sequence)),
    )
    metrics.gauges(
        "remora_revocation_list_next_update_seconds",
        "When the revocation list should have been replaced, in seconds since the epoch.",
        ("trust_domain",),
        _lists(sidecar, lambda held: held.next_update.timestamp()),
    )
    metrics.gauges(
        "remora_connections_active",
        "Open connections.",
        ("direction",),
        lambda: {(direction,): float(live.open_count(direction)) for direction in _DIRECTIONS},
    )
    metrics.gauges(
        "remora_pool_connections",
        "Connections to a next hop; one that is being dialled is busy.",
        ("next_hop", "state"),
        _pools(live),
    )
    metrics.gauges(
        "remora_pool_waiting",
        "Requests that wait for a connection to a next hop.",
        ("next_hop",),
        lambda: {(hop.name,): float(hop.waiting) for hop in live.hops()},
    )
    metrics.gauges(
        "remora_jwks_up",
        "1 while the last fetch of a jwksUri gave keys.",
        ("uri",),
        live.jwks_up,
    )
    metrics.counter(
        "remora_access_records_dropped",
        "Access records lost: the writer had fallen behind, or the destination did not take them.",
        live.records_lost,
    )


def _lists(sidecar: Sidecar, number: Callable[[CrlSnapshot], float]) -> Callable[[], dict[tuple[str, ...], float]]:
    def read() -> dict[tuple[str, ...], float]:
        held = sidecar.tls.trust.revocations.snapshot if sidecar.tls is not None else None
        return {} if held is None else {(str(held.trust_domain),): number(held)}

    return read


def _pools(live: Live) -> Callable[[], dict[tuple[str, ...], float]]:
    def read() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for hop in live.hops():
            found[hop.name, "idle"] = float(hop.idle)
            found[hop.name, "busy"] = float(hop.busy)
        return found

    return read
