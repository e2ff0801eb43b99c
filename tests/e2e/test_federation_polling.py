"""Polling a bundle endpoint over real TLS: who is believed, what is followed, what is kept when it fails."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_endpoint import Endpoint, Say, bundle_answer, endpoint, until, web_certificate

from certs.bundle import MAX_BUNDLE_BYTES, TrustBundle
from certs.spiffe import SpiffeId
from certs.testing import MemoryAuthority
from proxy.config_values import FederatedDomain
from proxy.enrolment import federation as federation_module
from proxy.enrolment.federation import Federation, Standing

NAME = "bundles/other.example.json"


@functools.cache
def other() -> MemoryAuthority:
    """The trust domain that is federated with."""
    return MemoryAuthority("other.example")


@functools.cache
def renewed() -> MemoryAuthority:
    """The same trust domain after its root was replaced."""
    return MemoryAuthority("other.example")


@functools.cache
def webs() -> MemoryAuthority:
    """Who issues certificates of the web here."""
    return MemoryAuthority("web.example")


def jwks(*authorities: MemoryAuthority, sequence: int = 1) -> bytes:
    roots = tuple(each.root for each in authorities)
    return TrustBundle(trust_domain=other().trust_domain, certificates=roots, sequence=sequence).to_jwks()


@pytest.fixture
def polling(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Makes federations, and ends them with the test."""
    made: list[Federation] = []

    def make(*domains: FederatedDomain, **more: Any) -> Federation:
        made.append(Federation(**more))
        made[-1].follow(domains)
        return made[-1]

    yield make
    for federation in made:
        federation.close()


def by_web(directory: Path, url: str, ca_file: str | None = None) -> FederatedDomain:
    roots = directory / "web-roots.pem"
    roots.write_bytes(webs().bundle.to_pem())
    return FederatedDomain(
        trust_domain=other().trust_domain,
        url=url,
        profile="https_web",
        ca_file=str(roots) if ca_file is None else ca_file,
    )


def by_spiffe(directory: Path, url: str, bootstrap: MemoryAuthority | None = None) -> FederatedDomain:
    authority = bootstrap or other()
    file = directory / f"bootstrap-{authority.root.serial_number:x}.pem"
    file.write_bytes(authority.bundle.to_pem())
    return FederatedDomain(
        trust_domain=other().trust_domain,
        url=url,
        profile="https_spiffe",
        identity=SpiffeId.parse("spiffe://other.example/ns/mesh/sa/bundles"),
        bundle_file=str(file),
    )


def stands(federation: Federation, polls: int = 1) -> Standing:
    """How the one domain stands when it was polled so often."""
    until(lambda: federation.standing()[0].polls >= polls, f"{polls} polls")
    return federation.standing()[0]


def polled_again(federation: Federation) -> Standing:
    polls = federation.standing()[0].polls
    federation.poll_now()
    return stands(federation, polls + 1)


# --- both profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("profile", ["https_web", "https_spiffe"])
def test_a_bundle_is_fetched(
    tmp_path: Path, polling: Callable[..., Federation], profile: str, version: ssl.TLSVersion
) -> None:
    shows = web_certificate(webs()) if profile == "https_web" else other().svid("mesh", "bundles")
    with Endpoint(tmp_path, shows, lambda _: bundle_answer(jwks(other()), 'ETag: "1"'), tls_version=version) as serving:
        domain = (by_web if profile == "https_web" else by_spiffe)(tmp_path, serving.url)
        federation = polling(domain)
        assert stands(federation).fault == ""
        assert list(federation.files()) == [NAME]
        [request] = serving.requests
        assert request.startswith(b"GET /bundle HTTP/1.1\r\n")
        assert b"\r\nHost: localhost:%d\r\n" % serving.port in request
        serving.say = lambda _: bundle_answer(b"", status="304 Not Modified")
        assert polled_again(federation).fault == ""
        assert b'\r\nIf-None-Match: "1"\r\n' in serving.requests[1]
        assert list(federation.files()) == [NAME]


UNBELIEVED: dict[str, tuple[Callable[[], Any], str]] = {
    "web: another name": (lambda: web_certificate(webs(), "elsewhere.example"), "not valid"),
    "web: another authority": (lambda: web_certificate(other()), "not valid"),
    "web: an SVID without a name": (lambda: webs().svid("mesh", "bundles"), "not valid"),
    "spiffe: another workload": (
        lambda: other().svid("mesh", "web"),
        "and not spiffe://other.example/ns/mesh/sa/bundles",
    ),
    "spiffe: another root": (lambda: renewed().svid("mesh", "bundles"), "leads to no root of other.example"),
    "spiffe: a name of the web": (lambda: web_certificate(other()), "no X.509-SVID"),
    "spiffe: two names": (
        lambda: other().svid(
            "mesh", "bundles", uris=(b"spiffe://other.example/ns/mesh/sa/bundles", b"spiffe://other.example/b")
        ),
        "no X.509-SVID",
    ),
}


