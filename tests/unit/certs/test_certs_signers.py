"""Which roots and intermediates are taken, and what is said of each that is not."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Authority
from certs.keys import PrivateKey, generate_key, signing_hash
from certs.profile import key_usage, uri, with_key_identifiers
from certs.signers import (
    SignerError,
    intermediate_made,
    is_issued_by,
    judge_intermediate,
    judge_pair,
    judge_root,
    root_made,
)
from certs.spiffe import parse_trust_domain

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
OURS = parse_trust_domain("cluster.local")
ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
ROOT_KEY, OTHER_KEY, KEY = generate_key(), generate_key(), generate_key()


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a certificate is made; by default as the authority makes an intermediate."""

    name: str | None = "spiffe://cluster.local"
    begin: datetime.datetime = NOW - DAY
    end: datetime.datetime = NOW + DAY
    path_length: int | None = 0
    is_ca: bool = True
    signs_lists: bool = True
    constraints: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] = ()
    is_critical: bool = True
    has_key_identifiers: bool = True
    subject: str = "intermediate"
    issuer_key: PrivateKey = ROOT_KEY

    def certificate(self, issuer: x509.Certificate | None = None) -> x509.Certificate:
        key = KEY if issuer is not None else ROOT_KEY
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.subject)])
        path_length = self.path_length if self.is_ca else None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
            .add_extension(x509.BasicConstraints(ca=self.is_ca, path_length=path_length), critical=self.is_critical)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=self.signs_lists), critical=True)
        )
        if self.name is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([uri(self.name)]), critical=False)
        if self.constraints or self.excluded:
            permitted, excluded = ([uri(host) for host in hosts] for hosts in (self.constraints, self.excluded))
            builder = builder.add_extension(x509.NameConstraints(permitted or None, excluded or None), critical=True)
        if self.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.usages), critical=False)
        if self.has_key_identifiers:
            builder = with_key_identifiers(builder, key.public_key(), issuer)
        return builder.sign(self.issuer_key, signing_hash(self.issuer_key))


ROOT = Made(subject="root", path_length=1)
INTERMEDIATE = Made()
A_ROOT = ROOT.certificate()


@pytest.mark.parametrize(
    "made",
    [
        INTERMEDIATE,
        dataclasses.replace(INTERMEDIATE, path_length=None),
        dataclasses.replace(INTERMEDIATE, constraints=("cluster.local",)),
        dataclasses.replace(INTERMEDIATE, constraints=("other.example", ".local")),
        dataclasses.replace(INTERMEDIATE, begin=NOW),
        dataclasses.replace(INTERMEDIATE, usages=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)),
    ],
)
def test_a_good_intermediate_is_taken(made: Made) -> None:
    judge_intermediate(made.certificate(A_ROOT), A_ROOT, OURS, NOW)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (dataclasses.replace(INTERMEDIATE, name=None), "does not say which trust domain"),
        (dataclasses.replace(INTERMEDIATE, name="spiffe://other.example"), "signs for other.example and not for"),
        (dataclasses.replace(INTERMEDIATE, name="spiffe://cluster.local/ns/a"), "may not sign: .*has a path"),
        (dataclasses.replace(INTERMEDIATE, is_ca=False), "may not sign: .*CA:TRUE"),
        (dataclasses.replace(INTERMEDIATE, signs_lists=False), "may not sign revocation lists"),
        (dataclasses.replace(INTERMEDIATE, end=NOW), "not now; import a present one"),
        (dataclasses.replace(INTERMEDIATE, begin=NOW + DAY / 2), "not now; import a present one"),
        (dataclasses.replace(INTERMEDIATE, constraints=("other.example",)), "do not permit cluster.local"),
        (dataclasses.replace(INTERMEDIATE, constraints=(".cluster.local",)), "do not permit cluster.local"),
        (dataclasses.replace(INTERMEDIATE, issuer_key=OTHER_KEY), "the root did not sign"),
        (dataclasses.replace(INTERMEDIATE, is_critical=False), "basicConstraints of the intermediate is not critical"),
        (dataclasses.replace(INTERMEDIATE, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), "lacks clientAuth"),
        (dataclasses.replace(INTERMEDIATE, usages=(ANY_USAGE,)), "lacks serverAuth and clientAuth"),
    ],
)
def test_a_bad_intermediate_is_refused_with_the_mend(made: Made, says: str) -> None:
    with pytest.raises(SignerError, match=says):
        judge_intermediate(made.certificate(A_ROOT), A_ROOT, OURS, NOW)


def test_an_intermediate_of_another_root_is_refused() -> None:
    other = dataclasses.replace(ROOT, subject="another root").certificate()
    with pytest.raises(SignerError, match="import the two that belong together"):
        judge_intermediate(INTERMEDIATE.certificate(A_ROOT), other, OURS, NOW)


@pytest.mark.parametrize("made", [ROOT, dataclasses.replace(ROOT, name=None, path_length=None)])
def test_a_good_root_is_taken(made: Made) -> None:
    judge_root(made.certificate(), OURS, NOW)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (dataclasses.replace(ROOT, path_length=0), "allows no intermediate"),
        (dataclasses.replace(ROOT, issuer_key=OTHER_KEY), "not signed by itself"),
        (dataclasses.replace(ROOT, end=NOW), "the root is valid from"),
        (dataclasses.replace(ROOT, is_ca=False), "the root may not sign"),
        (dataclasses.replace(ROOT, constraints=("other.example",)), "of the root do not permit"),
    ],
)
def test_a_bad_root_is_refused_with_the_mend(made: Made, says: str) -> None:
    with pytest.raises(SignerError, match=says):
        judge_root(made.certificate(), OURS, NOW)


@pytest.mark.parametrize(
    ("root", "made", "says"),
    [
        (ROOT, INTERMEDIATE, ""),
        (
            ROOT,
            dataclasses.replace(INTERMEDIATE, has_key_identifiers=False),
            "certificate 2 .Missing .* Key Identifier",
        ),
        (ROOT, dataclasses.replace(INTERMEDIATE, excluded=("cluster.local",)), "a name that its issuer may not give"),
        (
            dataclasses.replace(ROOT, has_key_identifiers=False),
            INTERMEDIATE,
            "certificate 3 .Missing .* Key Identifier",
        ),
        (ROOT, dataclasses.replace(INTERMEDIATE, issuer_key=OTHER_KEY), "the root did not sign"),
        (dataclasses.replace(ROOT, path_length=0), INTERMEDIATE, "allows no intermediate"),
    ],
)
def test_what_a_pair_signs_is_tried_before_it_is_taken(root: Made, made: Made, says: str) -> None:
    above = root.certificate()
    pair = Authority(
        trust_domain=OURS, root=above, intermediate=made.certificate(above), intermediate_key=KEY, root_key=None
    )
    if not says:
        judge_pair(pair, OURS, NOW)
        return
    with pytest.raises(SignerError, match=says):
        judge_pair(pair, OURS, NOW)


def test_an_intermediate_is_no_root() -> None:
    with pytest.raises(SignerError, match="not signed by itself"):
        judge_root(INTERMEDIATE.certificate(A_ROOT), OURS, NOW)


def test_what_a_rotation_wants_to_know() -> None:
    intermediate = INTERMEDIATE.certificate(A_ROOT)
    root, made = root_made(A_ROOT), intermediate_made(intermediate, A_ROOT)
    assert made.root == root.name
    assert (made.not_before, made.not_after) == ((NOW - DAY).timestamp(), (NOW + DAY).timestamp())
    assert not is_issued_by(A_ROOT, intermediate)
