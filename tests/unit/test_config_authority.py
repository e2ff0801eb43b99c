"""The section `identity.authority` of the configuration file, and what `crl` says beside mounted files."""

from __future__ import annotations

import pytest

from certs.spiffe import SpiffeId
from proxy.config import Config, load_config
from proxy.config_values import Address, IdentityAuthority, IdentityFiles
from proxy.errors import ConfigError

HEAD = "workload: {namespace: demo, service_account: orders}\npolicy: {directory: /policy}\n"
USUAL = "spiffe://cluster.local/ns/remora-system/sa/remora-authority"
NEEDED = "url: 'https://authority:8443', token_file: /token, bundle_file: /bundle"


def load(text: str) -> Config:
    return load_config((HEAD + text).encode(), "remora.yaml")


def faults(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return "\n".join(str(fault) for fault in caught.value.faults)


def authority(more: str = "") -> IdentityAuthority:
    found = load(f"identity: {{authority: {{{NEEDED}{more}}}}}\n").identity
    assert isinstance(found, IdentityAuthority)
    return found


def test_what_is_usual() -> None:
    assert authority() == IdentityAuthority(
        url="https://authority:8443",
        address=Address(host="authority", port=8443),
        token_file="/token",
        bundle_file="/bundle",
        identity=SpiffeId.parse(USUAL),
        lifetime=None,
        timeout=10.0,
        crl="warn",
    )


def test_what_may_be_said() -> None:
    found = authority(", identity: 'spiffe://cluster.local/ns/pki/sa/ca', lifetime: 15m, timeout: 3s, crl: fail-closed")
    assert str(found.identity) == "spiffe://cluster.local/ns/pki/sa/ca"
    assert (found.lifetime, found.timeout, found.crl) == (900.0, 3.0, "fail-closed")


def test_the_usual_identity_is_of_our_trust_domain() -> None:
    found = load(f"trust_domain: other.example\nidentity: {{authority: {{{NEEDED}}}}}\n").identity
    assert isinstance(found, IdentityAuthority)
    assert str(found.identity) == USUAL.replace("cluster.local", "other.example")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://authority", "authority", 443),
        ("https://authority/", "authority", 443),
        ("https://Authority.Remora:8443/", "authority.remora", 8443),
        ("https://127.0.0.1:8443", "127.0.0.1", 8443),
        ("https://[::1]:8443", "::1", 8443),
        ("https://[::1]", "::1", 443),
    ],
)
def test_a_url_is_a_place(url: str, host: str, port: int) -> None:
    found = load(f"identity: {{authority: {{{NEEDED.replace('https://authority:8443', url)}}}}}\n").identity
    assert isinstance(found, IdentityAuthority)
    assert found.address == Address(host=host, port=port)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://authority:8443", "a token never travels in the clear"),
        ("authority:8443", "write https://HOST:PORT"),
        ("https://authority:8443/v1/sign", "write https://HOST:PORT, and no path"),
        ("https://authority?x=1", "and no path"),
        ("https://", "and no path"),
        ("https://u:secret@authority", "user name or password"),
        ("https://::1", "ambiguous"),
        ("https://authority:0", "port 0"),
    ],
)
def test_what_is_no_place_is_refused(url: str, words: str) -> None:
    said = faults(f"identity: {{authority: {{{NEEDED.replace('https://authority:8443', url)}}}}}\n")
    assert words in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{authority: {}}", "lacks the key `url`"),
        ("{authority: {url: 'https://a', token_file: /t}}", "lacks the key `bundle_file`"),
        (f"{{authority: {{{NEEDED}, crl: never}}}}", "must be one of fail-closed, warn"),
        (f"{{authority: {{{NEEDED}, lifetime: 5s}}}}", "must be between"),
        (f"{{authority: {{{NEEDED}, timeout: 5m}}}}", "must be between"),
        (f"{{authority: {{{NEEDED}, identity: 'spiffe://other.example/ca'}}}}", "is no workload of cluster.local"),
        (f"{{authority: {{{NEEDED}, identity: 'spiffe://cluster.local'}}}}", "is no workload of cluster.local"),
        (f"{{authority: {{{NEEDED}, token: abc}}}}", "unknown key"),
        (f"{{files: {{directory: /a}}, authority: {{{NEEDED}}}}}", "names 2 sources"),
        ("{files: {directory: /a, crl: always}}", "must be one of fail-closed, warn"),
        ("{credential_bundle: {file: /a, bundle_file: /b, crl: fail-closed}}", "no revocation list comes by this way"),
        ("{command: {run: [/a], crl: warn}}", "`identity.command.crl`: no revocation list comes by this way"),
        ("{workload_api: {socket: 'unix:///a', crl: fail-closed}}", "no revocation list comes by this way"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    assert words in faults(f"identity: {text}\n")


@pytest.mark.parametrize(
    ("more", "crl"), [("", "warn"), (", crl: warn", "warn"), (", crl: fail-closed", "fail-closed")]
)
def test_mounted_files_have_a_policy_for_the_list_too(more: str, crl: str) -> None:
    assert load(f"identity: {{files: {{directory: /keys{more}}}}}\n").identity == IdentityFiles(
        directory="/keys",
        crl=crl,  # type: ignore[arg-type]
    )
