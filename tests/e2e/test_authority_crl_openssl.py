"""The `openssl` program takes our revocation list, strictly, and refuses with it who is revoked and nobody else."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Svid
from certs.crl import build_crl
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.testing import MemoryAuthority

KEY = "ab" * 32


class World:
    """An authority, two workloads, and a directory with the files that `openssl` is given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.memory = MemoryAuthority("cluster.local")
        self.orders, self.ledger = self.memory.svid("demo", "orders"), self.memory.svid("demo", "ledger")
        (directory / "root.pem").write_bytes(self.memory.bundle.to_pem())
        (directory / "intermediate.pem").write_bytes(self.memory.intermediate.public_bytes(Encoding.PEM))

    def revoke(self, *values: tuple[Kind, str]) -> Path:
        revoked = Revocations()
        for kind, value in values:
            entry = Revocation(
                kind=kind,
                value=value,
                when=self.memory.now,
                reason=Reason.KEY_COMPROMISE,
                who="alice",
                not_after=self.memory.intermediate.not_valid_after_utc if kind is Kind.SERIAL else None,
            )
            revoked = revoked.add(entry)
        return self.write(revoked, self.memory.now)

    def write(self, revoked: Revocations, now: datetime.datetime) -> Path:
        crl = build_crl(revoked, self.memory.intermediate, self.memory.intermediate_key, now)
        path = self.directory / "crl.pem"
        path.write_bytes(crl.public_bytes(Encoding.PEM))
        return path

    def verify(self, svid: Svid, crl: Path) -> subprocess.CompletedProcess[str]:
        (self.directory / "leaf.pem").write_bytes(svid.leaf.public_bytes(Encoding.PEM))
        return self.openssl(
            "verify", "-x509_strict", "-purpose", "sslclient", "-crl_check",
            "-CAfile", "root.pem", "-untrusted", "intermediate.pem", "-CRLfile", str(crl), "leaf.pem",
        )  # fmt: skip

    def openssl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, timeout=30, check=False
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_openssl_verifies_the_list_and_shows_what_is_in_it(world: World) -> None:
    serial = f"{world.orders.leaf.serial_number:x}"
    path = world.revoke((Kind.SERIAL, serial), (Kind.IDENTITY, str(world.ledger.spiffe_id)), (Kind.KEY, KEY))
    shown = world.openssl("crl", "-in", str(path), "-CAfile", "intermediate.pem", "-noout", "-text")
    assert shown.returncode == 0, shown.stderr
    assert "verify OK" in shown.stderr
    serials = [line.split()[-1] for line in shown.stdout.splitlines() if "Serial Number:" in line]
    assert [int(text, 16) for text in serials] == [world.orders.leaf.serial_number]
    assert "Key Compromise" in shown.stdout
    assert "X509v3 CRL Number" in shown.stdout
    assert "2.25.286237810795611158882913378528755287024" in shown.stdout


def test_openssl_does_not_verify_the_list_of_an_impostor(world: World) -> None:
    path = world.revoke()
    impostor = world.memory.impostor.intermediate.public_bytes(Encoding.PEM)
    (world.directory / "impostor.pem").write_bytes(impostor)
    shown = world.openssl("crl", "-in", str(path), "-CAfile", "impostor.pem", "-noout")
    assert "verify OK" not in shown.stderr


def test_openssl_refuses_the_revoked_and_takes_the_others(world: World) -> None:
    # Names and keys stand in the list as well: what openssl does not know must not disturb it.
    path = world.revoke((Kind.SERIAL, f"{world.orders.leaf.serial_number:x}"), (Kind.KEY, KEY))
    refused = world.verify(world.orders, path)
    assert refused.returncode != 0
    assert "certificate revoked" in refused.stderr
    taken = world.verify(world.ledger, path)
    assert (taken.returncode, taken.stdout.strip()) == (0, "leaf.pem: OK"), taken.stderr


def test_openssl_takes_everybody_with_an_empty_list(world: World) -> None:
    path = world.revoke()
    for svid in (world.orders, world.ledger):
        taken = world.verify(svid, path)
        assert taken.returncode == 0, taken.stderr


def test_openssl_calls_a_list_past_its_next_update_expired(world: World) -> None:
    path = world.write(Revocations(sequence=1), world.memory.now)
    late = int((world.memory.now + datetime.timedelta(hours=23, minutes=30)).timestamp())
    path_early = world.directory / "early.pem"
    crl = build_crl(
        Revocations(sequence=1),
        world.memory.intermediate,
        world.memory.intermediate_key,
        world.memory.now,
        lifetime=datetime.timedelta(hours=1),
    )
    path_early.write_bytes(crl.public_bytes(Encoding.PEM))
    (world.directory / "leaf.pem").write_bytes(world.orders.leaf.public_bytes(Encoding.PEM))
    for crl_path, word in ((path, "OK"), (path_early, "CRL has expired")):
        judged = world.openssl(
            "verify", "-x509_strict", "-crl_check", "-attime", str(late), "-CAfile", "root.pem",
            "-untrusted", "intermediate.pem", "-CRLfile", str(crl_path), "leaf.pem",
        )  # fmt: skip
        assert word in judged.stdout + judged.stderr
        assert (judged.returncode == 0) is (word == "OK")
