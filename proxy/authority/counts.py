"""Counts what the authority does, and writes it for a scrape."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from certs.caller import How
from certs.held import Held
from certs.refusals import Refusal
from proxy.https.counts import DoorCounts
from proxy.telemetry.families import Family, Numbers


class Counts(DoorCounts):
    """What nobody else counts: what happens at the doors, and faults of the store."""

    __slots__ = ("store_faults",)

    def __init__(self) -> None:
        super().__init__()
        self.store_faults = 0


def families(
    counts: Counts,
    *,
    issued: Mapping[How, int],
    refused: Mapping[Refusal, int],
    held: Held,
    ends: Mapping[str, datetime.datetime],
    now: datetime.datetime,
) -> Iterator[Family]:
    """Yield every family. All series of a counter stand there from the start, so that a rate has a begin.

    `ends` says when the certificates end that we show, by their names.
    """
    yield _counter(
        "remora_authority_certificates_issued",
        "Certificates that were given out, by the proof that their callers gave.",
        ("proof",),
        {(how.value,): issued.get(how, 0) for how in How},
    )
    yield _counter(
        "remora_authority_requests_refused",
        "Requests that were refused, by reason.",
        ("reason",),
        {(reason.word,): refused.get(reason, 0) for reason in Refusal},
    )
    yield _counter(
        "remora_authority_handshakes",
        "TLS handshakes by their result and listener.",
        ("reason", "listener"),
        {(reason.word, listener): count for (listener, reason), count in counts.handshakes.items()},
    )
    yield _counter(
        "remora_authority_connections_turned_away",
        "Connections that were closed at once because too many were open.",
        (),
        {(): counts.turned_away},
    )
    yield _counter(
        "remora_authority_store_faults", "Times that something could not be written.", (), {(): counts.store_faults}
    )
    if counts.rejected:
        yield Numbers(
            "gauge",
            "remora_authority_files_rejected",
            "Whether the content of mounted files is rejected and an older one serves.",
            {(kind,): float(rejected) for kind, rejected in counts.rejected.items()},
            ("kind",),
        )
    ends = {
        "root": held.authority.root.not_valid_after_utc,
        "intermediate": held.authority.intermediate.not_valid_after_utc,
        **ends,
    }
    yield Numbers(
        "gauge",
        "remora_authority_certificate_seconds_left",
        "Seconds until a certificate of the authority ends.",
        {(name,): (end - now).total_seconds() for name, end in ends.items()},
        ("certificate",),
    )
    for name, documentation, value in (
        ("remora_authority_bundle_sequence", "Sequence of the published trust bundle.", held.state.sequence),
        ("remora_authority_crl_sequence", "Sequence of the revocation list.", held.revocations.sequence),
        ("remora_authority_crl_entries", "Entries of the revocation list.", len(held.revocations.entries)),
        ("remora_authority_sidecars", "Sidecars that have said which bundle they hold.", len(held.state.confirmations)),
    ):
        yield Numbers("gauge", name, documentation, {(): float(value)})


def _counter(name: str, documentation: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Family:
    return Numbers("counter", name, documentation, values, labels)
