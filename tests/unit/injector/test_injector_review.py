"""One AdmissionReview and its answer: as API servers send them, malformed, hostile."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
from dataclasses import replace
from typing import Any

import pytest

from injector import names, review
from injector.doors import World
from injector.jsonpatch import apply
from injector.review import MAX_BODY, MAX_DEPTH, Verdict, shortened
from injector.settings import Settings
from tests.reviews import POD, UID, encoded, hostile, patch_of, response_of, review_of

WORLD = World(defaults=Settings(image="remora:0.1.0"), trust_bundle="-----BEGIN CERTIFICATE-----\nMIIB\n")


def answered(document: object, world: World = WORLD) -> tuple[dict[str, Any], review.Answered]:
    found = review.review(encoded(document), world)
    return response_of(found.body), found


def pod_with(metadata: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    pod = copy.deepcopy(POD)
    pod["metadata"].update(metadata or {})
    pod["spec"].update(spec or {})
    return pod


def test_a_pod_of_a_deployment_gets_its_sidecar_by_a_patch() -> None:
    response, found = answered(review_of())
    assert (response["uid"], response["allowed"], response["patchType"]) == (UID, True, "JSONPatch")
    patched = apply(POD, patch_of(response))
    assert [each["name"] for each in patched["spec"]["initContainers"]] == [names.CAPTURE, names.PROXY]
    assert patched["metadata"]["annotations"][names.STATUS]
    assert found.status == 200
    assert found.audit.verdict is Verdict.INJECTED
    assert found.audit.as_document() == {
        "uid": UID,
        "namespace": "shop",
        "name": "",
        "generate_name": "orders-7d4b9c5f6d-",
        "owner": "ReplicaSet/orders-7d4b9c5f6d",
        "verdict": "injected",
        "reason": "namespace_label",
        "warnings": 0,
        "dry_run": False,
    }


def test_what_the_patch_does_not_name_stays_as_it_was() -> None:
    response, _ = answered(review_of())
    patched = apply(POD, patch_of(response))
    assert patched["metadata"]["managedFields"] == POD["metadata"]["managedFields"]
    assert {
        key: value for key, value in patched["spec"].items() if key in ("tolerations", "priority", "dnsPolicy")
    } == {key: POD["spec"][key] for key in ("tolerations", "priority", "dnsPolicy")}
    assert all(not each["path"].startswith("/status") for each in patch_of(response))


def test_asked_again_about_its_own_work_it_changes_nothing() -> None:
    patched = apply(POD, patch_of(answered(review_of())[0]))
    response, found = answered(review_of(patched))
    assert response["allowed"]
    assert "patch" not in response
    assert response["warnings"] == ["unchanged: it has its sidecar already"]
    assert (found.audit.verdict, found.audit.reason) == (Verdict.UNCHANGED, "already_injected")


def test_a_container_that_came_since_has_its_probe_performed_too() -> None:
    patched = apply(POD, patch_of(answered(review_of())[0]))
    late = {"name": "late", "image": "late:1", "livenessProbe": {"httpGet": {"path": "/", "port": 9000}}}
    patched["spec"]["containers"].append(late)
    response, _ = answered(review_of(patched))
    again = apply(patched, patch_of(response))
    assert again["spec"]["containers"][-1]["livenessProbe"]["httpGet"]["port"] == names.HEALTH_PORT
    assert [each["name"] for each in again["spec"]["initContainers"]].count(names.PROXY) == 1


def test_a_dry_run_gets_the_same_answer_and_the_audit_says_so() -> None:
    response, found = answered(review_of(dryRun=True))
    assert response == answered(review_of())[0]
    assert found.audit.is_dry_run


@pytest.mark.parametrize(
    ("pod", "namespace", "warning", "reason"),
    [
        (
            pod_with(spec={"hostNetwork": True}),
            "shop",
            "not injected: hostNetwork: the rules of its sidecar would be the rules of the node",
            "host_network",
        ),
        (
            pod_with({"labels": {names.INJECT: "disabled"}}),
            "shop",
            "not injected: the pod's label remora.io/inject says no",
            "disabled_by_label",
        ),
        (
            pod_with({"annotations": {names.INJECT: "false"}}),
            "shop",
            "not injected: the pod's annotation remora.io/inject says no",
            "disabled_by_annotation",
        ),
        (
            POD,
            "kube-system",
            "not injected: pods in kube-system never get a sidecar: the cluster stands on them",
            "system_namespace",
        ),
        (
            POD,
            "remora-system",
            "not injected: pods in remora-system never get a sidecar: sidecars stand on them",
            "own_namespace",
        ),
        (
            pod_with(spec={"os": {"name": "windows"}}),
            "shop",
            "not injected: it runs on Windows (spec.os.name), where there is no sidecar",
            "windows",
        ),
    ],
    ids=["host-network", "label", "annotation", "kube-system", "own-namespace", "windows"],
)
def test_every_skip_is_allowed_and_says_why(pod: dict[str, Any], namespace: str, warning: str, reason: str) -> None:
    response, found = answered(review_of(pod, namespace=namespace))
    assert response["allowed"]
    assert "patch" not in response
    assert response["warnings"] == [warning]
    assert (found.audit.verdict, found.audit.reason, found.audit.warnings) == (Verdict.SKIPPED, reason, 1)


def test_the_namespace_is_the_requests_and_not_what_the_object_says() -> None:
    response, found = answered(review_of(pod_with({"namespace": "shop"}), namespace="kube-system"))
    assert "patch" not in response
    assert found.audit.namespace == "kube-system"


def test_a_namespace_of_our_own_with_another_name_is_passed_over() -> None:
    response, _ = answered(review_of(namespace="mesh"), replace(WORLD, own_namespace="mesh"))
    assert "patch" not in response


def test_an_annotation_alone_is_enough_where_the_namespace_asks_and_needs_no_warning() -> None:
    response, _ = answered(review_of(pod_with({"annotations": {names.INJECT: "true"}})))
    assert "patch" in response
    assert "warnings" not in response


def test_every_bad_annotation_is_in_the_refusal() -> None:
    bad = {"remora.io/log-level": "loud", "remora.io/capture": "magic"}
    response, found = answered(review_of(pod_with({"annotations": bad})))
    assert not response["allowed"]
    assert (response["status"]["code"], response["status"]["reason"]) == (422, "Invalid")
    assert 'remora.io/log-level is "loud": write one of debug' in response["status"]["message"]
    assert 'remora.io/capture is "magic"' in response["status"]["message"]
    assert (found.status, found.audit.verdict) == (200, Verdict.REFUSED)


def test_an_unknown_annotation_is_a_warning_with_the_nearest_one() -> None:
    response, _ = answered(review_of(pod_with({"annotations": {"remora.io/log-levle": "debug"}})))
    assert "patch" in response
    assert any("did you mean remora.io/log-level?" in each for each in response["warnings"])


@pytest.mark.parametrize(
    ("pod", "told"),
    [
        (pod_with({"annotations": {"a": "x" * 262_144}}), "the annotations have 262145 characters together"),
        (pod_with(spec={"containers": [{"name": f"c{number}"} for number in range(257)]}), "has 257 containers"),
        (
            pod_with(
                spec={
                    "initContainers": [
                        {
                            "name": "app",
                            "restartPolicy": "Always",
                            "livenessProbe": {"httpGet": {"port": 80, "path": "/" + "x" * 100_000}},
                        }
                    ]
                }
            ),
            "probes and hooks have 100",
        ),
    ],
    ids=["annotations", "containers", "probes"],
)
def test_a_pod_that_would_hold_up_all_others_is_refused(pod: dict[str, Any], told: str) -> None:
    response, found = answered(review_of(pod))
    assert told in response["status"]["message"]
    assert (response["status"]["code"], found.audit.verdict) == (422, Verdict.REFUSED)


def test_a_large_pod_that_wants_no_sidecar_is_left_alone() -> None:
    large = {"containers": [{"name": f"c{number}"} for number in range(257)]}
    response, found = answered(review_of(pod_with({"labels": {names.INJECT: "disabled"}}, large)))
    assert response["allowed"]
    assert found.audit.verdict is Verdict.SKIPPED


@pytest.mark.parametrize("module", ["review", "bounds", "webhook", "webhook_certificate"])
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"injector.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_a_job_with_a_plain_sidecar_is_known_by_its_owner() -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "nightly", "uid": "1", "controller": True}
    metadata = {"ownerReferences": [owner], "annotations": {"remora.io/native-sidecar": "false"}}
    response, found = answered(review_of(pod_with(metadata)))
    assert found.audit.owner == "Job/nightly"
    assert any("quitquitquit" in each for each in response["warnings"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operation": "UPDATE"}, "no_create"),
        ({"operation": "DELETE", "object": None}, "no_pod"),
        ({"subResource": "ephemeralcontainers"}, "no_pod"),
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "no_pod"),
        ({"resource": {"group": "", "version": "v2", "resource": "pods"}}, "no_pod"),
    ],
    ids=["update", "delete", "subresource", "other-kind", "other-version"],
)
def test_what_is_no_new_pod_is_allowed_unchanged_with_a_warning(changes: dict[str, Any], reason: str) -> None:
    response, found = answered(review_of(**changes))
    assert response["allowed"]
    assert "patch" not in response
    assert response["warnings"][0].startswith("not looked at: ")
    assert (found.audit.verdict, found.audit.reason) == (Verdict.UNCHANGED, reason)


def without_uid() -> dict[str, Any]:
    whole = review_of()
    del whole["request"]["uid"]
    return whole


MALFORMED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "no JSON"),
    ("no-object", b"[]", "kind is None"),
    ("no-utf8", b"\xff", "not UTF-8"),
    (
        "v1beta1",
        encoded({**review_of(), "apiVersion": "admission.k8s.io/v1beta1"}),
        "only admission.k8s.io/v1 is served",
    ),
    ("other-kind", encoded({**review_of(), "kind": "Pod"}), 'kind is "Pod"'),
    ("no-request", encoded({**review_of(), "request": None}), "request is no object"),
    ("no-uid", encoded(without_uid()), "request.uid is no text"),
    ("long-uid", encoded(review_of(uid="u" * 254)), "request.uid is no text"),
    ("no-operation", encoded(review_of(operation=None)), "request.operation"),
    ("no-namespace", encoded(review_of(namespace="")), "request.namespace"),
    ("no-pod", encoded(review_of([])), "request.object is no pod"),
    ("no-metadata", encoded(review_of({"spec": {}})), "request.object.metadata"),
    ("twice", encoded(review_of()).replace(b'"dryRun":', b'"uid":"x","dryRun":'), "'uid' stands there twice"),
    ("nan", encoded(review_of()).replace(b"8080", b"NaN"), "NaN is no JSON number"),
    ("infinite", encoded(review_of()).replace(b"8080", b"1e999"), "a number is too large"),
    ("huge-number", encoded(review_of()).replace(b"8080", b"9" * 5000), "no JSON that can be taken"),
    ("deep", encoded(review_of()).replace(b"8080", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH), "nested more than 64 deep"),
    ("very-deep", b"[" * 200_000, "nested too deeply"),
    ("large", b" " * (MAX_BODY + 1), "at most 3145728 bytes"),
]


@pytest.mark.parametrize(("data", "told"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_is_no_review_gets_an_error_that_says_what_is_wrong(data: bytes, told: str) -> None:
    found = review.review(data, WORLD)
    response = response_of(found.body)
    assert not response["allowed"]
    assert told in response["status"]["message"]
    assert (found.status, response["status"]["code"]) == (400, 400)
    assert (found.audit.verdict, found.audit.reason) == (Verdict.ERROR, "bad_review")


def test_an_error_names_the_review_where_it_can() -> None:
    response, _ = answered({**review_of(), "apiVersion": "admission.k8s.io/v1beta1"})
    assert response["uid"] == UID


def test_a_fault_of_our_own_is_an_answer_without_internals() -> None:
    found = review.broken(encoded(review_of()))
    response = response_of(found.body)
    assert (response["uid"], response["allowed"], response["status"]["code"]) == (UID, False, 500)
    assert response_of(review.broken(b"{").body)["uid"] == ""


def test_warnings_are_cut_to_what_api_servers_pass_on() -> None:
    told = shortened([f"{number} " + "x" * 400 for number in range(40)])
    assert all(len(each) <= 256 for each in told)
    assert sum(map(len, told)) <= 4096
    assert told[0].startswith("0 x")
    assert told[-1].startswith("25 more warnings have no room here")


def test_few_warnings_stay_whole_and_on_one_line() -> None:
    assert shortened(["one\n  two", "three\x1b[2J"]) == ["one two", "three?[2J"]


def test_ten_thousand_hostile_reviews_are_answered_and_never_break_it() -> None:
    verdicts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
    for number in range(10_000):
        found = review.review(hostile(number), WORLD)
        response_of(found.body)
        json.dumps(found.audit.as_document()).encode("ascii")
        verdicts[found.audit.verdict] += 1
    assert all(count > 50 for verdict, count in verdicts.items() if verdict is not Verdict.UNCHANGED), verdicts
