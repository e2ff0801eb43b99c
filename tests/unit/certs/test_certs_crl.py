"""A revocation list is believed only from its authority, only forwards, and only as long as it is fresh."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.crl import (
    CRL_LIFETIME,
    MAX_CRL_BYTES,
    CrlPolicy,
    CrlSnapshot,
    build_crl,
    judge_freshness,
    read_crl,
)
from certs.crl_extension import NAMES_AND_KEYS, CrlError
from certs.keys import generate_key
from certs.profile import BACK_DATE, SignerShape, key_usage, sign_signer
from certs.requests import key_fingerprint
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.testing import MemoryAuthority

SECOND = datetime.timedelta(seconds=1)
KEY = "ab" * 32
LEDGER = "spiffe://cluster.local/ns/demo/sa/ledger"


def revoke(memory: MemoryAuthority, revoked: Revocations, kind: Kind, value: str) -> Revocations:
    entry = Revocation(
        kind=kind,
        value=value,
        when=memory.now,
        reason=Reason.KEY_COMPROMISE,
        who="alice",
        not_after=memory.intermediate.not_valid_after_utc if kind is Kind.SERIAL else None,
    )
    return revoked.add(entry)


def written(memory: MemoryAuthority, revoked: Revocations, now: datetime.datetime | None = None) -> bytes:
    crl = build_crl(revoked, memory.intermediate, memory.intermediate_key, now or memory.now)
    return crl.public_bytes(Encoding.DER)


def read(memory: MemoryAuthority, data: bytes, now: datetime.datetime | None = None) -> CrlSnapshot:
    return read_crl(data, [memory.intermediate], memory.bundle, now or memory.now)


def forged(
    memory: MemoryAuthority,
    change: Callable[[x509.CertificateRevocationListBuilder], x509.CertificateRevocationListBuilder],
    *,
    number: int | None = 1,
    issuer: x509.Name | None = None,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer or memory.intermediate.subject)
        .last_update(memory.now)
        .next_update(memory.now + CRL_LIFETIME)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return change(builder).sign(memory.intermediate_key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_is_written_is_read_and_refuses_the_revoked(memory: MemoryAuthority) -> None:
    orders, ledger, cart = (memory.svid("demo", name) for name in ("orders", "ledger", "cart"))
    pay = memory.svid("demo", "pay")
    revoked = revoke(memory, Revocations(), Kind.SERIAL, f"{orders.leaf.serial_number:x}")
    revoked = revoke(memory, revoked, Kind.IDENTITY, LEDGER)
    revoked = revoke(memory, revoked, Kind.KEY, key_fingerprint(cart.leaf.public_key()))  # type: ignore[arg-type]
    for data in (written(memory, revoked), x509.load_der_x509_crl(written(memory, revoked)).public_bytes(Encoding.PEM)):
        snapshot = read(memory, data)
        assert snapshot.sequence == 3
        assert snapshot.table == revoked.table
        for svid, word in ((orders, "serial"), (ledger, "identity"), (cart, "key")):
            assert str(snapshot.refuses(svid.chain)).startswith(f"{word} ")
            ders = [certificate.public_bytes(Encoding.DER) for certificate in svid.chain]
            assert str(snapshot.refuses(ders)).startswith(f"{word} ")
        assert snapshot.refuses(pay.chain) is None


def test_a_lifted_identity_keeps_its_time(memory: MemoryAuthority) -> None:
    revoked = revoke(memory, Revocations(), Kind.IDENTITY, LEDGER)
    end = memory.intermediate.not_valid_after_utc
    lifted = revoked.lift(Kind.IDENTITY, LEDGER, memory.now + 5 * SECOND, issuer_end=end)
    assert read(memory, written(memory, lifted)).table == lifted.table


def test_the_form_of_the_list(memory: MemoryAuthority) -> None:
    revoked = revoke(memory, Revocations(), Kind.SERIAL, "1f")
    revoked = revoke(memory, revoked, Kind.KEY, KEY)
    unspecified = Revocation(
        kind=Kind.SERIAL,
        value="2f",
        when=memory.now,
        reason=Reason.UNSPECIFIED,
        who="alice",
        not_after=memory.now,
    )
    crl = x509.load_der_x509_crl(written(memory, revoked.add(unspecified)))
    assert crl.last_update_utc == memory.now - BACK_DATE
    assert crl.next_update_utc == memory.now + CRL_LIFETIME
    assert not crl.extensions.get_extension_for_oid(NAMES_AND_KEYS).critical
    named = crl.get_revoked_certificate_by_serial_number(0x1F)
    assert named is not None
    assert named.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    bare = crl.get_revoked_certificate_by_serial_number(0x2F)
    assert bare is not None
    assert not list(bare.extensions)


def test_next_update_does_not_outlive_the_issuer_and_an_ended_issuer_signs_nothing(memory: MemoryAuthority) -> None:
    end = memory.intermediate.not_valid_after_utc
    crl = build_crl(Revocations(), memory.intermediate, memory.intermediate_key, end - SECOND)
    assert crl.next_update_utc == end
    with pytest.raises(CrlError, match="rotate it or mend the clock"):
        build_crl(Revocations(), memory.intermediate, memory.intermediate_key, end)


def test_only_our_own_authority_is_believed(memory: MemoryAuthority) -> None:
    data = written(memory, Revocations(sequence=3))
    with pytest.raises(CrlError, match="no certificate that is known here"):
        read_crl(data, [], memory.bundle, memory.now)
    with pytest.raises(CrlError, match=r"no root of neighbour\.example"):
        read_crl(data, [memory.intermediate], memory.neighbour.bundle, memory.now)
    # The impostor has our names and keys of its own.
    other = written(memory.impostor, Revocations(sequence=9))
    with pytest.raises(CrlError, match="no certificate that is known here"):
        read(memory, other)
    with pytest.raises(CrlError, match=r"no root of cluster\.local"):
        read_crl(other, [memory.impostor.intermediate], memory.bundle, memory.now)


def test_one_changed_bit_spoils_it(memory: MemoryAuthority) -> None:
    data = bytearray(written(memory, Revocations(sequence=3)))
    data[-1] ^= 1
    with pytest.raises(CrlError):
        read(memory, bytes(data))


def test_a_list_of_another_version_or_issuer_is_refused(memory: MemoryAuthority) -> None:
    data = written(memory, Revocations())
    with pytest.raises(CrlError, match=r"no X\.509 CRL"):
        read(memory, data.replace(b"\x02\x01\x01", b"\x02\x01\x05", 1))
    renamed = forged(memory, lambda builder: builder, number=1, issuer=memory.root.subject)
    with pytest.raises(CrlError, match="names another issuer"):
        read(memory, renamed)


def test_a_signer_must_be_allowed_and_valid(memory: MemoryAuthority) -> None:
    leaf = memory.svid("demo", "orders")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(leaf.leaf.subject)
        .last_update(memory.now)
        .next_update(memory.now + CRL_LIFETIME)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    data = builder.sign(leaf.key, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(CrlError, match="signing_certificate_invalid"):
        read_crl(data, leaf.chain, memory.bundle, memory.now)
    end = memory.intermediate.not_valid_after_utc
    stale = written(memory, Revocations())
    with pytest.raises(CrlError, match="not valid now"):
        read(memory, stale, end + SECOND)


def test_a_signer_without_crl_sign_is_refused(memory: MemoryAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    key = generate_key()
    shape = SignerShape(
        trust_domain=memory.trust_domain, name="issuing", lifetime=datetime.timedelta(days=1), path_length=0
    )
    monkeypatch.setattr("certs.profile.key_usage", lambda **_: key_usage(key_cert_sign=True))
    signer = sign_signer(shape, key.public_key(), memory.root, memory.root_key, memory.now)
    data = build_crl(Revocations(), signer, key, memory.now).public_bytes(Encoding.DER)
    with pytest.raises(CrlError, match="lacks cRLSign"):
        read_crl(data, [signer], memory.bundle, memory.now)


@pytest.mark.parametrize(
    ("change", "number", "says"),
    [
        (lambda builder: builder, None, "no CRLNumber"),
        (lambda builder: builder.add_extension(x509.DeltaCRLIndicator(1), critical=True), 1, "critical extension"),
        (
            lambda builder: builder.add_extension(
                x509.UnrecognizedExtension(NAMES_AND_KEYS, b"\x0c\x02{}"), critical=False
            ),
            1,
            "cannot be read",
        ),
        (
            lambda builder: builder.add_extension(
                x509.UnrecognizedExtension(NAMES_AND_KEYS, b"\x04\x02{}"), critical=False
            ),
            1,
            "no UTF8String",
        ),
        (
            lambda builder: builder.add_extension(
                x509.UnrecognizedExtension(
                    NAMES_AND_KEYS,
                    (lambda text: b"\x0c" + bytes((len(text),)) + text)(
                        b'{"version":1,"identities":{"spiffe://other.example/a":null},"keys":[]}'
                    ),
                ),
                critical=False,
            ),
            1,
            "not its own",
        ),
        (lambda builder: builder.add_revoked_certificate(_indirect()), 1, "list of one issuer"),
    ],
)
def test_a_list_that_says_less_or_other_than_a_whole_one_is_refused(
    memory: MemoryAuthority,
    change: Callable[[x509.CertificateRevocationListBuilder], x509.CertificateRevocationListBuilder],
    number: int | None,
    says: str,
) -> None:
    with pytest.raises(CrlError, match=says):
        read(memory, forged(memory, change, number=number))


def _indirect() -> x509.RevokedCertificate:
    issuer = x509.CertificateIssuer([x509.DirectoryName(x509.Name([]))])
    moment = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    builder = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(moment)
    return builder.add_extension(issuer, critical=True).build()


@pytest.mark.parametrize("data", [b"", b"x", b"-----BEGIN X509 CRL-----\n", b"\x30\x80"])
def test_what_is_no_list_is_refused(memory: MemoryAuthority, data: bytes) -> None:
    with pytest.raises(CrlError, match=r"no X\.509 CRL"):
        read(memory, data)


def test_too_much_is_refused(memory: MemoryAuthority) -> None:
    with pytest.raises(CrlError, match="larger than"):
        read(memory, b"\0" * (MAX_CRL_BYTES + 1))
    pem = x509.load_der_x509_crl(written(memory, Revocations())).public_bytes(Encoding.PEM)
    with pytest.raises(CrlError, match="several"):
        read(memory, pem * 2)


def test_a_list_from_the_future_is_refused_beyond_a_minute(memory: MemoryAuthority) -> None:
    ahead = written(memory, Revocations(), memory.now + 120 * SECOND)
    assert read(memory, ahead).sequence == 0
    with pytest.raises(CrlError, match="lies ahead"):
        read(memory, written(memory, Revocations(), memory.now + 121 * SECOND))


def test_a_list_is_stale_after_its_next_update(memory: MemoryAuthority) -> None:
    snapshot = read(memory, written(memory, Revocations()))
    fresh, late = snapshot.next_update, snapshot.next_update + SECOND
    assert (snapshot.is_stale(fresh), snapshot.is_stale(late)) == (False, True)
    for policy in CrlPolicy:
        assert judge_freshness(snapshot, policy, fresh).fault is None
        for held in (None, snapshot):
            judged = judge_freshness(held, policy, late)
            assert judged.is_accepted is (policy is CrlPolicy.WARN)
            assert judged.fault
    assert read(memory, written(memory, Revocations()), late).sequence == 0


def test_newer_than_goes_forward_alone(memory: MemoryAuthority) -> None:
    first = read(memory, written(memory, revoke(memory, Revocations(), Kind.KEY, KEY)))
    second = read(memory, written(memory, Revocations(sequence=2)))
    again = read(memory, written(memory, revoke(memory, Revocations(), Kind.KEY, KEY), memory.now + 5 * SECOND))
    assert first.newer_than(None)
    assert second.newer_than(first)
    assert again.newer_than(first)
    assert not first.newer_than(again)
    assert not first.newer_than(first)
    with pytest.raises(CrlError, match="bring back"):
        first.newer_than(second)
    with pytest.raises(CrlError, match="two different lists"):
        read(memory, written(memory, Revocations(sequence=1))).newer_than(first)
    with pytest.raises(CrlError, match=r"not of other\.example"):
        second.newer_than(dataclasses.replace(first, trust_domain=memory.trust_domain.__class__("other.example")))


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.KEY])
def test_a_revoked_signer_does_not_pardon_itself(memory: MemoryAuthority, kind: Kind) -> None:
    fingerprint = key_fingerprint(memory.intermediate.public_key())  # type: ignore[arg-type]
    value = fingerprint if kind is Kind.KEY else f"{memory.intermediate.serial_number:x}"
    held = read(memory, written(memory, revoke(memory, Revocations(), kind, value)))
    with pytest.raises(CrlError, match="which list 1 revokes"):
        read(memory, written(memory, Revocations(sequence=9))).newer_than(held)
