"""Steps of a relationship with a foreign trust domain: what a poll changes, what it leaves, and what is kept of it."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import pytest

from certs.bundle import TrustBundle
from certs.bundle_feed import MAX_REDIRECTS, BundleEndpoint, EndpointProfile, FeedError
from certs.federation import (
    FIRST_INTERVAL,
    Relationship,
    answer,
    begin,
    bundle_files,
    canonical_jwks,
    endpoint_fault,
    fail,
    reconfigure,
    redirected,
    unchanged,
    write_cache,
)
from certs.spiffe import SpiffeId
from certs.testing import BROKEN, MemoryAuthority

NOW = 1_893_456_000.0


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("other.example")


@functools.cache
def later() -> MemoryAuthority:
    """The same trust domain with other keys: what it has after a rotation of its root."""
    return MemoryAuthority("other.example")


def web(url: str = "https://other.example/bundle") -> BundleEndpoint:
    return BundleEndpoint(trust_domain=memory().trust_domain, url=url, profile=EndpointProfile.HTTPS_WEB)


def spiffe(bootstrap: TrustBundle | None = None, endpoint_id: str = "spiffe://other.example/bundles") -> BundleEndpoint:
    return BundleEndpoint(
        trust_domain=memory().trust_domain,
        url="https://other.example/bundle",
        profile=EndpointProfile.HTTPS_SPIFFE,
        endpoint_id=SpiffeId.parse(endpoint_id),
        bootstrap=bootstrap or memory().bundle,
    )


def document(*authorities: MemoryAuthority, sequence: int | None = 1, hint: int | None = None) -> bytes:
    roots = tuple(each.root for each in authorities)
    bundle = TrustBundle(trust_domain=memory().trust_domain, certificates=roots, sequence=sequence, refresh_hint=hint)
    return bundle.to_jwks()


def answered(relationship: Relationship, body: bytes, **more: Any) -> Relationship:
    step = answer(relationship, body, **({"etag": "", "now": NOW, "jitter": 0.0} | more))
    assert step.relationship.fault == ""
    return step.relationship


def test_nobody_is_trusted_before_the_first_bundle_not_even_by_the_bootstrap_bundle() -> None:
    relationship = begin(spiffe()).relationship
    assert relationship.bundle is None
    assert bundle_files([relationship]) == {}
    assert relationship.next_poll_at <= NOW


def test_a_bundle_is_taken_and_the_next_poll_follows_its_hint() -> None:
    step = answer(begin(web()).relationship, document(memory(), hint=60), etag='"a"', now=NOW, jitter=0.0)
    relationship = step.relationship
    assert step.is_changed
    assert relationship.next_poll_at == NOW + 60
    assert (relationship.etag, relationship.known_etag, relationship.fetched_at) == ('"a"', '"a"', NOW)
    assert list(bundle_files([relationship])) == ["bundles/other.example.json"]


def test_the_files_depend_on_the_roots_alone() -> None:
    first = answered(begin(web()).relationship, document(memory(), later(), sequence=1, hint=60))
    step = answer(first, document(later(), memory(), sequence=2, hint=90), etag="", now=NOW, jitter=0.0)
    assert not step.is_changed
    assert bundle_files([step.relationship]) == bundle_files([first])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"keys": 1}', b'{"keys": [], "keys": []}', b"<html>", b"\xff"])
def test_what_is_no_bundle_changes_nothing_and_waits_for_the_next_interval(body: bytes) -> None:
    held = answered(begin(web()).relationship, document(memory(), hint=600))
    step = answer(held, body, etag='"b"', now=NOW + 600, jitter=0.0)
    assert not step.is_changed
    assert step.relationship.bundle == held.bundle
    assert step.relationship.fetched_at == held.fetched_at
    assert (step.relationship.polls_failed, step.relationship.next_poll_at) == (1, NOW + 1200)
    assert "https://other.example/bundle" in step.relationship.fault


def test_failures_are_counted_and_end_with_the_next_bundle() -> None:
    held = answered(begin(web()).relationship, document(memory()))
    for count in (1, 2, 3):
        held = fail(held, "no route", now=NOW, jitter=0.0).relationship
        assert (held.polls_failed, held.fault) == (count, "no route")
    assert answered(held, document(memory())).polls_failed == 0


def test_before_the_first_bundle_a_failure_waits_for_less() -> None:
    step = fail(begin(web()).relationship, "refused", now=NOW, jitter=0.0)
    assert step.relationship.next_poll_at == NOW + FIRST_INTERVAL


def test_an_emptied_bundle_is_an_order_and_is_kept() -> None:
    held = answered(begin(web()).relationship, document(memory(), sequence=1))
    step = answer(held, b'{"keys": [], "spiffe_sequence": 2}', etag="", now=NOW, jitter=0.0)
    assert step.is_changed
    assert bundle_files([step.relationship]) == {"bundles/other.example.json": b'{\n  "keys": []\n}\n'}
    again = begin(web(), write_cache(step.relationship)).relationship
    assert bundle_files([again]) == bundle_files([step.relationship])


def test_an_older_copy_is_ignored_with_a_warning_and_never_called_unchanged() -> None:
    held = answered(begin(web()).relationship, document(later(), sequence=5), etag='"new"')
    step = answer(held, document(memory(), sequence=4), etag='"old"', now=NOW, jitter=0.0)
    assert "lags behind" in step.warning
    assert step.relationship.bundle == held.bundle
    assert step.relationship.known_etag == ""


def test_other_roots_under_the_same_sequence_are_a_failed_poll() -> None:
    held = answered(begin(web()).relationship, document(memory(), sequence=5))
    step = answer(held, document(later(), sequence=5), etag="", now=NOW, jitter=0.0)
    assert "must count each change" in step.relationship.fault
    assert step.relationship.bundle == held.bundle


def test_unchanged_counts_only_where_it_was_asked_for() -> None:
    held = answered(begin(web()).relationship, document(memory(), hint=60), etag='"a"')
    step = unchanged(held, now=NOW + 60, jitter=0.0)
    assert (step.relationship.fetched_at, step.relationship.next_poll_at) == (NOW + 60, NOW + 120)
    for wrong in (begin(web()).relationship, dataclasses.replace(held, etag="")):
        assert "304" in unchanged(wrong, now=NOW, jitter=0.0).relationship.fault


@pytest.mark.parametrize("etag", ["x" * 257, '"a\r\nb"', '"\x00"'])
def test_an_entity_tag_that_cannot_be_sent_back_is_forgotten(etag: str) -> None:
    assert answered(begin(web()).relationship, document(memory()), etag=etag).etag == ""


# --- who the endpoint is ---------------------------------------------------------------------------------------------


def test_a_self_serving_endpoint_is_verified_by_its_newest_bundle() -> None:
    first = begin(spiffe()).relationship
    assert first.verifying_bundle == memory().bundle
    held = answered(first, document(later(), sequence=2))
    assert held.verifying_bundle is not None
    assert held.verifying_bundle.certificates == (later().root,)


def test_an_endpoint_of_another_domain_is_verified_by_its_bootstrap_for_good() -> None:
    host = MemoryAuthority("host.example")
    endpoint = spiffe(host.bundle, "spiffe://host.example/bundles")
    held = answered(begin(endpoint).relationship, document(memory()))
    assert held.verifying_bundle == host.bundle


def test_with_https_web_no_bundle_verifies() -> None:
    assert answered(begin(web()).relationship, document(memory())).verifying_bundle is None


def test_the_endpoint_must_show_its_own_identity() -> None:
    endpoint = spiffe(endpoint_id="spiffe://other.example/ns/mesh/sa/bundles")
    assert endpoint_fault(endpoint, memory().svid("mesh", "bundles").leaf) is None
    assert "and not spiffe://other.example/ns/mesh/sa/bundles" in str(
        endpoint_fault(endpoint, memory().svid("mesh", "other").leaf)
    )
    assert endpoint_fault(web(), memory().svid("mesh", "other").leaf) is None


@pytest.mark.parametrize("name", ["no_subject_alt_name", "two_uris_distinct", "spiffe_and_https_uri"])
def test_a_certificate_that_breaks_a_rule_is_no_endpoint(name: str) -> None:
    endpoint = spiffe(endpoint_id="spiffe://other.example/ns/demo/sa/rogue")
    assert "no X.509-SVID" in str(endpoint_fault(endpoint, BROKEN[name].make(memory()).leaf))


# --- what the configuration changes ----------------------------------------------------------------------------------


def test_a_changed_endpoint_is_asked_at_once_and_begins_anew_while_the_bundle_stays() -> None:
    held = answered(begin(web()).relationship, document(memory(), sequence=9), etag='"a"')
    moved = reconfigure(held, web("https://elsewhere.example/"))
    assert moved.next_poll_at <= NOW
    assert bundle_files([moved]) == bundle_files([held])
    assert (moved.held, moved.known_etag) == (None, "")
    assert answered(moved, document(later(), sequence=1)).bundle != held.bundle, "its numbers are another publisher's"
    assert reconfigure(held, web()) is held


def test_a_new_bootstrap_bundle_verifies_where_the_served_one_no_longer_can() -> None:
    held = answered(begin(spiffe()).relationship, document(memory(), sequence=1))
    moved = reconfigure(held, spiffe(later().bundle))
    assert moved.verifying_bundle == later().bundle
    assert moved.bundle == held.bundle


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_cached_bundle_is_in_force_at_once_and_its_poll_is_due() -> None:
    held = answered(begin(spiffe()).relationship, document(memory(), sequence=3, hint=60))
    step = begin(spiffe(), write_cache(held))
    assert step.is_changed
    assert step.relationship.bundle == held.bundle
    assert step.relationship.verifying_bundle == held.bundle
    assert step.relationship.next_poll_at <= NOW


@pytest.mark.parametrize(
    "other",
    [
        lambda: web(),
        lambda: spiffe(later().bundle),
        lambda: spiffe(endpoint_id="spiffe://other.example/else"),
    ],
)
def test_a_cache_of_another_endpoint_is_not_used(other: Any) -> None:
    held = answered(begin(spiffe()).relationship, document(memory()))
    step = begin(other(), write_cache(held))
    assert step.relationship.bundle is None
    assert "another endpoint" in step.warning


def test_a_cache_that_is_broken_is_a_warning() -> None:
    cached = write_cache(answered(begin(web()).relationship, document(memory())))
    whole = json.loads(cached)
    broken = [b"", b"{}", b"[]", b"null", cached[:-20], b"\xff" * 10, b"[" * 100_000]
    broken += [
        json.dumps(whole | change).encode()
        for change in ({"bundle": "!"}, {"bundle": 5}, {"bundle": ""}, {"fetched_at": None}, {"endpoint": 1})
    ]
    for data in broken:
        step = begin(web(), data)
        assert step.relationship.bundle is None, data[:40]
        assert step.warning, data[:40]


def test_nothing_is_cached_before_there_is_something() -> None:
    with pytest.raises(FeedError, match="no bundle"):
        write_cache(begin(web()).relationship)


# --- redirects -------------------------------------------------------------------------------------------------------


def test_redirects_lead_to_endpoints_only_and_end() -> None:
    assert redirected(web(), "https://a.example/x/y", "z", 1) == "https://a.example/x/z"
    assert (
        redirected(web(), "https://a.example/", "https://b.example:8443/", MAX_REDIRECTS) == "https://b.example:8443/"
    )
    for location, hops, words in (
        ("http://a.example/", 1, "not https"),
        ("https://u:p@a.example/", 1, "user name"),
        ("https://a.example/#f", 1, "fragment"),
        ("https://a.example/\r\nx", 1, "no URL"),
        ("file:///etc/passwd", 1, "not https"),
        (None, 1, "does not say where"),
        ("/", MAX_REDIRECTS + 1, "redirects one after the other"),
    ):
        with pytest.raises(FeedError, match=words):
            redirected(web(), "https://a.example/", location, hops)


def test_equal_roots_are_equal_bytes() -> None:
    one = TrustBundle(trust_domain=memory().trust_domain, certificates=(memory().root, later().root), sequence=1)
    two = TrustBundle(trust_domain=memory().trust_domain, certificates=(later().root, memory().root), refresh_hint=5)
    assert canonical_jwks(one) == canonical_jwks(two)
