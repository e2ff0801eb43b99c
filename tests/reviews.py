"""AdmissionReviews as API servers send them, and hostile ones: made by number, the same for the same number."""

from __future__ import annotations

import base64
import copy
import functools
import json
import random
from pathlib import Path
from typing import Any

from injector.documents import split
from injector.doors import objects
from injector.manifests import template

CORPUS = Path(__file__).parent / "corpus" / "pods"
UID = "705ab4f5-6393-11e8-b7cc-42010a800002"

POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "generateName": "orders-7d4b9c5f6d-",
        "creationTimestamp": None,
        "labels": {"app": "orders", "pod-template-hash": "7d4b9c5f6d"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "orders-7d4b9c5f6d",
                "uid": "3f4a7e52-8a0f-4a5b-9a86-0d1f0f6f2f11",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
        "managedFields": [
            {
                "manager": "kube-controller-manager",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-11-26T09:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:spec": {
                        "f:containers": {'k:{"name":"orders"}': {"f:env": {".": {}, 'k:{"name":"A"}': {"f:name": {}}}}}
                    }
                },
            }
        ],
    },
    "spec": {
        "volumes": [
            {
                "name": "kube-api-access-q6xqf",
                "projected": {
                    "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}],
                    "defaultMode": 420,
                },
            }
        ],
        "containers": [
            {
                "name": "orders",
                "image": "registry.example/orders:1.4",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}],
                "resources": {},
                "volumeMounts": [
                    {
                        "name": "kube-api-access-q6xqf",
                        "readOnly": True,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    }
                ],
                "livenessProbe": {
                    "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "orders",
        "serviceAccount": "orders",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    },
    "status": {},
}
"""A pod of a Deployment as the API server has it when webhooks are asked: defaults filled in, no name yet."""


def review_of(pod: object = None, *, uid: str = UID, namespace: str = "shop", **changes: Any) -> dict[str, Any]:
    """An AdmissionReview with every member that an API server of 1.29 and newer writes."""
    request: dict[str, Any] = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "uid": "d7c5e2f5-28a3-4a52-bd0f-5b1fa1e1f0d1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        },
        "object": copy.deepcopy(POD) if pod is None else pod,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    request.update(changes)
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def encoded(review: object) -> bytes:
    """A review on the wire."""
    return json.dumps(review, separators=(",", ":")).encode()


def response_of(body: bytes) -> dict[str, Any]:
    """The response in an answer, which must be one that API servers take."""
    whole = json.loads(body)
    assert (whole["apiVersion"], whole["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert set(whole) == {"apiVersion", "kind", "response"}
    response: dict[str, Any] = whole["response"]
    assert isinstance(response["uid"], str)
    assert isinstance(response["allowed"], bool)
    assert set(response) <= {"uid", "allowed", "patchType", "patch", "warnings", "status"}
    warnings = response.get("warnings", [])
    assert all(0 < len(each) <= 256 and each.isprintable() for each in warnings), warnings
    assert sum(map(len, warnings)) <= 4096
    assert ("patch" in response) == ("patchType" in response)
    if not response["allowed"]:
        assert response["status"]["message"]
        assert "patch" not in response
    return response


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The patch of a response."""
    patch: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"], validate=True))
    return patch


@functools.cache
def corpus_pods() -> tuple[dict[str, Any], ...]:
    """Every pod of the corpus, templates as pods."""
    found = []
    for path in sorted(CORPUS.glob("*.yaml")):
        for document in objects(split(path.read_bytes(), path.name)):
            place = template(document)
            if place is not None and isinstance(place.metadata, dict):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": dict(place.metadata), "spec": dict(place.spec)}
                found.append(pod)
    return tuple(found)


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x" * 5000,
    "\x00\x1b[2J",
    "\ud800",
    "remora-proxy",
    "15020",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"name": []},
    ["remora-proxy"],
    "ünï\u2028",
)


def hostile(number: int) -> bytes:
    """What somebody sends who wants the webhook to fail, by its number."""
    chance = random.Random(number)
    pod = copy.deepcopy(chance.choice(corpus_pods()))
    review = review_of(
        pod, uid=f"{UID}-{number}", namespace=chance.choice(("shop", "kube-system", "remora-system", "a"))
    )
    review["request"]["dryRun"] = chance.random() < 0.2
    kind = chance.randrange(10)
    if kind < 6:
        place = review if kind == 0 else pod
        for _ in range(chance.randrange(5)):
            _spoil(place, chance)
        return _text(review)
    text = bytearray(encoded(review))
    if kind == 6:
        for _ in range(chance.randrange(1, 9)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        return bytes(text)
    if kind == 7:
        return bytes(text[: chance.randrange(len(text))])
    if kind == 8:
        return _nested(chance)
    return chance.choice(
        (
            b"",
            b"null",
            b"[]",
            b'"x"',
            b"\xef\xbb\xbf{}",
            b"\xff\xfe",
            b'{"kind":"AdmissionReview","kind":"AdmissionReview"}',
            bytes(text).replace(b'"allowed"', b"", 1).replace(b"8080", b"NaN"),
            bytes(text).replace(b"8080", b"1e999"),
            bytes(text).replace(b"8080", b"9" * 5000),
            bytes(text).replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1"),
            b"{" * 100_000,
        )
    )


def _text(review: object) -> bytes:
    return json.dumps(review).encode()


def _nested(chance: random.Random) -> bytes:
    depth = chance.choice((30, 63, 64, 65, 500, 5000))
    inner = b"[" * depth + b"]" * depth
    return encoded(review_of({**POD, "spec": {"containers": "HERE"}})).replace(b'"HERE"', inner)


def _spoil(value: Any, chance: random.Random) -> None:
    """Change one place somewhere in a document."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.85:
            value = inner
            continue
        match chance.randrange(4):
            case 0:
                del value[key]
            case 1 if isinstance(value, dict):
                value[str(chance.choice(ODD))] = inner
            case 2 if isinstance(value, list):
                value.append(copy.deepcopy(inner))
            case _:
                value[key] = copy.deepcopy(chance.choice(ODD))
        return
