"""The service gives certificates over real TLS, to who proves who it is, and to nobody else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import (
    OWN,
    AuthorityProcess,
    eventually,
    exchange,
    identity,
    openssl_verify,
    raw_tls,
    sign_body,
)
from cryptography import x509

from certs.keys import generate_key
from certs.requests import MAX_BODY_BYTES, key_fingerprint
from certs.svid import leaf_violations, spiffe_id_of
from certs.testing import MemoryAuthority


@pytest.fixture
def authority(tmp_path: Path, loop_name: str) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        made.init()
        made.start("--identity-rate", "50:50", loop=loop_name)
        yield made
    finally:
        made.stop()


def test_a_join_token_becomes_a_certificate_and_that_renews_itself(authority: AuthorityProcess) -> None:
    token, key = authority.token(), generate_key()
    answered = authority.sign(key, token=token, instance="laptop", bundle_sequence=1)
    assert answered.status == 200
    told = answered.told
    chain = tuple(x509.load_pem_x509_certificates(told["chain"].encode()))
    assert str(spiffe_id_of(chain[0])) == told["spiffe_id"] == identity("orders")
    assert leaf_violations(chain[0]) == []
    bundle = authority.order("export bundle", "--form", "pem")
    assert openssl_verify(authority.base, chain, bundle, "-purpose", "sslclient") == "OK"
    assert openssl_verify(authority.base, chain, bundle, "-purpose", "sslserver") == "OK"
    # The one whom we asked is itself known by an identity of the trust domain.
    assert str(spiffe_id_of(answered.presented)) == OWN

    again = authority.sign(token=token)
    assert (again.status, again.reason) == (401, "join_token_used")

    first = authority.enrol(token=authority.token())
    second = authority.enrol(first)
    assert second.spiffe_id == first.spiffe_id
    assert second.leaf.serial_number != first.leaf.serial_number

    lines = authority.audit()
    assert [line["event"] for line in lines] == ["issued", "refused", "issued", "issued"]
    assert lines[0]["key_fingerprint"] == key_fingerprint(key.public_key())
    assert lines[0]["remote_address"].startswith("127.0.0.1:")
    assert [line["authenticated_by"] for line in lines] == ["join_token", None, "join_token", "certificate"]
    assert lines[3]["peer"] == identity("orders")
    assert token not in authority.audit_file.read_text()


def test_who_proves_nothing_gets_nothing(authority: AuthorityProcess) -> None:
    orders = authority.enrol(token=authority.token("orders"))
    web = authority.token("web")
    cases = [
        (authority.sign(), 401, "caller_unknown"),
        (authority.sign(token="remora-join-" + "A" * 43), 401, "join_token_unknown"),
        (authority.sign(token="header.claims.signature"), 401, "token_refused"),
        (authority.sign(svid=orders, token=web), 403, "identity_changed"),
        (authority.ask("POST", "/v1/sign", b"{}"), 400, "request_malformed"),
        (authority.ask("POST", "/v1/sign", b" " * (MAX_BODY_BYTES + 1)), 413, "request_too_large"),
    ]
    assert [(answered.status, answered.reason) for answered, _, _ in cases] == [case[1:] for case in cases]
    refusals = [line["reason"] for line in authority.audit() if line["event"] == "refused"]
    assert refusals == [reason for _, _, reason in cases]


@pytest.mark.parametrize("whose", ["stranger", "impostor"])
def test_a_certificate_of_another_root_ends_the_handshake(authority: AuthorityProcess, whose: str) -> None:
    foreign = getattr(MemoryAuthority("cluster.local"), whose).svid("demo", "orders")
    with pytest.raises(OSError, match=r"(?i)alert|reset|closed|pipe"):
        authority.sign(svid=foreign)
    assert authority.audit() == []
    counted = 'remora_authority_handshakes_total{listener="signing",reason='
    eventually(lambda: counted in authority.page("/metrics")[1], "the refusal is counted")


def test_the_bundle_and_the_list_are_for_anybody(authority: AuthorityProcess) -> None:
    answered = authority.ask("GET", "/v1/bundle")
    assert (answered.status, answered.headers["content-type"]) == (200, "application/json")
    assert answered.told["spiffe_sequence"] == 1
    assert "date" in answered.headers
    unchanged = authority.ask("GET", "/v1/bundle", headers={"If-None-Match": answered.headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    crl = authority.ask("GET", "/v1/crl")
    assert crl.headers["content-type"] == "application/pkix-crl"
    intermediate = x509.load_pem_x509_certificate(authority.order("export intermediate").encode())
    assert x509.load_der_x509_crl(crl.body).is_signature_valid(intermediate.public_key())  # type: ignore[arg-type]
    assert authority.ask("GET", "/v1/sign").status == 405
    assert authority.ask("GET", "/v1/other").status == 404
    assert authority.audit() == []


def test_one_connection_serves_several_requests(authority: AuthorityProcess) -> None:
    orders = authority.enrol(token=authority.token())
    with authority.connection(orders) as connection:
        assert exchange(connection, "GET", "/v1/bundle?confirms=1&instance=orders-0").status == 200
        sock = connection.sock
        for _ in range(3):
            assert exchange(connection, "POST", "/v1/sign", sign_body(generate_key())).status == 200
        assert connection.sock is sock
    assert "1 of 2 known sidecars hold bundle sequence 1" in authority.order("status")


def test_what_is_no_http_is_answered_in_words(authority: AuthorityProcess) -> None:
    with raw_tls(authority.port) as sock:
        assert sock.version() == "TLSv1.3"
        sock.sendall(b"NONSENSE\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400")
    assert authority.page("/livez") == (200, "ok\n")
    assert authority.page("/readyz") == (200, "ready\n")


def test_what_happened_is_counted(authority: AuthorityProcess) -> None:
    authority.enrol(token=authority.token())
    authority.sign()
    text = authority.page("/metrics")[1]
    assert 'remora_authority_certificates_issued_total{proof="join_token"} 1.0' in text
    assert 'remora_authority_requests_refused_total{reason="caller_unknown"} 1.0' in text
    assert 'remora_authority_requests_refused_total{reason="pod_gone"} 0.0' in text
    assert "remora_authority_bundle_sequence 1.0" in text


def test_curl_gets_a_certificate(authority: AuthorityProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the answer was not shown to a second client")
    (authority.base / "body.json").write_bytes(sign_body(generate_key(), token=authority.token()))
    done = subprocess.run(
        [
            "curl", "--silent", "--show-error", "--fail", "--insecure", "--tlsv1.3", "--data", "@body.json",
            "--header", "Content-Type: application/json", f"https://127.0.0.1:{authority.port}/v1/sign",
        ],
        cwd=authority.base, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spiffe_id"] == identity("orders")


def test_policies_of_the_operator_take_the_place_of_ours(tmp_path: Path) -> None:
    authority = AuthorityProcess(tmp_path)
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "only-web.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        "metadata: {name: optional, namespace: remora-system}\nspec: {mtls: {mode: PERMISSIVE}}\n---\n"
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: only-web, namespace: remora-system}\n"
        f'spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["{identity("web")}"]}}}}]}}]}}\n'
    )
    try:
        authority.init()
        authority.start("--policy", str(policies))
        assert authority.sign(token=authority.token("web")).status == 200
        denied = authority.sign(token=authority.token("orders"))
        assert (denied.status, denied.reason) == (403, "policy_denied")
        page = authority.ask("GET", "/v1/bundle")
        assert (page.status, page.reason) == (403, "policy_denied")
        assert [line["reason"] for line in authority.audit()] == [None, "policy_denied", "policy_denied"]
    finally:
        authority.stop()
