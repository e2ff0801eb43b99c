"""Begins the enrolment of a sidecar, and shows how it stands: in readiness, in metrics."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from certs.bundle import TrustBundle
from proxy.admin.pages import Readiness
from proxy.config_values import IdentityAuthority
from proxy.enrolment.authority import Enrolment

if TYPE_CHECKING:
    from proxy.sidecar import Sidecar


def begin_enrolment(
    sidecar: Sidecar, asks: IdentityAuthority, readiness: Readiness, changed: Callable[[], None]
) -> Enrolment:
    """Make the enrolment of a sidecar, which somebody has to `run`; `changed` as for `Enrolment`."""

    def in_force() -> TrustBundle | None:
        tls = sidecar.tls
        return None if tls is None else tls.identity_set.bundles.get(sidecar.config.trust_domain)

    enrolment = Enrolment(
        asks,
        expected=sidecar.identity,
        instance=socket.gethostname(),
        in_force=in_force,
        changed=changed,
    )

    def list_standing() -> str:
        if sidecar.tls is None:
            return "there is none yet"
        held = sidecar.tls.trust.revocations
        missing = held.missing_at(time.time())
        return missing or f"list {held.snapshot.sequence if held.snapshot is not None else 0} is in force"

    readiness.standing["certificate"] = enrolment.standing
    readiness.standing["revocations"] = list_standing
    metrics = sidecar.metrics
    metrics.counter(
        "remora_certificate_renewals",
        "Certificates that the authority has given to us.",
        lambda: enrolment.renewals,
    )
    metrics.counter(
        "remora_certificate_renewal_failures",
        "Attempts that did not bring a certificate.",
        lambda: enrolment.failures,
    )
    metrics.gauge(
        "remora_certificate_renewal_due_seconds",
        "When the next certificate is asked for, in seconds since the epoch.",
        lambda: enrolment.renewal_due,
    )
    metrics.gauge(
        "remora_authority_poll_failing",
        "1 while bundle or revocation list of the authority cannot be had, or not be taken.",
        lambda: float(bool(enrolment.poll_fault)),
    )
    return enrolment
