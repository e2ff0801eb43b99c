"""OpenSSL's words become Reasons, and Reasons become alerts."""

from __future__ import annotations

import pytest

from proxy.errors import Reason
from proxy.handshake import faults
from proxy.handshake.binding import QueueEntry
from proxy.handshake.faults import RefusedByPeer


def tls(number: int, text: str = "words") -> QueueEntry:
    return QueueEntry(20, number, text)


CERTIFICATE_ALERTS = {"bad_certificate", "unsupported_certificate", "unknown_ca", "certificate_expired"}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.consequence.alert in CERTIFICATE_ALERTS])
def test_each_fault_of_a_certificate_has_a_number_of_its_own_alert(reason: Reason) -> None:
    numbers = {"bad_certificate": 28, "unsupported_certificate": 26, "unknown_ca": 20, "certificate_expired": 10}
    assert faults.verify_error_for(reason) == numbers[reason.consequence.alert]


def test_a_fault_of_our_own_is_never_no_error() -> None:
    assert faults.verify_error_for(Reason.INTERNAL_ERROR) == 1
    assert all(faults.verify_error_for(reason) != 0 for reason in Reason)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (156, Reason.NOT_TLS),
        (267, Reason.NOT_TLS),
        (258, Reason.TLS_VERSION_UNSUPPORTED),
        (193, Reason.TLS_NO_COMMON_PARAMETERS),
        (410, Reason.TLS_NO_COMMON_PARAMETERS),
        (235, Reason.ALPN_UNKNOWN),
        (199, Reason.CERTIFICATE_REQUIRED),
        (294, Reason.HANDSHAKE_PEER_CLOSED),
        (1042, Reason.PEER_REJECTED_US),
        (1120, Reason.PEER_REJECTED_US),
        (244, Reason.HANDSHAKE_FAILED),
        (4, Reason.HANDSHAKE_FAILED),
    ],
)
def test_the_reason_of_a_failed_handshake(number: int, reason: Reason) -> None:
    error = faults.failed_handshake([tls(313), tls(number), tls(313)])
    assert error.reason is reason
    assert ";" in str(error) or ":" in str(error)


def test_a_certificate_that_cannot_be_decoded() -> None:
    entries = [QueueEntry(13, 104, "wrong tag"), QueueEntry(13, 58, "nested asn1 error")]
    assert faults.failed_handshake(entries).reason is Reason.CERTIFICATE_MALFORMED


def test_no_entry_at_all_is_a_failed_handshake() -> None:
    assert faults.failed_handshake([]).reason is Reason.HANDSHAKE_FAILED


def test_numbers_of_other_libraries_are_not_read_as_those_of_tls() -> None:
    assert faults.failed_handshake([QueueEntry(6, 156, "of another library")]).reason is Reason.HANDSHAKE_FAILED
    assert faults.received_alert([QueueEntry(6, 1042, "of another library")]) == ""


@pytest.mark.parametrize(("number", "name"), sorted(faults.ALERTS.items()))
def test_a_received_alert_by_its_name(number: int, name: str) -> None:
    assert faults.received_alert([tls(313), tls(1000 + number)]) == name


def test_an_alert_that_nobody_knows_is_named_by_its_number() -> None:
    assert faults.received_alert([tls(1254)]) == "alert_254"
    assert "alert_254" in str(faults.failed_handshake([tls(1254)]))


def test_a_refusal_after_our_handshake_is_told_from_other_ends() -> None:
    refused = faults.broken_connection([tls(1048)])
    assert isinstance(refused, RefusedByPeer)
    assert (refused.alert, refused.reason) == ("unknown_ca", Reason.PEER_REJECTED_US)
    assert "bundle" in str(refused)
    other = faults.broken_connection([tls(1080)])
    assert type(other) is ConnectionResetError
    assert "internal_error" in str(other)


@pytest.mark.parametrize("entries", [[], [tls(294)], [tls(281, "bad record mac"), tls(313)], [tls(1020)]])
def test_every_break_is_a_reset(entries: list[QueueEntry]) -> None:
    assert isinstance(faults.broken_connection(entries), ConnectionResetError)


def test_a_peer_that_went_away_says_how() -> None:
    assert "Connection reset by peer" in str(faults.closed_in_handshake(104))
    assert "closed the connection" in str(faults.closed_in_handshake(0))
