"""Our own material from a mounted directory: whole, or every fault at once."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from certs.spiffe import TrustDomain
from certs.testing import MemoryAuthority, write_set
from proxy.errors import ConfigError
from proxy.identity.source import FilesSource


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


@pytest.fixture
def source(tmp_path: Path) -> FilesSource:
    write_set(memory().svid("demo", "orders"), memory().bundles, tmp_path)
    return FilesSource(directory=tmp_path, trust_domain=memory().trust_domain, aliases=[TrustDomain("old.local")])


def faults_of(source: FilesSource, now: float | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        source.load(memory().now.timestamp() if now is None else now)
    return [str(fault) for fault in caught.value.faults]


def test_a_good_directory(source: FilesSource) -> None:
    material = source.load(memory().now.timestamp())
    assert str(material.identity_set.spiffe_id) == "spiffe://cluster.local/ns/demo/sa/orders"
    assert sorted(material.trust.roots) == ["cluster.local", "neighbour.example", "old.local"]
    assert material.trust.roots[TrustDomain("old.local")] == material.trust.roots[memory().trust_domain]
    assert len(material.trust.anchors) == 2


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    missing = FilesSource(directory=tmp_path / "nowhere", trust_domain=memory().trust_domain)
    (fault,) = faults_of(missing)
    assert str(tmp_path / "nowhere") in fault


def test_every_fault_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_bytes(b"nonsense")
    (tmp_path / "tls.key").write_bytes(b"nonsense")
    faults = faults_of(FilesSource(directory=tmp_path, trust_domain=memory().trust_domain))
    assert [fault.partition(": ")[0] for fault in faults] == [
        str(tmp_path / name) for name in ("tls.crt", "tls.key", "ca.crt")
    ]


def test_an_expired_certificate_is_not_taken(source: FilesSource) -> None:
    assert any("tls.crt" in fault for fault in faults_of(source, memory().now.timestamp() + 25 * 3600))


def test_somebody_elses_certificate_is_not_taken(source: FilesSource) -> None:
    other = FilesSource(
        directory=source.directory,
        trust_domain=source.trust_domain,
        expected=memory().svid("demo", "ledger").spiffe_id,
    )
    (fault,) = faults_of(other)
    assert "sa/orders" in fault
    assert "sa/ledger" in fault
