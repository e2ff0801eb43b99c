"""The clock of an authority is set an hour ahead, and two hours back: nothing is lost, nothing is given twice."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import AuthorityProcess, eventually, identity
from cryptography import x509

from certs.authority import Svid

pytestmark = pytest.mark.debian

LIBRARIES = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR = datetime.timedelta(hours=1)
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: our callers live in another time than the authority."""
SLACK = datetime.timedelta(minutes=5)


class Set:
    """An authority whose calendar follows a file; the clock that never jumps is the machine's own."""

    def __init__(self, base: Path) -> None:
        self.authority = AuthorityProcess(base)
        self.authority.verify_flags = NO_CHECK_TIME
        self.file = base / "clock"
        self.set("+0")
        [library] = LIBRARIES
        self.authority.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.replace(self.file)

    def log(self) -> str:
        return self.authority.log_file.read_text(errors="replace")

    def crl_number(self) -> int:
        crl = x509.load_der_x509_crl(self.authority.ask("GET", "/v1/crl").body)
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def sequence(self) -> int:
        return int(self.authority.ask("GET", "/v1/bundle").told["spiffe_sequence"])


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Set]:
    if not LIBRARIES:
        pytest.fail("libfaketime is not installed; `make e2e` installs it", pytrace=False)
    made = Set(tmp_path)
    try:
        yield made
    finally:
        made.authority.stop()


def begins(svid: Svid) -> datetime.timedelta:
    """From when it is valid, seen from now."""
    return svid.leaf.not_valid_before_utc - datetime.datetime.now(datetime.UTC)


def test_an_hour_ahead_and_two_back_while_it_runs_and_before_it_begins(clock: Set) -> None:
    authority = clock.authority
    authority.init()
    authority.start("--identity-rate", "50:50")
    given = [authority.enrol(token=authority.token()) for _ in range(2)]
    lists, sequences = [clock.crl_number()], [clock.sequence()]

    clock.set("+1h")
    eventually(lambda: "clock went 3600 s ahead at once" in clock.log(), "the jump is told")
    given += [authority.enrol(token=authority.token()) for _ in range(2)]
    assert abs(begins(given[-1]) - HOUR) < SLACK
    authority.order("revoke", "--identity", identity("batch"))
    lists.append(clock.crl_number())
    sequences.append(clock.sequence())

    clock.set("-1h")
    eventually(lambda: "clock went 7200 s back at once" in clock.log(), "the jump back is told")
    given += [authority.enrol(token=authority.token()) for _ in range(2)]
    assert abs(begins(given[-1]) + HOUR) < SLACK
    assert authority.sign(token=authority.token("batch")).reason == "identity_revoked"
    lists.append(clock.crl_number())
    sequences.append(clock.sequence())
    assert authority.page("/readyz")[0] == 200

    # What was set while no process looked is no jump that anybody could see.
    authority.stop()
    for offset in ("+1h", "-1h", "+0"):
        clock.set(offset)
        authority.start("--identity-rate", "50:50")
        given.append(authority.enrol(token=authority.token()))
        assert authority.sign(token=authority.token("batch")).reason == "identity_revoked"
        lists.append(clock.crl_number())
        sequences.append(clock.sequence())
        authority.stop()

    serials = [f"{svid.leaf.serial_number:x}" for svid in given]
    assert len(set(serials)) == len(serials)
    assert [line["serial"] for line in authority.audit() if line["event"] == "issued"] == serials
    assert lists == sorted(lists)
    assert lists[1] == lists[0] + 1
    assert set(sequences) == {1}