@pytest.mark.parametrize("case", UNBELIEVED)
def test_nobody_else_is_asked_for_anything(tmp_path: Path, polling: Callable[..., Federation], case: str) -> None:
    make, words = UNBELIEVED[case]
    with endpoint(tmp_path, make(), lambda: jwks(other())) as serving:
        federation = polling((by_web if case.startswith("web") else by_spiffe)(tmp_path, serving.url))
        assert words in stands(federation).fault
        assert serving.requests == []
        assert federation.files() == {}


def test_the_roots_of_the_system_verify_where_no_file_is_named(
    tmp_path: Path, polling: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(tmp_path, web_certificate(webs()), lambda: jwks(other())) as serving:
        assert "not valid" in stands(polling(by_web(tmp_path, serving.url, ca_file=""))).fault
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web-roots.pem"))
        assert stands(polling(by_web(tmp_path, serving.url, ca_file=""))).fault == ""


def test_files_that_are_missing_are_named(tmp_path: Path, polling: Callable[..., Federation]) -> None:
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: jwks(other())) as serving:
        web = stands(polling(by_web(tmp_path, serving.url, ca_file=str(tmp_path / "nowhere.pem"))))
        assert "nowhere.pem" in web.fault
        domain = by_spiffe(tmp_path, serving.url)
        Path(domain.bundle_file).unlink()
        standing = stands(polling(domain))
        assert domain.bundle_file in standing.fault
        assert standing.relationship is None
        assert serving.requests == []


# --- what is kept ----------------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Say, str]] = {
    "missing": (lambda _: bundle_answer(b"", status="404 Not Found"), "it answered 404"),
    "other success": (lambda _: bundle_answer(jwks(other()), status="203 Other"), "it answered 203"),
    "304 unasked": (lambda _: bundle_answer(b"", status="304 Not Modified"), "it answered 304"),
    "no bundle": (lambda _: bundle_answer(b"<html>"), "it is no JSON"),
    "compressed": (lambda _: bundle_answer(jwks(other()), "Content-Encoding: gzip"), "compressed"),
    "cut": (lambda _: bundle_answer(jwks(other())).replace(b"Length: ", b"Length: 1"), "broke off"),
    "too large": (lambda _: bundle_answer(b" " * (MAX_BUNDLE_BYTES + 1)), "larger than"),
    "no HTTP": (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    "an endless head": (lambda _: b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 300 + b"\r\n", "not HTTP"),
    "other roots, same sequence": (lambda _: bundle_answer(jwks(renewed())), "must count each change"),
    "to plain text": (lambda _: bundle_answer(b"", "Location: http://localhost/", status="302 Found"), "not https"),
    "to nowhere": (lambda _: bundle_answer(b"", status="302 Found"), "does not say where"),
    "in a circle": (lambda _: bundle_answer(b"", "Location: /bundle", status="307 Again"), "redirects one after"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_failed_poll_keeps_the_last_bundle_and_waits_for_the_next_interval(
    tmp_path: Path, polling: Callable[..., Federation], case: str
) -> None:
    say, words = WRONG[case]
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: jwks(other())) as serving:
        federation = polling(by_spiffe(tmp_path, serving.url))
        stands(federation)
        held = federation.files()
        serving.say = say
        standing = polled_again(federation)
        assert words in standing.fault
        assert federation.files() == held != {}
        relationship = standing.relationship
        assert relationship is not None
        assert relationship.polls_failed == 1
        assert relationship.next_poll_at - (relationship.fetched_at or 0.0) > 200, "five minutes, as nothing was hinted"
        asked = len(serving.requests)
    assert asked == (2 if case != "in a circle" else 7)


def test_an_endpoint_that_hangs_is_given_up(
    tmp_path: Path, polling: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation_module, "POLL_SECONDS", 0.3)
    with Endpoint(tmp_path, other().svid("mesh", "bundles"), lambda _: b"") as serving:
        assert "no whole answer within 0.3 s" in stands(polling(by_spiffe(tmp_path, serving.url))).fault


def test_the_end_does_not_wait_for_an_endpoint_that_hangs(tmp_path: Path, polling: Callable[..., Federation]) -> None:
    with Endpoint(tmp_path, other().svid("mesh", "bundles"), lambda _: b"") as serving:
        federation = polling(by_spiffe(tmp_path, serving.url))
        until(lambda: serving.requests)
        federation.close()
        assert federation.files() == {}


def test_an_emptied_bundle_is_an_order(tmp_path: Path, polling: Callable[..., Federation]) -> None:
    said = [jwks(other()), jwks(sequence=2)]
    with endpoint(tmp_path, web_certificate(webs()), lambda: said[0]) as serving:
        federation = polling(by_web(tmp_path, serving.url))
        stands(federation)
        said.pop(0)
        assert polled_again(federation).fault == ""
        assert federation.files() == {NAME: b'{\n  "keys": []\n}\n'}


def test_nothing_verifies_a_self_serving_endpoint_any_more_that_has_emptied_its_bundle(
    tmp_path: Path, polling: Callable[..., Federation]
) -> None:
    said = [jwks(other()), jwks(sequence=2)]
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: said[0]) as serving:
        domain = by_spiffe(tmp_path, serving.url)
        federation = polling(domain)
        stands(federation)
        said.pop(0)
        polled_again(federation)
        assert "bring a new bootstrap bundle" in polled_again(federation).fault
        serving.show(renewed().svid("mesh", "bundles"))
        said[0] = jwks(renewed(), sequence=3)
        Path(domain.bundle_file).write_bytes(renewed().bundle.to_pem())
        assert polled_again(federation).fault == "", "a person has brought it"
        assert renewed().bundle.to_jwks() == federation.files()[NAME]


