"""With a cluster the webhook makes its own certificate first: /readyz says why it waits, and it ends when told to."""

from __future__ import annotations

import base64
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from injector_process import HOST, InjectorProcess, eventually

from injector import names
from tests.kube_server import KubeServer
from tests.reviews import encoded, response_of, review_of

CONFIGURATION = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": names.INJECTOR},
    "webhooks": [{"name": "pod.injector.remora.io", "clientConfig": {"service": {"name": names.INJECTOR}}}],
}
RESOURCE = "mutatingwebhookconfigurations"


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[InjectorProcess]:
    made = InjectorProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def cluster(url: str, token: Path) -> list[str]:
    token.write_text("kube-token")
    return [
        "--kube", url, "--kube-token-file", str(token), "--tls-secret", names.INJECTOR_TLS,
        "--webhook", names.INJECTOR, "--service", names.INJECTOR,
    ]  # fmt: skip


def test_it_waits_for_its_configuration_says_so_and_serves_with_its_own_certificate(
    injector: InjectorProcess,
) -> None:
    with KubeServer() as kube:
        injector.launch(*cluster(kube.url, injector.base / "token"))
        eventually(
            lambda: "cluster certificate: there is no MutatingWebhookConfiguration" in injector.page("/readyz")[1],
            "the reason why it is not ready",
        )
        assert injector.page("/readyz")[0] == 503
        assert injector.page("/livez")[0] == 200
        kube.put(RESOURCE, "", names.INJECTOR, CONFIGURATION)
        injector.port = int(injector.said(r"serving; ports: health \d+, webhook (\d+)")[1])
        written = kube.handle(
            "GET",
            f"/apis/admissionregistration.k8s.io/v1/{RESOURCE}/{names.INJECTOR}",
            "Bearer kube-token",
            b"",
        )[1]
        injector.ca = base64.b64decode(written["webhooks"][0]["clientConfig"]["caBundle"])
    assert injector.page("/readyz")[0] == 200
    with injector.api_server() as api:
        assert response_of(api.post(encoded(review_of()))[1])["allowed"], HOST
    metrics = injector.page("/metrics")[1]
    assert 'remora_injector_certificate_looks_total{result="ok"} 1.0' in metrics
    assert 'remora_injector_certificate_looks_total{result="failed"} 0.0' not in metrics


def test_it_ends_at_once_while_the_api_server_is_silent(injector: InjectorProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        injector.launch(*cluster(url, injector.base / "token"))
        called, _ = silent.accept()
        with called:
            assert injector.page("/readyz")[0] == 503
            assert injector.process is not None
            injector.process.send_signal(signal.SIGTERM)
            assert injector.ended() == 0, "while the call still waits for its answer"
