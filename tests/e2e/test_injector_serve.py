"""The webhook over real TLS: a review gets its patch, an audit line and a count; what is no review gets an error."""

from __future__ import annotations

import json

import pytest
from injector_process import InjectorProcess

from injector import names
from injector.jsonpatch import apply
from injector.review import MAX_BODY
from tests.reviews import POD, UID, encoded, patch_of, response_of, review_of


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_pod_gets_its_sidecar_and_the_audit_log_and_the_metrics_say_so(injector: InjectorProcess, loop: str) -> None:
    injector.start(*injector.mount(), loop=loop)
    with injector.api_server() as api:
        status, body = api.post(encoded(review_of()))
        assert api.is_open, "API servers keep their connections"
        api.post(encoded(review_of(dryRun=True, namespace="kube-system")))
    assert status == 200
    patched = apply(POD, patch_of(response_of(body)))
    assert [each["name"] for each in patched["spec"]["initContainers"]] == [names.CAPTURE, names.PROXY]
    assert patched["spec"]["initContainers"][1]["image"] == "remora:0.1.0"
    assert patched["metadata"]["annotations"][names.TRUST_BUNDLE].startswith("-----BEGIN CERTIFICATE-----")
    first, second = injector.audit()
    assert (first["uid"], first["verdict"], first["namespace"], first["dry_run"]) == (UID, "injected", "shop", False)
    assert first["duration_us"] > 0
    assert first["time"].endswith("+00:00")
    assert (second["verdict"], second["reason"], second["dry_run"]) == ("skipped", "system_namespace", True)
    metrics = injector.page("/metrics")[1]
    assert 'remora_injector_reviews_total{reason="namespace_label",verdict="injected"} 1.0' in metrics
    assert 'remora_injector_reviews_total{reason="system_namespace",verdict="skipped"} 1.0' in metrics
    assert 'remora_injector_reviews_total{reason="internal",verdict="error"} 0.0' in metrics
    assert 'remora_injector_review_seconds_bucket{le="+Inf"} 2.0' in metrics
    assert "remora_injector_ready 1.0" in metrics
    assert injector.page("/livez") == (200, "ok\n")
    status, ready = injector.page("/readyz")
    assert (status, ready.splitlines()[0]) == (200, "ready")
    assert injector.stop() == 0


def test_what_is_no_review_gets_an_error_and_the_next_one_is_answered(injector: InjectorProcess) -> None:
    injector.start()
    with injector.api_server() as api:
        assert api.post(encoded(review_of()), content_type="text/plain")[0] == 415
        assert api.post(encoded(review_of()), content_type=None)[0] == 415
        assert api.post(encoded(review_of()), path="/elsewhere")[0] == 404
        status, body = api.post(b'{"kind": "AdmissionReview"')
        assert (status, response_of(body)["allowed"]) == (400, False)
        status, body = api.post(encoded({**review_of(), "apiVersion": "admission.k8s.io/v1beta1"}))
        assert (status, response_of(body)["uid"]) == (400, UID)
        status, body = api.post(encoded(review_of()), content_type="application/json; charset=utf-8")
        assert response_of(body)["allowed"]
    assert [line["verdict"] for line in injector.audit()] == ["error", "error", "injected"]
    assert 'remora_injector_requests_unanswered_total{reason="bad_request"} 2.0' in injector.page("/metrics")[1]


def test_a_body_as_large_as_an_api_server_takes_is_read_and_a_larger_one_refused(injector: InjectorProcess) -> None:
    injector.start()
    room = MAX_BODY - len(encoded(review_of({**POD, "status": {"message": ""}})))
    largest = encoded(review_of({**POD, "status": {"message": "x" * room}}))
    assert len(largest) == MAX_BODY
    with injector.api_server() as api:
        status, body = api.post(largest)
        assert (status, response_of(body)["allowed"]) == (200, True)
        status, body = api.post(largest + b" ")
        assert status == 413
        assert "at most 3145728 bytes" in response_of(body)["status"]["message"]
        assert not api.is_open


def test_without_a_bundle_pods_are_injected_with_a_warning(injector: InjectorProcess) -> None:
    injector.start()
    with injector.api_server() as api:
        response = response_of(api.post(encoded(review_of()))[1])
    assert any("no trust bundle is known" in each for each in response["warnings"])


def test_a_refused_pod_is_told_every_reason(injector: InjectorProcess) -> None:
    injector.start()
    pod = json.loads(json.dumps(POD))
    pod["metadata"]["annotations"] = {"remora.io/log-level": "loud", "remora.io/workers": "many"}
    with injector.api_server() as api:
        response = response_of(api.post(encoded(review_of(pod)))[1])
    assert response["status"]["code"] == 422
    assert "remora.io/log-level" in response["status"]["message"]
    assert "remora.io/workers" in response["status"]["message"]


def test_what_cannot_be_done_in_the_time_that_its_api_server_waits_is_a_failed_call(injector: InjectorProcess) -> None:
    injector.start()
    slow = encoded(review_of({**POD, "status": [[]] * 900_000}))
    with injector.api_server() as api:
        assert api.post(slow, path="/inject?timeout=10ms")[0] == 503
        assert api.post(encoded(review_of()))[0] == 200, "the next one is answered"
    assert [line["verdict"] for line in injector.audit()] == ["injected"]
    assert 'remora_injector_requests_unanswered_total{reason="too_late"} 1.0' in injector.page("/metrics")[1]
