"""ServiceAccount tokens, judged by an API server (tests/kube_server.py, a stand-in for a real one) or offline."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import kube_server
import pytest
from authority_process import AuthorityProcess, identity
from cryptography.hazmat.primitives.asymmetric import ec

from certs.callers.tokenreview import POD_NAME, POD_UID

POD = "orders-7d9f"


def token_of(uid: str = "uid-1", **claims: object) -> str:
    """A token whose signature nobody looks at: the API server says whether it is good."""
    now = int(time.time())
    told = {"iat": now, "exp": now + 3600, "pod": uid} | claims
    parts = [{"alg": "RS256"}, told]
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2ln"]
    )


def allow(kube: kube_server.KubeServer, token: str, uid: str = "uid-1", audience: str = "remora-authority") -> None:
    """Let the API server accept a token, as one of a pod that runs."""
    kube.reviews[token] = {
        "authenticated": True,
        "audiences": [audience],
        "user": {
            "username": "system:serviceaccount:demo:orders",
            "extra": {POD_NAME: [POD], POD_UID: [uid]},
        },
    }


def run_pod(kube: kube_server.KubeServer, uid: str = "uid-1") -> None:
    kube.put("pods", "demo", POD, {"metadata": {"uid": uid}, "spec": {"serviceAccountName": "orders"}, "status": {}})
    kube.put("serviceaccounts", "demo", "orders", {"metadata": {"uid": "uid-of-orders"}})


@pytest.fixture
def kube() -> Iterator[kube_server.KubeServer]:
    with kube_server.KubeServer() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path, kube: kube_server.KubeServer, loop_name: str) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    (tmp_path / "kube-token").write_text(kube.token)
    try:
        made.init()
        made.start(
            "--kube", kube.url, "--kube-token-file", str(tmp_path / "kube-token"), "--identity-rate", "50:50",
            loop=loop_name,
        )  # fmt: skip
        yield made
    finally:
        made.stop()


def test_a_pod_gets_the_identity_of_its_service_account(
    authority: AuthorityProcess, kube: kube_server.KubeServer
) -> None:
    token = token_of()
    allow(kube, token)
    run_pod(kube)
    first = authority.enrol(token=token)
    assert str(first.spiffe_id) == identity("orders")
    assert authority.enrol(first, token=token).spiffe_id == first.spiffe_id
    lines = authority.audit()
    assert [(line["pod_name"], line["pod_uid"], line["authenticated_by"]) for line in lines] == [
        (POD, "uid-1", "service_account_token")
    ] * 2
    assert token not in authority.audit_file.read_text() + authority.log_file.read_text()


def test_a_stolen_key_and_certificate_renew_nothing(authority: AuthorityProcess, kube: kube_server.KubeServer) -> None:
    token = token_of()
    allow(kube, token)
    run_pod(kube)
    first = authority.enrol(token=token)
    refused = authority.sign(svid=first)
    assert (refused.status, refused.reason) == (401, "caller_unknown")
    assert "send a fresh token as well" in refused.told["message"]


def test_what_the_api_server_does_not_vouch_for_is_refused(
    authority: AuthorityProcess, kube: kube_server.KubeServer
) -> None:
    good, other_audience, unknown, old = token_of(), token_of("a"), token_of("b"), token_of("c", exp=1000, iat=900)
    allow(kube, good)
    allow(kube, other_audience, audience="another")
    allow(kube, old)
    answers = [authority.sign(token=token).reason for token in (unknown, other_audience, old)]
    assert answers == ["token_refused", "token_refused", "token_expired"]
    assert authority.sign(token=good).reason == "pod_gone"
    run_pod(kube, "uid-2")
    assert authority.sign(token=good).reason == "pod_replaced"
    kube.forbidden.add(("POST", "tokenreviews"))
    away = authority.sign(token=good)
    assert (away.status, away.reason) == (503, "review_unavailable")
    assert "forbidden" not in away.told["message"]
    assert "cannot be judged" in authority.log_file.read_text()
    assert [line["event"] for line in authority.audit()] == ["refused"] * 6


def cluster_key(kid: str) -> tuple[ec.EllipticCurvePrivateKey, dict[str, object]]:
    """A key that a cluster signs tokens with, and what it publishes of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    published = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    return key, published | {"kid": kid, "use": "sig", "alg": "ES256"}


def signed_token(key: ec.EllipticCurvePrivateKey, kid: str, issuer: str, **claims: object) -> str:
    now = int(time.time())
    told: dict[str, object] = {
        "iss": issuer,
        "aud": ["remora-authority"],
        "sub": "system:serviceaccount:demo:orders",
        "iat": now,
        "exp": now + 3600,
        "kubernetes.io": {
            "namespace": "demo",
            "serviceaccount": {"name": "orders", "uid": "uid-of-orders"},
            "pod": {"name": POD, "uid": "uid-1"},
        },
    }
    return jwt.encode(told | claims, key, algorithm="ES256", headers={"kid": kid})


def test_offline_the_cluster_s_keys_vouch(tmp_path: Path, kube: kube_server.KubeServer) -> None:
    authority = AuthorityProcess(tmp_path)
    (tmp_path / "kube-token").write_text(kube.token)
    key, published = cluster_key("k1")
    stranger, _ = cluster_key("k2")
    kube.jwks = json.dumps({"keys": [published]}).encode()
    run_pod(kube)
    try:
        authority.init()
        authority.start(
            "--kube", kube.url, "--kube-token-file", str(tmp_path / "kube-token"), "--tokens", "offline",
            "--identity-rate", "50:50",
        )  # fmt: skip
        assert str(authority.enrol(token=signed_token(key, "k1", kube.issuer)).spiffe_id) == identity("orders")
        reasons = [
            authority.sign(token=token).reason
            for token in (
                signed_token(stranger, "k2", kube.issuer),
                signed_token(stranger, "k1", kube.issuer),
                signed_token(key, "k1", "https://another.example"),
                signed_token(key, "k1", kube.issuer, aud=["another"]),
            )
        ]
        assert reasons == [
            "token_key_unknown",
            "token_signature_invalid",
            "token_issuer_unknown",
            "token_audience_refused",
        ]
        kube.remove("pods", "demo", POD)
        assert authority.sign(token=signed_token(key, "k1", kube.issuer)).reason == "pod_gone"
        assert not any(path.endswith("/tokenreviews") for _, path in kube.calls)
    finally:
        authority.stop()


def test_keys_may_come_from_a_file_where_no_api_server_is(tmp_path: Path) -> None:
    authority = AuthorityProcess(tmp_path)
    key, published = cluster_key("k1")
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [published]}))
    issuer = "https://kubernetes.default.svc"
    try:
        authority.init()
        authority.start("--jwks", str(tmp_path / "jwks.json"), "--issuer", issuer)
        assert str(authority.enrol(token=signed_token(key, "k1", issuer)).spiffe_id) == identity("orders")
    finally:
        authority.stop()
    (tmp_path / "jwks.json").write_text("{}")
    done = authority.run(
        "serve", "--directory", str(authority.directory), "--listen", "127.0.0.1:0",
        "--jwks", str(tmp_path / "jwks.json"), "--issuer", issuer,
    )  # fmt: skip
    assert done.returncode == 1
    assert "JWK Set" in done.stderr
    assert "Traceback" not in done.stderr
