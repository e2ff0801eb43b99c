"""A root that is kept away: it makes the next intermediate by hand, and only one that can be imported."""

from __future__ import annotations

import datetime
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority, AuthorityError
from certs.cli import main
from certs.files import write_private_file
from certs.keys import generate_key, public_key_bytes, read_key, signing_hash, write_key
from certs.offline import OfflineRoot
from certs.profile import key_usage, with_key_identifiers
from certs.signers import judge_pair
from certs.spiffe import TrustDomain, parse_trust_domain

OURS = parse_trust_domain("cluster.local")


class Desk:
    """A place where a root is kept, and the commands that are typed there."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        self.root = directory / "root"

    def done(self, *words: object) -> str:
        """Run a command that has to succeed; what it says."""
        assert main([str(word) for word in words]) == 0
        return self.capsys.readouterr().out

    def refused(self, *words: object) -> str:
        """Run a command that has to fail; its one line."""
        assert main([str(word) for word in words]) == 2
        said = self.capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        return said.err

    def make_root(self) -> str:
        return self.done("root", "--trust-domain", OURS, "--out", self.root)

    def intermediate(self, out: Path, *more: object) -> str:
        return self.done("intermediate", "--root", self.root, "--out", out, *more)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def test_a_root_and_an_intermediate_are_made_by_two_commands(desk: Desk, tmp_path: Path) -> None:
    assert "made a root of cluster.local" in desk.make_root()
    assert sorted(path.name for path in desk.root.iterdir()) == ["root.crt", "root.key"]
    said = desk.intermediate(tmp_path / "carry", "--lifetime", "90d", "--constrain-names")
    assert "it holds a key" in said
    assert sorted(path.name for path in (tmp_path / "carry").iterdir()) == [
        "intermediate.crt",
        "intermediate.key",
        "root.crt",
    ]
    for path in (desk.root, tmp_path / "carry"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    carried = Authority.load(tmp_path / "carry")
    judge_pair(carried, OURS, now())
    lives = carried.intermediate.not_valid_after_utc - carried.intermediate.not_valid_before_utc
    assert lives == datetime.timedelta(days=90, hours=1)
    constraints = carried.intermediate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert "PRIVATE" not in said


def test_the_key_may_stay_where_it_is_used(desk: Desk, tmp_path: Path) -> None:
    desk.make_root()
    desk.done("request", "--out", tmp_path / "asks")
    said = desk.intermediate(tmp_path / "signed", "--request", tmp_path / "asks" / "intermediate.csr")
    assert "it holds no key" in said
    assert sorted(path.name for path in (tmp_path / "signed").iterdir()) == ["intermediate.crt", "root.crt"]
    for name in ("intermediate.crt", "root.crt"):
        (tmp_path / "asks" / name).write_bytes((tmp_path / "signed" / name).read_bytes())
    joined = Authority.load(tmp_path / "asks")
    judge_pair(joined, OURS, now())
    assert joined.root_key is None


def test_of_a_request_the_key_alone_is_taken(desk: Desk, tmp_path: Path) -> None:
    desk.make_root()
    key = generate_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root of other.example")])
    asks = x509.CertificateSigningRequestBuilder().subject_name(name)
    asks = asks.add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    (tmp_path / "csr").write_bytes(asks.sign(key, signing_hash(key)).public_bytes(Encoding.PEM))
    desk.intermediate(tmp_path / "signed", "--request", tmp_path / "csr")
    made = x509.load_pem_x509_certificate((tmp_path / "signed" / "intermediate.crt").read_bytes())
    assert public_key_bytes(made.public_key()) == public_key_bytes(key.public_key())  # type: ignore[arg-type]
    assert made.subject.rfc4514_string() == "CN=intermediate of cluster.local,O=Remora"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_an_intermediate_ends_with_its_root_and_that_is_said(desk: Desk, tmp_path: Path) -> None:
    desk.done("root", "--trust-domain", OURS, "--out", desk.root, "--lifetime", "30d")
    assert "that is when its root ends" in desk.intermediate(tmp_path / "carry")
    assert "that is when its root ends" not in desk.intermediate(tmp_path / "brief", "--lifetime", "10d")
    carried = Authority.load(tmp_path / "carry")
    assert carried.intermediate.not_valid_after_utc == carried.root.not_valid_after_utc


def _organisations_root(desk: Desk, *, path_length: int | None = None, ends: datetime.timedelta) -> None:
    """Writes a root as an organisation has one: no SPIFFE ID in it."""
    key = generate_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(7).not_valid_before(now() - datetime.timedelta(days=9)).not_valid_after(now() + ends)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    root = with_key_identifiers(builder, key.public_key(), None).sign(key, signing_hash(key))
    desk.root.mkdir(mode=0o700)
    (desk.root / "root.crt").write_bytes(root.public_bytes(Encoding.PEM))
    write_private_file(desk.root / "root.key", write_key(key))


def test_a_root_that_names_no_trust_domain_is_told_which(desk: Desk, tmp_path: Path) -> None:
    _organisations_root(desk, ends=datetime.timedelta(days=9))
    out = tmp_path / "carry"
    assert "name it with --trust-domain" in desk.refused("intermediate", "--root", desk.root, "--out", out)
    assert not out.exists()
    desk.intermediate(out, "--trust-domain", OURS)
    assert Authority.load(out).trust_domain == OURS


@pytest.mark.parametrize(
    ("path_length", "ends", "message"),
    [
        (0, datetime.timedelta(days=9), "allows no intermediate below it"),
        (None, -datetime.timedelta(days=1), "not now; import a present one or mend the clock"),
    ],
)
def test_nothing_is_made_that_could_not_be_imported(
    desk: Desk, tmp_path: Path, path_length: int | None, ends: datetime.timedelta, message: str
) -> None:
    _organisations_root(desk, path_length=path_length, ends=ends)
    out = tmp_path / "carry"
    said = desk.refused("intermediate", "--root", desk.root, "--out", out, "--trust-domain", OURS)
    assert message in said
    assert not out.exists()


def test_what_was_typed_wrongly_is_told_in_one_line(desk: Desk, tmp_path: Path) -> None:
    desk.make_root()
    out = tmp_path / "carry"
    base = ("intermediate", "--root", desk.root, "--out", out)
    assert "root of cluster.local and not of other.example" in desk.refused(*base, "--trust-domain", "other.example")
    assert "shorter than an hour" in desk.refused(*base, "--lifetime", "59m")
    assert "write a number and a unit" in desk.refused(*base, "--lifetime", "soon")
    assert "holds a private key" in desk.refused(*base, "--request", desk.root / "root.key")
    assert "root.crt stands there already" in desk.refused("intermediate", "--root", desk.root, "--out", desk.root)
    assert "root.crt: it is missing" in desk.refused("intermediate", "--root", tmp_path, "--out", out)
    assert not out.exists()
    assert "root.crt stands there already" in desk.refused("root", "--trust-domain", OURS, "--out", desk.root)
    brief = ("root", "--trust-domain", OURS, "--out", out, "--lifetime", "0s")
    assert "shorter than an hour" in desk.refused(*brief)
    desk.done("request", "--out", tmp_path / "asks")
    before = (tmp_path / "asks" / "intermediate.key").read_bytes()
    assert "intermediate.key stands there already" in desk.refused("request", "--out", tmp_path / "asks")
    assert (tmp_path / "asks" / "intermediate.key").read_bytes() == before


def test_a_key_of_the_root_that_others_read_is_warned_of(desk: Desk, tmp_path: Path) -> None:
    desk.make_root()
    (desk.root / "root.key").chmod(0o644)
    assert main(["intermediate", "--root", str(desk.root), "--out", str(tmp_path / "carry")]) == 0
    assert re.search(r"root\.key: everybody may read", desk.capsys.readouterr().err)


def test_a_key_of_another_root_is_refused(desk: Desk) -> None:
    desk.make_root()
    (desk.root / "root.key").write_bytes(write_key(generate_key()))
    with pytest.raises(AuthorityError, match=r"does not belong to root\.crt"):
        OfflineRoot.load(desk.root)


def test_no_key_shows_in_a_repr() -> None:
    root = OfflineRoot.create(TrustDomain("cluster.local"), now())
    assert "key" not in repr(root)
    assert read_key(write_key(root.key)).public_key() == root.key.public_key()
