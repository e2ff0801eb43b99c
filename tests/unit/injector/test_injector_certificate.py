"""The webhook's certificate: made, judged, renewed, and its authority replaced, each step by a clock of its own."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.testing import half_readable
from injector.certificate import (
    AUTHORITY_LIFETIME,
    BACK_DATE,
    CA,
    CA_KEY,
    CHAIN,
    KEY,
    LEAF_LIFETIME,
    NEXT,
    PREVIOUS,
    SPREAD,
    advance,
    ca_bundle,
    dns_names,
    not_after,
)
from proxy.https.web_pair import judge_pair

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
NAMES = dns_names("remora-injector", "remora-system")
DAY = datetime.timedelta(days=1)


def settled(files: Mapping[str, bytes], now: datetime.datetime) -> dict[str, bytes]:
    """Take every step that is due."""
    for _ in range(5):
        step = advance(files, NAMES, now)
        if step is None:
            return dict(files)
        files = step.files
    raise AssertionError("it does not settle")


def believed(files: Mapping[str, bytes], bundle: bytes, now: datetime.datetime, name: str = NAMES[0]) -> bool:
    """Verify as an API server does: by the caBundle alone, at a moment, for the Service's name."""
    roots = Store(x509.load_pem_x509_certificates(bundle))
    [leaf] = x509.load_pem_x509_certificates(files[CHAIN])
    verifier = PolicyBuilder().store(roots).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf, [])
    except VerificationError:
        return False
    return True


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return settled({}, NOW)


def test_out_of_nothing_comes_a_pair_that_an_api_server_believes(made: dict[str, bytes]) -> None:
    assert set(made) == {CA, CA_KEY, CHAIN, KEY}
    for name in NAMES:
        assert believed(made, ca_bundle(made), NOW, name)
    assert not believed(made, ca_bundle(made), NOW, "remora-injector.other.svc")
    assert not_after(made) == NOW + LEAF_LIFETIME
    assert judge_pair(made[CHAIN], made[KEY], CHAIN, KEY).date_fault(NOW) is None


def test_what_is_good_is_left_alone(made: dict[str, bytes]) -> None:
    assert advance(made, NAMES, NOW) is None
    assert advance(made, NAMES, NOW + 19 * DAY) is None


def test_its_authority_signs_for_no_other_name(made: dict[str, bytes]) -> None:
    [authority] = x509.load_pem_x509_certificates(made[CA])
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [each.value for each in constraints.value.permitted_subtrees or ()] == list(NAMES)


def test_it_is_renewed_when_a_third_is_left(made: dict[str, bytes]) -> None:
    step = advance(made, NAMES, NOW + 21 * DAY)
    assert step is not None
    assert "near its end" in step.what
    assert step.files[CA] == made[CA], "the authority stays, and so does the caBundle"
    assert not_after(step.files) == NOW + 21 * DAY + LEAF_LIFETIME


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (CHAIN, None, "there was none"),
        (KEY, None, "there was none"),
        (CHAIN, b"nonsense", "could not be read"),
        (KEY, b"nonsense", "could not be read"),
        (CA, None, "an authority was made: there was none"),
        (CA_KEY, b"nonsense", "an authority was made: ca.crt or ca.key could not be read"),
        (CA, b"", "an authority was made"),
    ],
)
def test_what_is_missing_or_damaged_is_made_anew(
    made: dict[str, bytes], name: str, content: bytes | None, words: str
) -> None:
    damaged = {key: value for key, value in made.items() if key != name}
    if content is not None:
        damaged[name] = content
    step = advance(damaged, NAMES, NOW)
    assert step is not None
    assert words in step.what
    after = settled(step.files, NOW)
    assert believed(after, ca_bundle(after), NOW)


def of_unknown_version(certificate: x509.Certificate) -> bytes:
    """Give the certificate as PEM, of a version that X.509 does not have."""
    der = certificate.public_bytes(Encoding.DER).replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1)
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("name", [CHAIN, CA])
def test_a_certificate_that_begins_well_and_cannot_be_used_is_made_anew(made: dict[str, bytes], name: str) -> None:
    [certificate] = x509.load_pem_x509_certificates(made[name])
    for damaged in (half_readable(certificate).public_bytes(Encoding.PEM), of_unknown_version(certificate)):
        step = advance({**made, name: damaged}, NAMES, NOW)
        assert step is not None
        assert "could not be read" in step.what
        after = settled(step.files, NOW)
        assert believed(after, ca_bundle(after), NOW)


def test_a_key_of_another_certificate_is_seen(made: dict[str, bytes]) -> None:
    other = settled({}, NOW)
    step = advance({**made, KEY: other[KEY]}, NAMES, NOW)
    assert step is not None
    assert "was not the key of tls.crt" in step.what
    step = advance({**made, CHAIN: other[CHAIN], KEY: other[KEY]}, NAMES, NOW)
    assert step is not None
    assert "of another authority" in step.what


def test_another_service_needs_another_authority(made: dict[str, bytes]) -> None:
    names = dns_names("injector", "mesh")
    step = advance(made, names, NOW)
    assert step is not None
    assert "for other names" in step.what
    assert believed(step.files, ca_bundle(step.files), NOW, names[0])


def test_an_ended_certificate_is_replaced_and_one_of_the_future_too(made: dict[str, bytes]) -> None:
    for moment in (NOW + LEAF_LIFETIME, NOW - 2 * BACK_DATE):
        after = settled(made, moment)
        assert believed(after, ca_bundle(after), moment)


def test_an_old_authority_is_replaced_without_a_moment_of_disbelief() -> None:
    files, bundle, now = settled({}, NOW), b"", NOW
    seen: list[bytes] = []
    bundle = ca_bundle(files)
    generations = {files[CA]}
    # Every twelve hours for three years; before each step, what is shown must be believed by the bundle of before.
    while now < NOW + 3 * AUTHORITY_LIFETIME:
        now += datetime.timedelta(hours=12)
        assert believed(files, bundle, now), now
        while (step := advance(files, NAMES, now)) is not None:
            assert believed(step.files, ca_bundle(files), now) or step.files[CHAIN] == files[CHAIN], step.what
            files = dict(step.files)
            bundle = ca_bundle(files)
            seen.append(files[CHAIN])
            generations.add(files[CA])
        assert believed(files, bundle, now), now
        assert len(x509.load_pem_x509_certificates(bundle)) <= 2 + (PREVIOUS in files)
    assert len(generations) >= 4, "the authority was replaced several times"
    assert NEXT not in files or files[NEXT] not in generations


def test_the_next_authority_waits_until_everybody_knows_it() -> None:
    files = settled({}, NOW)
    later = NOW + AUTHORITY_LIFETIME * 0.7
    files = settled(files, later)
    assert NEXT in files
    assert files[NEXT] in ca_bundle(files)
    before = files[CHAIN]
    assert settled(files, later + SPREAD - datetime.timedelta(seconds=1))[CHAIN] == before
    after = settled(files, later + SPREAD)
    assert after[CHAIN] != before
    assert NEXT not in after
    assert after[PREVIOUS] == files[CA]


def test_a_damaged_next_authority_is_made_again() -> None:
    later = NOW + AUTHORITY_LIFETIME * 0.7
    files = settled(settled({}, NOW), later)
    step = advance({**files, NEXT: b"nonsense"}, NAMES, later)
    assert step is not None
    assert "a next authority was made: next.crt or next.key could not be read" in step.what
    assert step.files[CA] == files[CA]
