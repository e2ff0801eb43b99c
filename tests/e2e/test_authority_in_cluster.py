"""An authority as `remora install` runs it: an init container in each of two pods, then two replicas.

Over tests/kube_server.py, a stand-in for an API server. What is asked of it, is asked by real processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kube_server
import pytest
from authority_pods import SECONDS, Pod, leader_of
from authority_process import DOMAIN, eventually, identity, openssl_verify
from test_authority_serve_tokens import allow, run_pod, token_of

from injector import names

STANDS = f"an authority of {DOMAIN} stands there already\n"
Handle = Callable[[str, str, str | None, bytes], tuple[int, dict[str, Any]]]


@pytest.fixture
def kube() -> Iterator[kube_server.KubeServer]:
    with kube_server.KubeServer() as server:
        yield server


@pytest.fixture
def pods(tmp_path: Path, kube: kube_server.KubeServer) -> Iterator[list[Pod]]:
    made = [Pod(tmp_path / name, kube) for name in ("a", "b")]
    try:
        yield made
    finally:
        for pod in made:
            pod.stop()


def signers(kube: kube_server.KubeServer) -> list[str]:
    """The names of the stored keys and certificates."""
    return sorted(name for _, _, name in kube.objects if "-key-" in name or "-certificate-" in name)


def held(kube: kube_server.KubeServer, *ends: str) -> str:
    """What the API server holds, versions included; with `ends` of the objects with such names alone."""
    kept = {"/".join(key): item for key, item in kube.objects.items() if not ends or key[2].endswith(ends)}
    return json.dumps(kept, sort_keys=True)


def data(kube: kube_server.KubeServer, resource: str, name: str) -> Any:
    return kube.objects[resource, names.NAMESPACE, name]["data"]


def test_there_is_one_after_init_and_a_second_init_changes_nothing(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    first = pods[0].begin()
    assert first.returncode == 0, first.stderr
    assert f"made the authority of {DOMAIN}" in first.stdout
    before = held(kube)
    again = pods[1].begin()
    assert again.returncode == 0, again.stderr
    assert again.stdout == STANDS
    assert held(kube) == before
    assert data(kube, "secrets", names.AUTHORITY_KEYS)["passphrase"] not in first.stdout + first.stderr


def test_another_trust_domain_is_refused(kube: kube_server.KubeServer, pods: list[Pod]) -> None:
    assert pods[0].begin().returncode == 0
    other = pods[1].begin("other.example")
    assert other.returncode == 2
    assert f"an authority of {DOMAIN} stands there, and one of other.example was asked for" in other.stderr


def test_without_its_passphrase_a_state_is_damaged_and_no_new_one_is_made(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    assert pods[0].begin().returncode == 0
    kube.remove("secrets", names.NAMESPACE, names.AUTHORITY_KEYS)
    before = held(kube)
    again = pods[1].begin()
    assert again.returncode == 2
    assert f"there is no Secret {names.AUTHORITY_KEYS}" in again.stderr
    assert held(kube) == before


@pytest.mark.timeout(180)
def test_two_at_once_make_one_that_both_serve(kube: kube_server.KubeServer, pods: list[Pod]) -> None:
    children = [pod.beginning() for pod in pods]
    said = [child.communicate(timeout=SECONDS) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert len(signers(kube)) == 4, "a root and an intermediate, each a key and a certificate"
    for pod in pods:
        pod.serve()
    assert pods[0].bundle_file.read_text() == pods[1].bundle_file.read_text()


def test_an_empty_list_of_another_one_who_begins_is_as_good_as_ones_own(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    # Both write the empty lists before either writes the state: who is second there may be the first with the state.
    original: Handle = kube.handle
    lists: list[str] = []

    def handle(method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "POST" and path.endswith("/secrets"):
            name = json.loads(body)["metadata"]["name"]
            if name.endswith(("-joins", "-revocations")):
                lists.append(name)
                assert original(method, path, authorization, body)[0] == 201
        return original(method, path, authorization, body)

    kube.handle = handle  # type: ignore[method-assign]
    made = pods[0].begin()
    assert made.returncode == 0, made.stderr
    assert f"made the authority of {DOMAIN}" in made.stdout
    assert len(lists) == 2


@pytest.mark.timeout(180)
def test_the_slower_takes_back_what_it_made_and_leaves_the_lists_alone(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    # The fast one begins when the slow one has seen that there is no state, and makes a join token before the slow one
    # comes to the lists.
    slow, fast = pods
    original: Handle = kube.handle
    lists = ""

    def handle(method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        nonlocal lists
        if not lists and method == "POST" and path.endswith("/secrets") and b"-key-" in body:
            lists = "being written"
            quick = fast.begin()
            assert quick.returncode == 0, quick.stderr
            fast.serve()
            assert fast.token()
            assert fast.stop() == 0
            lists = held(kube, "-joins", "-revocations")
        return original(method, path, authorization, body)

    kube.handle = handle  # type: ignore[method-assign]
    made = slow.begin()
    assert made.returncode == 0, made.stderr
    assert made.stdout == STANDS
    assert len(signers(kube)) == 4, "what the slower made is gone"
    assert held(kube, "-joins", "-revocations") == lists
    assert "-joins" in lists


@pytest.mark.timeout(300)
def test_an_init_that_is_broken_off_before_any_write_is_completed_by_the_next(tmp_path: Path) -> None:
    with kube_server.KubeServer() as server:
        assert Pod(tmp_path / "counted", server).begin().returncode == 0
        writes = sum(method != "GET" for method, _ in server.calls)
    assert writes > 5, "a passphrase, two keys, two certificates, a state"
    for broken in range(writes):
        with kube_server.KubeServer() as server:
            pod = Pod(tmp_path / f"broken-{broken}", server)
            original: Handle = server.handle
            break_off_before(server, broken)
            first = pod.begin()
            assert first.returncode == 2, (broken, first.stdout)
            assert "Traceback" not in first.stderr
            server.handle = original  # type: ignore[method-assign]
            second = pod.begin()
            assert f"made the authority of {DOMAIN}" in second.stdout, (broken, second.stderr)
            assert pod.begin().stdout == STANDS, broken


def break_off_before(server: kube_server.KubeServer, number: int) -> None:
    """Let `number` writes be done, and answer no call from the next on: as a process sees it that is killed there."""
    original: Handle = server.handle
    seen, is_over = 0, False

    def handle(method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        nonlocal seen, is_over
        is_over = is_over or (method != "GET" and seen == number)
        if is_over:
            return 503, {"kind": "Status", "status": "Failure", "reason": "ServiceUnavailable", "code": 503}
        seen += method != "GET"
        return original(method, path, authorization, body)

    server.handle = handle  # type: ignore[method-assign]


@pytest.mark.timeout(180)
def test_a_pod_enrols_with_its_token_and_a_second_start_changes_nothing(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    token = token_of()
    allow(kube, token)
    run_pod(kube)
    for pod in pods:
        assert pod.begin().returncode == 0
        pod.serve()
        svid = pod.enrol(token=token)
        assert str(svid.spiffe_id) == identity("orders")
        assert openssl_verify(pod.base, svid.chain, pod.bundle_file.read_text()) == "OK"
    leader_of(pods)
    lasting = ("-state", "-passphrase", "-joins", "-revocations", names.TRUST_BUNDLE_MAP, *signers(kube))
    eventually(
        lambda: ("configmaps", names.NAMESPACE, names.TRUST_BUNDLE_MAP) in kube.objects, "the ConfigMap", SECONDS
    )
    before = held(kube, *lasting)
    for pod in pods:
        assert pod.stop() == 0
    again = Pod(pods[0].base.parent / "again", kube)
    assert again.begin().stdout == STANDS
    try:
        again.serve()
        leader_of([again])
        assert str(again.enrol(token=token).spiffe_id) == identity("orders")
        assert again.page("/readyz")[0] == 200
    finally:
        again.stop()
    assert held(kube, *lasting) == before


@pytest.mark.timeout(180)
def test_the_leader_keeps_the_trust_bundle_in_a_config_map(kube: kube_server.KubeServer, pods: list[Pod]) -> None:
    for pod in pods:
        assert pod.begin().returncode == 0
        pod.serve()
    name = names.TRUST_BUNDLE_MAP
    eventually(lambda: ("configmaps", names.NAMESPACE, name) in kube.objects, "the ConfigMap is made", SECONDS)
    leader = leader_of(pods)
    assert data(kube, "configmaps", name) == {names.BUNDLE_NAME: leader.bundle_file.read_text()}
    leader.order("rotate root")

    def both_roots() -> bool:
        return bool(data(kube, "configmaps", name)[names.BUNDLE_NAME].count("BEGIN CERTIFICATE") == 2)

    eventually(both_roots, "the next root is in it", SECONDS)


@pytest.mark.timeout(180)
def test_while_the_config_map_cannot_be_written_it_serves_and_its_status_says_why(
    kube: kube_server.KubeServer, pods: list[Pod]
) -> None:
    pod = pods[0]
    assert pod.begin().returncode == 0
    original: Handle = kube.handle
    is_forbidden = True

    def handle(method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        if is_forbidden and method == "POST" and path.endswith("/configmaps"):
            return 403, {"kind": "Status", "reason": "Forbidden", "code": 403, "message": "configmaps is forbidden"}
        return original(method, path, authorization, body)

    kube.handle = handle  # type: ignore[method-assign]
    pod.serve()
    status = eventually(lambda: told if "trust bundle" in (told := pod.order("status")) else "", "the reason", SECONDS)
    assert "rejected: trust bundle: " in status
    assert "configmaps is forbidden" in status
    assert f"the ConfigMap {names.TRUST_BUNDLE_MAP} does not have the trust bundle" in pod.log_file.read_text()
    assert pod.page("/readyz")[0] == 200, "whoever has a bundle can enrol"
    is_forbidden = False
    eventually(lambda: "trust bundle" not in pod.order("status"), "it is well again", SECONDS)
    assert data(kube, "configmaps", names.TRUST_BUNDLE_MAP) == {names.BUNDLE_NAME: pod.bundle_file.read_text()}