# --- rotation, redirects, configuration, restart ---------------------------------------------------------------------


def test_a_self_serving_endpoint_is_followed_through_a_rotation_of_its_root(
    tmp_path: Path, polling: Callable[..., Federation]
) -> None:
    said = [jwks(other()), jwks(other(), renewed(), sequence=2), jwks(renewed(), sequence=3)]
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: said[0]) as serving:
        federation = polling(by_spiffe(tmp_path, serving.url))
        stands(federation)
        said.pop(0)
        assert polled_again(federation).fault == ""
        serving.show(renewed().svid("mesh", "bundles"))
        assert polled_again(federation).fault == "", "the newest fetched bundle verifies, not the bootstrap"
        said.pop(0)
        assert polled_again(federation).fault == ""
        serving.show(other().svid("mesh", "bundles"))
        assert "leads to no root" in polled_again(federation).fault, "and the bootstrap does not come back"


def test_a_redirect_is_followed_to_who_shows_the_same_identity_and_asked_for_anew(
    tmp_path: Path, polling: Callable[..., Federation]
) -> None:
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: jwks(other())) as target:
        moved = bundle_answer(b"", f"Location: {target.url}", status="302 Found")
        with Endpoint(tmp_path, other().svid("mesh", "bundles"), lambda _: moved) as serving:
            federation = polling(by_spiffe(tmp_path, serving.url))
            assert stands(federation).fault == ""
            polled_again(federation)
            assert (len(serving.requests), len(target.requests)) == (2, 2)
            target.show(other().svid("mesh", "web"))
            assert "and not spiffe://" in polled_again(federation).fault
            assert (len(serving.requests), len(target.requests)) == (3, 2)


def test_a_domain_that_is_no_longer_named_ends_with_its_cache(
    tmp_path: Path, polling: Callable[..., Federation]
) -> None:
    cache = tmp_path / "cache"
    with endpoint(tmp_path, web_certificate(webs()), lambda: jwks(other())) as serving:
        federation = polling(by_web(tmp_path, serving.url), cache_directory=str(cache))
        stands(federation)
        assert [path.name for path in cache.iterdir()] == ["other.example.json"]
        federation.follow([])
        assert federation.files() == {}
        assert list(cache.iterdir()) == []


def test_a_bundle_outlives_a_restart_in_the_cache(tmp_path: Path, polling: Callable[..., Federation]) -> None:
    cache = str(tmp_path / "cache")
    said = [jwks(other(), renewed())]
    with endpoint(tmp_path, other().svid("mesh", "bundles"), lambda: said[0]) as serving:
        domain = by_spiffe(tmp_path, serving.url)
        first = polling(domain, cache_directory=cache)
        stands(first)
        held = first.files()
        first.close()
        serving.show(renewed().svid("mesh", "bundles"))
        again = polling(domain, cache_directory=cache)
        assert stands(again).fault == "", "the cached bundle verifies where the bootstrap no longer could"
        assert again.files() == held
    away = polling(domain, cache_directory=cache)
    assert "connection failed" in stands(away).fault
    assert away.files() == held, "and it is in force while nobody answers"


def test_a_changed_url_is_asked_at_once(tmp_path: Path, polling: Callable[..., Federation]) -> None:
    with endpoint(tmp_path, web_certificate(webs()), lambda: jwks(other(), sequence=9)) as old:
        federation = polling(by_web(tmp_path, old.url))
        stands(federation)
        with endpoint(tmp_path, web_certificate(webs()), lambda: jwks(renewed())) as new:
            federation.follow([by_web(tmp_path, new.url)])
            stands(federation, 2)
            assert federation.files() == {NAME: renewed().bundle.to_jwks()}
