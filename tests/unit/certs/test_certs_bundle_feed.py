"""A bundle is taken forwards alone, an endpoint's URL is safe to follow, and polls keep to the hint."""

from __future__ import annotations

import dataclasses

import pytest

from certs.bundle import BundleError, TrustBundle, parse_jwks
from certs.bundle_feed import (
    CONTENT_TYPE,
    DEFAULT_INTERVAL,
    MAX_INTERVAL,
    MIN_INTERVAL,
    BundleEndpoint,
    EndpointProfile,
    FeedError,
    answer,
    endpoint_url_fault,
    next_poll,
    take,
)
from certs.spiffe import SpiffeId
from certs.testing import MemoryAuthority

URL = "https://bundles.neighbour.example:8443/v1/bundle"


def numbered(memory: MemoryAuthority, sequence: int | None, *, roots: int = 1, hint: int | None = None) -> TrustBundle:
    both = (memory.root, memory.impostor.root)
    return TrustBundle(
        trust_domain=memory.trust_domain, certificates=both[:roots], sequence=sequence, refresh_hint=hint
    )


def test_an_answer_is_a_bundle_with_sequence_and_hint(memory: MemoryAuthority) -> None:
    served = answer(numbered(memory, 7))
    read = parse_jwks(memory.trust_domain, served.body)
    assert (read.sequence, read.refresh_hint, read.certificates) == (7, 300, (memory.root,))
    assert served.content_type == CONTENT_TYPE == "application/json"
    assert served.etag != answer(numbered(memory, 8)).etag
    assert parse_jwks(memory.trust_domain, answer(numbered(memory, 7, hint=60)).body).refresh_hint == 60
    with pytest.raises(FeedError, match="number it"):
        answer(numbered(memory, None))


def test_a_higher_sequence_is_taken_and_a_lower_one_ignored_with_a_warning(memory: MemoryAuthority) -> None:
    held = numbered(memory, 7)
    newer = numbered(memory, 8, roots=2)
    taken = take(held, memory.trust_domain, newer.to_jwks(), URL)
    assert (taken.bundle, taken.is_changed, taken.warning) == (newer, True, None)
    older = take(newer, memory.trust_domain, held.to_jwks(), URL)
    assert (older.bundle, older.is_changed) == (newer, False)
    assert "sequence 7 and 8 is held" in str(older.warning)


def test_the_same_sequence_means_the_same_roots(memory: MemoryAuthority) -> None:
    held = numbered(memory, 7, roots=2)
    turned = dataclasses.replace(held, certificates=held.certificates[::-1], refresh_hint=60)
    taken = take(held, memory.trust_domain, turned.to_jwks(), URL)
    assert (taken.bundle.refresh_hint, taken.is_changed, taken.warning) == (60, False, None)
    for roots in (0, 1):
        with pytest.raises(FeedError, match="must count each change"):
            take(held, memory.trust_domain, numbered(memory, 7, roots=roots).to_jwks(), URL)


def test_no_keys_is_an_order(memory: MemoryAuthority) -> None:
    taken = take(numbered(memory, 7), memory.trust_domain, b'{"keys": [], "spiffe_sequence": 8}', URL)
    assert (taken.bundle.certificates, taken.is_changed) == ((), True)
    replayed = take(taken.bundle, memory.trust_domain, numbered(memory, 7).to_jwks(), URL)
    assert replayed.bundle.certificates == ()


def test_without_a_sequence_the_content_decides(memory: MemoryAuthority) -> None:
    bare = numbered(memory, None)
    assert take(None, memory.trust_domain, bare.to_jwks(), URL).is_changed
    assert not take(bare, memory.trust_domain, bare.to_jwks(), URL).is_changed
    assert take(bare, memory.trust_domain, numbered(memory, 1, roots=2).to_jwks(), URL).warning is None
    lost = take(numbered(memory, 7), memory.trust_domain, numbered(memory, None, roots=2).to_jwks(), URL)
    assert lost.is_changed
    assert "no sequence any more" in str(lost.warning)


def test_what_is_no_bundle_or_of_another_domain_is_not_taken(memory: MemoryAuthority) -> None:
    with pytest.raises(BundleError, match="no JSON"):
        take(None, memory.trust_domain, b"<html>", URL)
    with pytest.raises(FeedError, match="never mixed"):
        take(memory.neighbour.bundle, memory.trust_domain, b'{"keys": []}', URL)


