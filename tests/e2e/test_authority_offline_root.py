"""A root whose key is kept away, rotated by commands alone: first the intermediate below it, then the root itself."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import DOMAIN, ROOT, AuthorityProcess, eventually, identity
from cryptography import x509

from certs.authority import Svid
from certs.bundle import parse_bundle
from certs.signers import signer_name
from certs.spiffe import parse_trust_domain
from certs.store import chain_fault

BRIEF = ("--refresh-hint", "1s", "--hints", "1")


def certs(*words: object) -> str:
    """Run `remora certs` where the root is kept; what it says."""
    argv = [sys.executable, "-m", "remora", "certs", *map(str, words)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def believed(authority: AuthorityProcess, *svids: Svid) -> None:
    """Each chain leads to what the service publishes now."""
    published = authority.ask("GET", "/v1/bundle").body
    bundle = parse_bundle(parse_trust_domain(DOMAIN), published, "/v1/bundle")
    now = datetime.datetime.now(datetime.UTC)
    assert [chain_fault(svid.chain, bundle, now) for svid in svids] == [None] * len(svids)


def roots_published(authority: AuthorityProcess) -> tuple[int, int]:
    """The sequence of the bundle, and how many roots are in it."""
    told = authority.ask("GET", "/v1/bundle").told
    return told["spiffe_sequence"], len(told["keys"])


def test_intermediate_and_root_rotate_by_commands_alone(authority: AuthorityProcess) -> None:
    base, kept = authority.base, authority.base / "kept"
    authority.init("--root-offline", str(kept / "first"), "--constrain-names", *BRIEF)
    authority.start("--identity-rate", "50:50")
    first = authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")

    # The intermediate. What nobody asked for is not taken, however good it is.
    certs("intermediate", "--root", kept / "first", "--out", base / "carried", "--constrain-names")
    assert "ask for a rotation first" in authority.refused("rotate import", "--from", str(base / "carried"))
    assert "a new intermediate is wanted" in authority.order("rotate intermediate")
    waiting = authority.order("status")
    assert "sign it with the offline root (`remora certs intermediate`)" in waiting
    assert authority.enrol(first, bundle_sequence=1, instance="orders-0").chain[1] == first.chain[1]
    said = authority.order("rotate import", "--from", str(base / "carried"))
    assert "signing with the new intermediate" in said
    assert f"the key in {base / 'carried'} is sealed in the authority now: remove it there" in said
    assert "no rotation is under way" in said
    shutil.rmtree(base / "carried")
    second = authority.enrol(first, bundle_sequence=1, instance="orders-0")
    assert second.chain[1] != first.chain[1]
    assert second.chain[1].extensions.get_extension_for_class(x509.NameConstraints).critical
    believed(authority, first, second)
    assert roots_published(authority) == (1, 1)

    # The root. Its intermediate's key is made here and does not travel.
    assert "a new root is wanted; make it and an intermediate" in authority.order("rotate root")
    certs("intermediate", "--root", kept / "first", "--out", base / "late")
    assert "a root that is not the next" in authority.refused("rotate import", "--from", str(base / "late"))
    certs("root", "--trust-domain", DOMAIN, "--out", kept / "second")
    certs("request", "--out", base / "asks")
    request = base / "asks" / "intermediate.csr"
    certs("intermediate", "--root", kept / "second", "--request", request, "--out", base / "signed")
    for name in ("root.crt", "intermediate.crt"):
        shutil.copy(base / "signed" / name, base / "asks" / name)
    assert "published the bundle" in authority.order("rotate import", "--from", str(base / "asks"))
    assert roots_published(authority) == (2, 2)
    waiting = authority.order("status")
    assert "have not confirmed sequence 2" in waiting
    assert f"{identity('orders')}#orders-0" in waiting
    assert authority.enrol(second, bundle_sequence=1, instance="orders-0").chain[1] == second.chain[1]

    authority.ask("GET", "/v1/bundle?confirms=2&instance=orders-0", svid=second)
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used", 30.0)
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    third = authority.enrol(second, bundle_sequence=2, instance="orders-0")
    new_root = x509.load_pem_x509_certificate((kept / "second" / "root.crt").read_bytes())
    third.chain[1].verify_directly_issued_by(new_root)
    believed(authority, first, second, third)
    assert "leaves the bundle in" in authority.order("status")

    # No key of a root is, or ever was, in the authority's directory.
    assert _seals(authority) == {signer_name(svid.chain[1]) for svid in (first, second, third)}


def test_the_service_begins_again_with_what_was_imported(authority: AuthorityProcess) -> None:
    base = authority.base
    certs("root", "--trust-domain", DOMAIN, "--out", base / "root")
    certs("intermediate", "--root", base / "root", "--out", base / "one")
    authority.order("init", "--import", str(base / "one"))
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    certs("intermediate", "--root", base / "root", "--out", base / "two", "--lifetime", "90d")
    # No process runs: the commands work on the directory.
    authority.order("rotate intermediate")
    assert "signing with the new intermediate" in authority.order("rotate import", "--from", str(base / "two"))
    authority.start()
    svid = authority.enrol(token=authority.token())
    imported = x509.load_pem_x509_certificate((base / "two" / "intermediate.crt").read_bytes())
    assert svid.chain[1] == imported
    believed(authority, svid)


def _seals(authority: AuthorityProcess) -> set[str]:
    return {path.name.partition(".")[0] for path in (authority.directory / "keys").iterdir()}
