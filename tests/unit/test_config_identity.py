"""The sections `identity` and `federation` of the configuration file: what they mean, and every mistake in them."""

from __future__ import annotations

import pytest

from certs.spiffe import SpiffeId
from proxy.config import Config, load_config
from proxy.config_values import (
    FederatedDomain,
    IdentityCommand,
    IdentityCredentialBundle,
    IdentityWorkloadApi,
    UnixSocket,
)
from proxy.errors import ConfigError

HEAD = "workload: {namespace: demo, service_account: orders}\npolicy: {directory: /policy}\n"
FILES = "identity: {files: {directory: /keys}}\n"
WEB = "{trust_domain: other.example, url: 'https://other.example/b', profile: https_web"
SPIFFE = "{trust_domain: other.example, url: 'https://other.example/b', profile: https_spiffe"
ENDPOINT = "identity: 'spiffe://other.example/bundles', bundle_file: /boot.pem"


def load(text: str) -> Config:
    return load_config((HEAD + text).encode(), "remora.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [str(fault) for fault in caught.value.faults]


# --- identity --------------------------------------------------------------------------------------------------------


def test_a_credential_bundle() -> None:
    text = "identity: {credential_bundle: {file: /c.pem, bundle_file: /roots.pem, bundles: /others}}\n"
    assert load(text).identity == IdentityCredentialBundle(file="/c.pem", bundle_file="/roots.pem", bundles="/others")
    assert load(text.replace(", bundles: /others", "")).identity == IdentityCredentialBundle(
        file="/c.pem", bundle_file="/roots.pem"
    )


def test_a_command() -> None:
    text = "identity: {command: {run: [/bin/get, --json], timeout: 5s, bundle_file: /roots.pem}}\n"
    assert load(text).identity == IdentityCommand(run=("/bin/get", "--json"), timeout=5.0, bundle_file="/roots.pem")
    assert load("identity: {command: {run: [/bin/get]}}\n").identity == IdentityCommand(run=("/bin/get",))


@pytest.mark.parametrize(
    "written", ["unix:///run/spire/agent.sock", "unix:/run/spire/agent.sock", "/run/spire/agent.sock"]
)
def test_a_workload_api(written: str) -> None:
    config = load(f"identity: {{workload_api: {{socket: '{written}'}}}}\n")
    assert config.identity == IdentityWorkloadApi(socket=UnixSocket(path="/run/spire/agent.sock"))


WRONG_IDENTITIES = {
    "{}": ("3:11: ", "names no source"),
    "{files: {directory: /a}, command: {run: [/b]}}": ("3:11: ", "names 2 sources: files, command; keep one"),
    "{credential_bundle: {file: /a}}": ("3:31: ", "lacks the key `bundle_file`"),
    "{credential_bundle: {file: /a, bundle_file: /b, key: /c}}": ("3:59: ", "unknown key"),
    "{command: {run: []}}": ("3:27: ", "`identity.command.run` is empty"),
    "{command: {run: /bin/get}}": ("3:27: ", "must be a list"),
    "{command: {run: [get-svid]}}": ("3:28: ", "no absolute path"),
    '{command: {run: [/bin/get, "a\\0b"]}}': ("3:38: ", "NUL byte"),
    "{command: {run: [/bin/get], timeout: 1h}}": ("3:48: ", "must be between"),
    "{workload_api: {}}": ("3:26: ", "lacks the key `socket`"),
    "{workload_api: {socket: 'tcp://127.0.0.1:1'}}": ("3:35: ", "TCP endpoint"),
    "{workload_api: {socket: 'unix://host/a'}}": ("3:35: ", "three slashes"),
    "{workload_api: {socket: 'unix:relative'}}": ("3:35: ", "no path of a unix socket"),
    "{workload_api: {socket: '127.0.0.1:8080'}}": ("3:35: ", "no unix socket"),
    "{vault: {}}": ("3:12: ", "unknown key"),
}


@pytest.mark.parametrize("section", WRONG_IDENTITIES)
def test_a_wrong_identity_is_named_with_its_place(section: str) -> None:
    place, words = WRONG_IDENTITIES[section]
    said = faults(f"identity: {section}\n")
    assert any(sentence.startswith(f"remora.yaml:{place}") and words in sentence for sentence in said), said


# --- federation ------------------------------------------------------------------------------------------------------


def test_nobody_is_federated_with_unless_named() -> None:
    config = load(FILES)
    assert (config.federation, config.federation_cache) == ((), "")


def test_both_profiles() -> None:
    text = f"federation:\n  - {WEB}, ca_file: /ca.pem}}\n  - {SPIFFE}, {ENDPOINT}}}\nfederation_cache: /cache\n"
    config = load(FILES + text.replace("trust_domain: other.example", "trust_domain: web.example", 1))
    assert config.federation == (
        FederatedDomain(
            trust_domain=config.federation[0].trust_domain,
            url="https://other.example/b",
            profile="https_web",
            ca_file="/ca.pem",
        ),
        FederatedDomain(
            trust_domain=config.federation[1].trust_domain,
            url="https://other.example/b",
            profile="https_spiffe",
            identity=SpiffeId.parse("spiffe://other.example/bundles"),
            bundle_file="/boot.pem",
        ),
    )
    assert [domain.trust_domain for domain in config.federation] == ["web.example", "other.example"]
    assert config.federation_cache == "/cache"


WRONG_FEDERATIONS = {
    "{}": "must be a list",
    "[{}]": "lacks the key `trust_domain`",
    f"[{WEB.replace(', profile: https_web', '')}}}]": "lacks the key `profile`",
    f"[{WEB.replace('https_web', 'https')}}}]": "must be one of https_web, https_spiffe",
    f"[{WEB.replace('https:', 'http:')}}}]": "begins with http and not https",
    f"[{WEB.replace('//other', '//u:secret@other')}}}]": "user name or password",
    f"[{WEB.replace('other.example,', 'Other,')}}}]": "has capitals",
    f"[{WEB}, {ENDPOINT}}}]": "means nothing with https_web",
    f"[{SPIFFE}, {ENDPOINT}, ca_file: /ca}}]": "means nothing with https_spiffe",
    f"[{SPIFFE}}}]": "lacks the key `identity`, which https_spiffe needs",
    f"[{SPIFFE}, identity: 'spiffe://other.example', bundle_file: /b}}]": "names no workload",
    f"[{SPIFFE}, identity: other, bundle_file: /b}}]": "spiffe://",
    f"[{WEB.replace('other.example,', 'cluster.local,')}}}]": "our own trust domain",
    f"[{WEB}}}, {WEB}}}]": "stands twice",
    f"[{WEB}, sequence: 5}}]": "unknown key",
    f"[{WEB}, crl: fail-closed}}]": "no revocation list comes by this way",
}


@pytest.mark.parametrize("section", WRONG_FEDERATIONS)
def test_a_wrong_federation_is_named_with_its_place(section: str) -> None:
    said = faults(f"{FILES}federation: {section}\n")
    assert any(sentence.startswith("remora.yaml:4:") and WRONG_FEDERATIONS[section] in sentence for sentence in said), (
        said
    )
    assert "secret" not in "\n".join(said)


def test_the_number_of_domains_is_bounded() -> None:
    many = "".join(f"  - {WEB.replace('other.example,', f'd{number}.example,')}}}\n" for number in range(65))
    assert any("at most 64" in sentence for sentence in faults(f"{FILES}federation:\n{many}"))
