"""What `remora install` grants is what authority and injector ask: no call without a right, no right without a call.

Real processes ask tests/kube_server.py, a stand-in for an API server, and it notes what they asked.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import kube_server
import pytest
from authority_pods import SECONDS, Pod, leader_of
from authority_process import eventually, identity
from injector_process import HOST, InjectorProcess
from test_authority_serve_tokens import allow, run_pod, token_of
from test_injector_serve_cluster import CONFIGURATION, RESOURCE, cluster

from injector import access, certificate, names
from injector.access import Access

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[a-z0-9.]+)/v1)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?"
)
Right = tuple[str, str, str, str]
"""API group, resource, verb, and the name for which it is granted: "" is any."""


def rights(table: Iterable[Access]) -> set[Right]:
    """Every right of a table by itself."""
    return {
        (entry.api_group, entry.resource, verb, name)
        for entry in table
        for verb in entry.verbs
        for name in entry.names or ("",)
    }


def right_of(table: Iterable[Access], method: str, path: str) -> Right:
    """The right that lets a call pass, as RBAC judges it; a call without one is a failure."""
    call = PATH.fullmatch(path)
    assert call is not None, path
    for entry in table:
        if (entry.api_group, entry.resource) != (call["group"] or "", call["resource"]) or VERBS[
            method
        ] not in entry.verbs:
            continue
        if not entry.is_cluster_wide and call["namespace"] != names.NAMESPACE:
            continue
        # The name of what is created is in the body, where RBAC does not look.
        if not entry.names or call["name"] in entry.names:
            return entry.api_group, entry.resource, VERBS[method], call["name"] if entry.names else ""
    raise AssertionError(f"{method} {path} is not granted")


@pytest.mark.timeout(240)
def test_the_authority_makes_the_calls_that_it_may_and_no_others(tmp_path: Path) -> None:
    with kube_server.KubeServer() as kube:
        pods = [Pod(tmp_path / name, kube) for name in ("a", "b")]
        try:
            live_an_authority_s_life(kube, pods)
        finally:
            for pod in pods:
                pod.stop()
        used = {right_of(access.AUTHORITY, method, path) for method, path in kube.calls}
    assert rights(access.AUTHORITY) - used == set(), "what nobody needs is not granted"


def live_an_authority_s_life(kube: kube_server.KubeServer, pods: list[Pod]) -> None:
    """Begin twice at once, serve, enrol a pod, rotate, revoke, give the lead away."""
    begin_at_once(kube, *pods)
    token = token_of()
    allow(kube, token)
    run_pod(kube)
    for pod in pods:
        pod.serve()
        assert str(pod.enrol(token=token).spiffe_id) == identity("orders")
    leader = leader_of(pods)
    other = next(pod for pod in pods if pod is not leader)
    name = ("configmaps", names.NAMESPACE, names.TRUST_BUNDLE_MAP)
    eventually(lambda: name in kube.objects, "the trust bundle is written", SECONDS)
    leader.order("rotate intermediate")
    leader.order("revoke", "--identity", identity("web"))
    leader.order("rotate root")
    eventually(
        lambda: kube.objects[name]["data"][names.BUNDLE_NAME].count("BEGIN CERTIFICATE") == 2,
        "the next root is in the trust bundle",
        SECONDS,
    )
    assert leader.stop() == 0
    eventually(lambda: other.leads, "the other leads", SECONDS)


def begin_at_once(kube: kube_server.KubeServer, slow: Pod, fast: Pod) -> None:
    """Let the fast one begin while the slow one is about to write its state: the slow one takes back its own."""
    original: Callable[[str, str, str | None, bytes], tuple[int, dict[str, Any]]] = kube.handle
    has_begun = False

    def handle(method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        nonlocal has_begun
        if not has_begun and method == "POST" and f'"{names.AUTHORITY}-state"'.encode() in body:
            has_begun = True
            quick = fast.begin()
            assert quick.returncode == 0, quick.stderr
        return original(method, path, authorization, body)

    kube.handle = handle  # type: ignore[method-assign]
    made = slow.begin()
    kube.handle = original  # type: ignore[method-assign]
    assert made.returncode == 0, made.stderr
    assert "stands there already" in made.stdout


@pytest.mark.timeout(120)
def test_the_injector_makes_the_calls_that_it_may_and_no_others(tmp_path: Path) -> None:
    with kube_server.KubeServer() as kube:
        kube.put(RESOURCE, "", names.INJECTOR, CONFIGURATION)
        serve_once(tmp_path / "first", kube)
        # A Secret that is made anew, and one whose certificate is due.
        long_ago = datetime.datetime.now(datetime.UTC) - certificate.LEAF_LIFETIME * 0.9
        step = certificate.advance({}, (HOST,), long_ago)
        assert step is not None
        aged = {name: base64.b64encode(content).decode() for name, content in step.files.items()}
        kube.put("secrets", names.NAMESPACE, names.INJECTOR_TLS, {"kind": "Secret", "data": aged})
        serve_once(tmp_path / "second", kube)
        assert kube.objects["secrets", names.NAMESPACE, names.INJECTOR_TLS]["data"]["tls.crt"] != aged["tls.crt"]
        used = {right_of(access.INJECTOR, method, path) for method, path in kube.calls}
    assert rights(access.INJECTOR) - used == set(), "what nobody needs is not granted"


def serve_once(base: Path, kube: kube_server.KubeServer) -> None:
    """Start a webhook on an empty directory, and end it when it serves."""
    base.mkdir()
    injector = InjectorProcess(base)
    try:
        injector.start(*cluster(kube.url, base / "token"))
    finally:
        assert injector.stop() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/namespaces/demo/secrets/db-password"),
        ("GET", f"/api/v1/namespaces/{names.NAMESPACE}/secrets/{names.AUTHORITY_KEYS}"),
        ("DELETE", f"/api/v1/namespaces/{names.NAMESPACE}/secrets/{names.INJECTOR_TLS}"),
        ("GET", f"/api/v1/namespaces/{names.NAMESPACE}/secrets"),
        ("PUT", f"/apis/admissionregistration.k8s.io/v1/{RESOURCE}/another"),
    ],
)
def test_what_is_not_granted_is_seen(method: str, path: str) -> None:
    with pytest.raises(AssertionError, match="is not granted"):
        right_of(access.INJECTOR, method, path)
