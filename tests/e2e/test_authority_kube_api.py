"""The Kubernetes client against an API server over sockets (tests/kube_server.py, a stand-in for a real one)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import kube_server
import pytest

from certs.callers.tokenreview import POD_NAME, POD_UID, review_request
from certs.kube import MAX_ANSWER, KubeClient, KubeConflict, KubeError, KubeServer


@pytest.fixture
def kube() -> Iterator[kube_server.KubeServer]:
    with kube_server.KubeServer() as server:
        yield server


@pytest.fixture
def client(kube: kube_server.KubeServer) -> KubeClient:
    return KubeClient(KubeServer(url=kube.url, token=kube.token, timeout=5.0))


def test_over_tls_with_the_cluster_s_own_roots(tmp_path: Path) -> None:
    with kube_server.KubeServer(tls_directory=tmp_path) as kube:
        good = KubeClient(KubeServer(url=kube.url, token=kube.token, ca_file=kube.ca_file, timeout=5.0))
        assert good.discovery()["issuer"] == "https://kubernetes.default.svc"
        with pytest.raises(KubeError, match="give the cluster's own CA file") as caught:
            KubeClient(KubeServer(url=kube.url, token=kube.token, timeout=5.0)).discovery()
        assert caught.value.reason == "CertificateRefused"
        # The refused one has not shown its token.
        assert len(kube.calls) == 1


def test_the_token_file_is_read_before_each_call(kube: kube_server.KubeServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old-token\n")
    client = KubeClient(KubeServer(url=kube.url, token_file=file, timeout=5.0))
    with pytest.raises(KubeError, match="check that the token file") as caught:
        client.discovery()
    assert (caught.value.status, caught.value.reason) == (401, "Unauthorized")
    assert "old-token" not in str(caught.value)
    file.write_text(f"{kube.token}\n")
    assert client.discovery()["issuer"]
    file.unlink()
    with pytest.raises(KubeError, match="mount the token there"):
        client.discovery()


def test_what_is_not_there_is_none(client: KubeClient) -> None:
    assert client.get_pod("demo", "orders-0") is None
    assert client.get("Secret", "remora", "state") is None


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "Lease"])
def test_of_two_writers_one_is_told_of_the_conflict(client: KubeClient, kind: str) -> None:
    made = client.create(kind, "remora", {"metadata": {"name": "state"}, "data": {"n": "1"}})
    with pytest.raises(KubeConflict) as exists:
        client.create(kind, "remora", {"metadata": {"name": "state"}})
    assert exists.value.reason == "AlreadyExists"
    second = client.update(kind, "remora", "state", {**made, "data": {"n": "2"}})
    with pytest.raises(KubeConflict, match="read the object again") as conflict:
        client.update(kind, "remora", "state", {**made, "data": {"n": "3"}})
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    assert client.get(kind, "remora", "state") == second
    with pytest.raises(KubeConflict):
        client.patch(kind, "remora", "state", {"metadata": made["metadata"], "data": {"n": "4"}})
    patched = client.patch(kind, "remora", "state", {"data": {"m": "5"}})
    assert patched["data"] == {"n": "2", "m": "5"}


def test_a_blind_update_is_not_sent(client: KubeClient, kube: kube_server.KubeServer) -> None:
    with pytest.raises(KubeError, match="read it before writing it"):
        client.update("Secret", "remora", "state", {"metadata": {"name": "state"}})
    assert kube.calls == []


def test_a_token_is_reviewed_for_our_audience(client: KubeClient, kube: kube_server.KubeServer) -> None:
    user = {"username": "system:serviceaccount:demo:orders", "extra": {POD_NAME: ["orders-0"], POD_UID: ["7-a"]}}
    kube.reviews["good"] = {"authenticated": True, "audiences": ["remora"], "user": user}

    def status(token: str, audience: str) -> object:
        return client.create_token_review(review_request(token, audience))["status"]

    assert status("good", "remora") == kube.reviews["good"]
    assert status("good", "vault") == {"error": "token audiences are invalid"}
    assert status("bad", "remora") == {"authenticated": False, "error": "invalid bearer token"}


def test_a_forbidden_call_names_the_role(client: KubeClient, kube: kube_server.KubeServer) -> None:
    kube.forbidden.add(("POST", "tokenreviews"))
    with pytest.raises(KubeError, match=r"403 \(cannot create resource tokenreviews.*in its Role") as caught:
        client.create_token_review(review_request("secret-token", "remora"))
    assert caught.value.status == 403
    assert "secret-token" not in str(caught.value)


def test_a_complaint_about_the_object_is_not_quoted(client: KubeClient, kube: kube_server.KubeServer) -> None:
    document = {"kind": "Status", "reason": "Invalid", "message": "data.key: Invalid value: hunter2"}
    kube.answer_with = (422, json.dumps(document).encode())
    with pytest.raises(KubeError, match="422") as caught:
        client.create("Secret", "remora", {"metadata": {"name": "state"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, b"<html>", "BadAnswer"),
        (200, b"[]", "BadAnswer"),
        (200, b"[" * 100_000, "BadAnswer"),
        (200, b" " * (MAX_ANSWER + 1), "TooLarge"),
        (302, b"", "Unknown"),
        (500, b"<html>", "Unknown"),
    ],
)
def test_a_broken_server_is_an_error_with_a_mend(
    client: KubeClient, kube: kube_server.KubeServer, status: int, content: bytes, reason: str
) -> None:
    kube.answer_with = (status, content)
    with pytest.raises(KubeError) as caught:
        client.discovery()
    assert caught.value.reason == reason
    assert caught.value.mend in str(caught.value)


def test_nobody_listens() -> None:
    with kube_server.KubeServer() as gone:
        url = gone.url
    with pytest.raises(KubeError, match="no answer from") as caught:
        KubeClient(KubeServer(url=url, timeout=5.0)).discovery()
    assert (caught.value.status, caught.value.reason) == (0, "Unreachable")


@pytest.mark.parametrize("name", ["../secrets/state", "a/b", "a..b", "", "A", "a?x=1", "a\n"])
def test_a_name_cannot_lead_elsewhere(client: KubeClient, kube: kube_server.KubeServer, name: str) -> None:
    with pytest.raises(KubeError, match="is no name in Kubernetes"):
        client.get_pod("demo", name)
    with pytest.raises(KubeError, match="is no name in Kubernetes"):
        client.get_pod(name, "orders-0")
    assert kube.calls == []


def test_keys_of_the_cluster(client: KubeClient, kube: kube_server.KubeServer) -> None:
    kube.jwks = b'{"keys": [{"kid": "1"}]}'
    assert json.loads(client.jwks()) == {"keys": [{"kid": "1"}]}
