"""What holds for every name, certificate and bundle, not only for those that somebody thought of."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Callable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.bundle import BundleError, parse_bundle, parse_bundle_map, parse_jwks
from certs.report import report_chain
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain
from certs.store import SetError, judge_set
from certs.svid import SvidError, leaf_violations, presented_name, signing_violations, spiffe_id_of
from certs.testing import MemoryAuthority, set_files, with_uri

Result = TypeVar("Result")
Error = TypeVar("Error", bound=Exception)

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
MEMORY = MemoryAuthority("cluster.local", NOW)
FILES = set_files(MEMORY.svid("demo", "orders"), MEMORY.bundles)
LEAF = MEMORY.svid("demo", "orders").leaf.public_bytes(Encoding.DER)

# The rules of a SPIFFE ID written a second time, the slow way, segment by segment.
HOST = re.compile(rb"\A[a-z0-9._-]{1,255}\Z")
SEGMENT = re.compile(rb"\A[A-Za-z0-9._-]+\Z")

nearly_ids = st.lists(
    st.sampled_from(
        [b"spiffe://", b"td", b"/", b"a", b"A", b".", b"..", b"%2f", b"\n", b"\x00", b"\xff", b":", b"@", b"?"]
    )
    | st.binary(max_size=3),
    max_size=8,
).map(lambda parts: b"spiffe://" + b"".join(parts))
any_bytes = st.binary(max_size=40) | nearly_ids


def attempt(call: Callable[[], Result], error: type[Error]) -> Result | Error:
    """Calls, and gives back what came: the result, or the one kind of error that may come."""
    try:
        return call()
    except error as caught:
        return caught


def is_spiffe_id(raw: bytes) -> bool:
    if not raw.startswith(b"spiffe://") or len(raw) > 2048:
        return False
    host, *segments = raw.removeprefix(b"spiffe://").split(b"/")
    return bool(HOST.match(host)) and all(
        SEGMENT.match(segment) and segment not in (b".", b"..") for segment in segments
    )


@settings(derandomize=True, deadline=None, max_examples=500)
@given(any_bytes)
def test_parse_agrees_with_the_slow_reading_and_changes_nothing(raw: bytes) -> None:
    parsed = attempt(lambda: SpiffeId.parse(raw), SpiffeIdError)
    if isinstance(parsed, SpiffeIdError):
        assert not is_spiffe_id(raw)
        assert re.fullmatch(r"ID\d+", parsed.rule)
        assert str(parsed).isprintable()
    else:
        assert is_spiffe_id(raw)
        assert str(parsed).encode("ascii") == raw
        assert SpiffeId.parse(str(parsed)) == parsed == SpiffeId(parsed.trust_domain, parsed.path)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(max_size=30))
def test_parse_of_any_text_is_an_id_or_a_named_rule(text: str) -> None:
    for value in (text, f"spiffe://{text}", f"spiffe://td/{text}"):
        parsed = attempt(lambda value=value: SpiffeId.parse(value), SpiffeIdError)  # type: ignore[misc]
        assert parsed.rule if isinstance(parsed, SpiffeIdError) else str(parsed) == value


@settings(derandomize=True, deadline=None, max_examples=100)
@given(any_bytes)
def test_a_certificate_is_believed_exactly_when_its_bytes_are_an_id_with_path(raw: bytes) -> None:
    leaf = with_uri(raw)(MEMORY).leaf
    is_workload = is_spiffe_id(raw) and b"/" in raw.removeprefix(b"spiffe://")
    assert (leaf_violations(leaf) == []) == is_workload
    assert presented_name(leaf).isprintable()
    if is_workload:
        assert str(spiffe_id_of(leaf)).encode("ascii") == raw


@settings(derandomize=True, deadline=None, max_examples=600)
@given(st.integers(0, len(LEAF) - 1), st.integers(1, 255), st.integers(0, len(LEAF) - 1), st.integers(0, 255))
def test_no_certificate_raises_whatever_bytes_it_holds(first: int, turn: int, second: int, other: int) -> None:
    der = bytearray(LEAF)
    der[first] ^= turn
    der[second] ^= other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of odd serial numbers
        try:
            certificate = x509.load_der_x509_certificate(bytes(der))
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
            return
        findings = leaf_violations(certificate) + signing_violations(certificate, TrustDomain("cluster.local"))
        assert all(str(finding).isprintable() for finding in findings)
        assert presented_name(certificate).isprintable() or presented_name(certificate) == ""
        named = attempt(lambda: spiffe_id_of(certificate), SvidError)
        assert not isinstance(named, SvidError) or named.finding in leaf_violations(certificate)
        assert all(line.isprintable() for line in report_chain([certificate], NOW).lines if line)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 5000), st.binary(max_size=4), st.booleans())
def test_any_damage_to_a_set_is_a_list_of_faults(name: str, place: int, patch: bytes, cut: bool) -> None:
    content = FILES[name]
    place %= len(content)
    damaged = content[:place] + patch + (b"" if cut else content[place + len(patch) :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = attempt(lambda: judge_set({**FILES, name: damaged}, MEMORY.trust_domain, NOW), SetError)
    if isinstance(judged, SetError):
        assert judged.faults
        assert all("PRIVATE" not in fault for fault in judged.faults)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "use", "kty", "x5c", "trust_domains", "td", "spiffe_sequence"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(json_values)
def test_any_json_is_a_bundle_or_a_bundle_error(document: object) -> None:
    data = json.dumps(document).encode()
    for outcome in (
        attempt(lambda: parse_jwks(TrustDomain("td"), data), BundleError),
        attempt(lambda: parse_bundle_map(data), BundleError),
    ):
        assert not isinstance(outcome, BundleError) or outcome.faults


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda raw: b"{" + raw))
def test_any_bytes_are_a_bundle_or_a_bundle_error(data: bytes) -> None:
    outcome = attempt(lambda: parse_bundle(TrustDomain("td"), data), BundleError)
    assert not isinstance(outcome, BundleError) or outcome.faults
