"""What sidecars say waits for the office's next look, and never fills the memory."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.founding import found
from certs.keeper import Keeper
from certs.sealed import KeySource
from certs.spiffe import parse_trust_domain
from certs.state import DirectoryStore
from proxy.authority import office as office_module
from proxy.authority.audit_log import AuditLog
from proxy.authority.office import Office

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def test_of_too_many_reports_the_newest_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "MAX_SIDECARS", 2)
    (tmp_path / "passphrase").write_text("correct horse\n")
    store = DirectoryStore(tmp_path / "authority", KeySource.parse(f"file:{tmp_path / 'passphrase'}"))
    log = AuditLog(str(tmp_path / "audit"))
    try:
        found(store, Authority.create(parse_trust_domain("cluster.local"), NOW), NOW)
        keeper = Keeper(store, NOW, 0.0)
        office = Office(keeper, log)
        for name in ("one", "two", "three"):
            office.confirm(name, 1, NOW)
        assert not office.held.state.confirmations
        office.settle()
        keeper.settle(NOW, 0.0)
        assert sorted(office.held.state.confirmations) == ["three", "two"]
    finally:
        log.close()
        store.close()