@pytest.mark.parametrize(
    ("hint", "interval"),
    [
        (None, DEFAULT_INTERVAL),
        (0, MIN_INTERVAL),
        (60, 60.0),
        (10**400, MAX_INTERVAL),
    ],
)
def test_polls_come_at_the_hint_or_a_tenth_earlier(hint: int | None, interval: float) -> None:
    assert next_poll(hint, 0.0, 0.0) == interval
    assert next_poll(hint, 0.0, 1.0) == pytest.approx(0.9 * interval)
    assert 0.9 * interval < next_poll(hint, 0.0, 0.5) < interval


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "characters"),
        ("https://a/" + "a" * 2048, "characters"),
        ("http://a/", "not https"),
        ("//a/", "no scheme"),
        ("spiffe://a/b", "not https"),
        ("https://user@a/", "user name"),
        ("https://user:secret@a/", "user name"),
        ("https://@a/", "user name"),
        ("https:///path", "no host"),
        ("https://:443/", "no host"),
        ("https://a:0/", "no host, or no port"),
        ("https://a:65536/", "cannot be read"),
        ("https://a:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://a/#b", "fragment"),
        ("https://a/ b", "character"),
        ("https://a/\n", "character"),
        ("https://a\\b/", "character"),
        ("https://é.example/", "character"),
    ],
)
def test_a_url_that_is_none_of_an_endpoint_is_refused(url: str, says: str) -> None:
    fault = endpoint_url_fault(url)
    assert fault is not None
    assert says in fault
    assert "secret" not in fault


@pytest.mark.parametrize("url", [URL, "https://a", "https://10.0.0.1/", "https://[::1]:8443/b?c=d", "HTTPS://a/%20"])
def test_a_url_of_an_endpoint_is_taken(url: str) -> None:
    assert endpoint_url_fault(url) is None


def test_redirects_lead_to_endpoints_alone(memory: MemoryAuthority) -> None:
    web = BundleEndpoint(trust_domain=memory.neighbour.trust_domain, url=URL, profile=EndpointProfile.HTTPS_WEB)
    assert web.redirect("other?x=1") == "https://bundles.neighbour.example:8443/v1/other?x=1"
    assert web.redirect("https://elsewhere.example/") == "https://elsewhere.example/"
    for location in ("http://bundles.neighbour.example/", "//u@a/", "file:///etc/passwd", "", "/a\r\nb", "//[/"):
        with pytest.raises(FeedError):
            web.redirect(location)


def test_a_profile_has_its_parameters_and_no_others(memory: MemoryAuthority) -> None:
    neighbour = memory.neighbour
    own_id = SpiffeId.parse("spiffe://neighbour.example/authority")
    endpoint = BundleEndpoint(
        trust_domain=neighbour.trust_domain,
        url=URL,
        profile=EndpointProfile.HTTPS_SPIFFE,
        endpoint_id=own_id,
        bootstrap=neighbour.bundle,
    )
    for changes, says in (
        ({"profile": EndpointProfile.HTTPS_WEB}, "leave the endpoint's"),
        ({"endpoint_id": None}, "needs the endpoint's"),
        ({"bootstrap": None}, "needs the endpoint's"),
        ({"endpoint_id": SpiffeId.parse("spiffe://neighbour.example")}, "names no workload"),
        ({"bootstrap": memory.bundle}, "bring the bundle of the latter"),
        ({"url": "http://a/"}, "not https"),
    ):
        with pytest.raises(FeedError, match=says):
            dataclasses.replace(endpoint, **changes)


def test_a_self_serving_endpoint_is_verified_by_its_newest_bundle_and_another_by_the_bootstrap_one(
    memory: MemoryAuthority,
) -> None:
    neighbour = memory.neighbour
    newest = dataclasses.replace(neighbour.bundle, sequence=9)
    own = BundleEndpoint(
        trust_domain=neighbour.trust_domain,
        url=URL,
        profile=EndpointProfile.HTTPS_SPIFFE,
        endpoint_id=SpiffeId.parse("spiffe://neighbour.example/authority"),
        bootstrap=neighbour.bundle,
    )
    assert own.verifying_bundle(None) == neighbour.bundle
    assert own.verifying_bundle(newest) == newest
    third = dataclasses.replace(
        own, endpoint_id=SpiffeId.parse("spiffe://cluster.local/feeds"), bootstrap=memory.bundle
    )
    assert third.verifying_bundle(newest) == memory.bundle
    web = BundleEndpoint(trust_domain=neighbour.trust_domain, url=URL, profile=EndpointProfile.HTTPS_WEB)
    assert web.verifying_bundle(newest) is None
