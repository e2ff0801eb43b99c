"""The command `remora certs`, as a person types it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.cli import main
from certs.spiffe import SpiffeId
from certs.store import judge_set, read_files
from certs.svid import Violation
from certs.testing import BROKEN, MemoryAuthority, write_set


@pytest.fixture
def authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", "--directory", str(tmp_path / "ca"), "--trust-domain", "cluster.local"]) == 0
    assert str(tmp_path / "ca" / "root.crt") in capsys.readouterr().out
    return tmp_path / "ca"


def issue(authority: Path, out: Path, *more: str) -> int:
    account = ["--namespace", "demo", "--service-account", "orders"]
    return main(["issue", "--authority", str(authority), *account, "--out", str(out), *more])


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err.splitlines()


def test_init_makes_a_private_authority(authority: Path) -> None:
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in authority.iterdir())


def test_issued_set_is_one_that_a_sidecar_takes(
    authority: Path, tmp_path: Path, memory: MemoryAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(memory.neighbour.bundle.to_pem())
    assert issue(authority, tmp_path / "id", "--lifetime", "2h", "--bundle", f"neighbour.example={other}") == 0
    expected = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
    identity = judge_set(
        read_files(tmp_path / "id"), expected.trust_domain, memory.now.now(memory.now.tzinfo), expected
    )
    assert sorted(identity.bundles) == ["cluster.local", "neighbour.example"]
    output = capsys.readouterr().out
    assert "issued spiffe://cluster.local/ns/demo/sa/orders" in output
    assert "1 h 59 min left" in output
    assert "PRIVATE" not in output


def test_issue_again_replaces_the_set(authority: Path, tmp_path: Path) -> None:
    assert issue(authority, tmp_path / "id") == 0
    before = (tmp_path / "id" / "tls.crt").read_bytes()
    assert issue(authority, tmp_path / "id") == 0
    assert (tmp_path / "id" / "tls.crt").read_bytes() != before
    assert len([path for path in (tmp_path / "id").iterdir() if path.is_dir() and not path.is_symlink()]) == 1


def test_issue_warns_of_a_key_that_others_may_read(
    authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (authority / "intermediate.key").chmod(0o644)
    assert issue(authority, tmp_path / "id") == 0
    assert "everybody may read or change the private key" in capsys.readouterr().err


def test_inspect_shows_a_good_chain(authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(authority, tmp_path / "id")
    capsys.readouterr()
    chain, roots = str(tmp_path / "id" / "tls.crt"), str(tmp_path / "id" / "ca.crt")
    assert main(["inspect", chain, "--bundle", roots, "--trust-domain", "cluster.local"]) == 0
    output = capsys.readouterr().out
    for words in (
        "spiffe://cluster.local/ns/demo/sa/orders",
        "23 h 59 min left",
        "P-256",
        "CN=intermediate of cluster.local",
        "leads to a root of cluster.local",
        "no violation",
    ):
        assert words in output
    assert main(["inspect", chain]) == 0
    assert "not verified" in capsys.readouterr().out
    assert main(["inspect", roots, "--signing"]) == 0


@pytest.mark.parametrize("name", BROKEN)
def test_inspect_names_every_broken_certificate(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "tls.crt").write_bytes(BROKEN[name].make(memory).chain_pem())
    (tmp_path / "ca.crt").write_bytes(memory.bundle.to_pem())
    assert main(["inspect", str(tmp_path / "tls.crt"), "--bundle", str(tmp_path / "ca.crt")]) == 1
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.splitlines())
    if BROKEN[name].reason_word in {violation.value for violation in Violation} | {"certificate_expired"}:
        assert BROKEN[name].reason_word in output
    else:  # the chain, in words: what the store says of it
        assert "chain: leads" not in output or "violation   certificate_not_yet_valid" in output


def test_inspect_holds_roots_to_their_own_trust_domain(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tls.crt").write_bytes(BROKEN["our_name_signed_by_neighbour"].make(memory).chain_pem())
    (tmp_path / "roots.pem").write_bytes(memory.neighbour.bundle.to_pem())
    arguments = ["inspect", str(tmp_path / "tls.crt"), "--bundle", str(tmp_path / "roots.pem")]
    assert main([*arguments, "--trust-domain", "cluster.local"]) == 1
    assert "root_of_other_trust_domain" in capsys.readouterr().out


def test_inspect_compares_the_trust_domain(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tls.crt").write_bytes(memory.svid("demo", "orders").chain_pem())
    assert main(["inspect", str(tmp_path / "tls.crt"), "--trust-domain", "other.example"]) == 1
    assert "it names cluster.local, not other.example" in capsys.readouterr().out


def test_inspect_of_roots_tells_of_the_switch_for_them(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ca.crt").write_bytes(memory.bundle.to_pem())
    assert main(["inspect", str(tmp_path / "ca.crt")]) == 1
    assert "--signing" in capsys.readouterr().out


def test_bundle_is_converted_there_and_back(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pem, jwks = tmp_path / "ca.crt", tmp_path / "b.json"
    pem.write_bytes(memory.bundle.to_pem())
    assert main(["bundle", "convert", str(pem), "--output", "jwks", "--out", str(jwks)]) == 0
    capsys.readouterr()
    assert main(["bundle", "convert", str(jwks), "--output", "pem"]) == 0
    assert capsys.readouterr().out.encode() == memory.bundle.to_pem()
    assert main(["bundle", "show", str(jwks)]) == 0
    assert "cluster.local" in capsys.readouterr().out


def test_bundle_add_counts_the_sequence_up(memory: MemoryAuthority, tmp_path: Path) -> None:
    bundle, root = tmp_path / "b.json", tmp_path / "new.pem"
    bundle.write_bytes(memory.authority.bundle.to_jwks())
    root.write_bytes(memory.impostor.bundle.to_pem())
    for _ in range(2):  # a root that is there already changes nothing
        assert main(["bundle", "add", str(bundle), str(root), "--out", str(bundle)]) == 0
        document = json.loads(bundle.read_bytes())
        assert (len(document["keys"]), document["spiffe_sequence"]) == (2, 2)


def test_bundle_add_never_merges_trust_domains(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, root = tmp_path / "b.json", tmp_path / "new.pem"
    bundle.write_bytes(memory.bundle.to_jwks())
    root.write_bytes(memory.neighbour.bundle.to_pem())
    (line,) = refused(capsys, "bundle", "add", bundle, root)
    assert "a bundle holds one trust domain" in line


def test_an_empty_bundle_is_shown_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.example.json").write_bytes(b'{"keys": []}')
    assert main(["bundle", "show", str(tmp_path / "other.example.json")]) == 0
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda d: ["inspect", d / "nowhere"], "No such file"),
        (lambda d: ["inspect", d], "it is a directory"),
        (lambda d: ["inspect", d / "garbage"], "no certificate"),
        (lambda d: ["inspect", d / "ca" / "root.key"], "no certificate"),
        (lambda d: ["inspect", d / "ca" / "root.crt", "--trust-domain", "TD"], "capitals"),
        (lambda d: ["inspect", d / "ca" / "root.crt", "--bundle", d / "garbage"], "no certificate"),
        (lambda d: ["init", "--directory", d / "ca", "--trust-domain", "td"], "stands there already"),
        (lambda d: ["init", "--directory", d / "new", "--trust-domain", "spiffe://td"], "write the trust domain alone"),
        (lambda d: ["init", "--directory", d / "garbage", "--trust-domain", "td"], "cannot be written"),
        (lambda d: _issue(d, lifetime="soon"), "such as 24h"),
        (lambda d: _issue(d, lifetime="0h"), "shorter than 10 seconds"),
        (lambda d: _issue(d, lifetime="999999999d"), ""),
        (lambda d: _issue(d, namespace="a/b"), "namespace"),
        (lambda d: _issue(d, namespace="\udcff\x1b[2J"), "namespace"),
        (lambda d: _issue(d, authority=d / "nowhere"), "it is missing"),
        (lambda d: _issue(d, bundle="other.example"), "TRUST_DOMAIN=FILE"),
        (lambda d: _issue(d, bundle=f"other.example={d / 'nowhere'}"), "No such file"),
        (lambda d: _issue(d, bundle=f"cluster.local={d / 'ca' / 'root.crt'}"), "own trust domain"),
        (lambda d: _issue(d, out=d / "garbage"), "cannot be written"),
        (lambda d: ["bundle", "show", d / "garbage"], "no certificate"),
        (lambda d: ["bundle", "show", d / "ca" / "root.key"], "private key"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    authority: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[object]],
    words: str,
) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00\xff")
    (line,) = refused(capsys, *arguments(tmp_path))
    assert line.startswith("remora certs: ")
    assert line.isprintable()
    assert words in line
    assert not (tmp_path / "id").exists()


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["inspect"], ["issue", "--out", "x"], ["bundle"]])
def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert any("usage: remora certs" in line for line in refused(capsys, *arguments))


def test_help_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "inspect" in capsys.readouterr().out


def test_all_faults_of_a_bundle_are_a_line_each(
    memory: MemoryAuthority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = memory.svid("demo", "orders").leaf.public_bytes(Encoding.PEM)
    (tmp_path / "leaves.pem").write_bytes(leaf + memory.svid("demo", "ledger").leaf.public_bytes(Encoding.PEM))
    assert len(refused(capsys, "bundle", "show", tmp_path / "leaves.pem")) == 2


def test_no_command_prints_a_private_key(
    authority: Path, tmp_path: Path, memory: MemoryAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(memory.svid("demo", "orders"), memory.bundles, tmp_path / "id")
    both = (tmp_path / "id" / "tls.crt").read_bytes() + (tmp_path / "id" / "tls.key").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    secret = (tmp_path / "id" / "tls.key").read_text().splitlines()[1]
    for arguments in (
        ["inspect", "both.pem"],
        ["inspect", "id/tls.key"],
        ["bundle", "show", "both.pem"],
        ["bundle", "convert", "both.pem"],
        ["bundle", "add", "id/ca.crt", "both.pem"],
    ):
        main([str(tmp_path / word) if os.sep in word or "." in word else word for word in arguments])
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err


def _issue(directory: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {
        "authority": directory / "ca",
        "namespace": "demo",
        "service-account": "orders",
        "out": directory / "id",
    } | changes
    return ["issue", *(word for name, value in options.items() for word in (f"--{name}", value))]
