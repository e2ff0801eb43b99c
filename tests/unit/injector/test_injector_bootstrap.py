"""The look after the webhook's certificate in a cluster, over a cluster in memory with faults at every call."""

from __future__ import annotations

import base64
import copy
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from certs.kube import KubeConflict, KubeError
from injector import names
from injector.bootstrap import WEBHOOK, Bootstrap
from injector.certificate import CA, CHAIN, KEY, LEAF_LIFETIME, NEXT, not_after

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Cluster:
    """Objects in memory with resourceVersions. `fails` is asked before each call and may raise; `calls` has all."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.fails: Callable[[str, str, str], None] = lambda verb, kind, name: None
        self.put(WEBHOOK, names.INJECTOR, {"webhooks": [{"name": "a", "clientConfig": {"service": {}}}, {"name": "b"}]})

    def put(self, kind: str, name: str, document: Mapping[str, object]) -> None:
        version = str(int(self.objects.get((kind, name), {}).get("metadata", {}).get("resourceVersion", "0")) + 1)
        metadata = {"name": name, "resourceVersion": version}
        self.objects[kind, name] = {**copy.deepcopy(dict(document)), "kind": kind, "metadata": metadata}

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None:
        self._called("get", kind, name)
        return copy.deepcopy(self.objects.get((kind, name)))

    def create(self, kind: str, namespace: str, document: Mapping[str, Any]) -> dict[str, object]:
        name = document["metadata"]["name"]
        self._called("create", kind, name)
        if (kind, name) in self.objects:
            raise KubeConflict(409, "AlreadyExists", "it exists", "read it")
        self.put(kind, name, document)
        return copy.deepcopy(self.objects[kind, name])

    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, Any]) -> dict[str, object]:
        self._called("update", kind, name)
        if document["metadata"]["resourceVersion"] != self.objects[kind, name]["metadata"]["resourceVersion"]:
            raise KubeConflict(409, "Conflict", "it changed", "read it")
        self.put(kind, name, document)
        return copy.deepcopy(self.objects[kind, name])

    def _called(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        self.fails(verb, kind, name)

    def secret(self) -> dict[str, bytes]:
        data = self.objects["Secret", names.INJECTOR_TLS]["data"]
        return {name: base64.b64decode(value) for name, value in data.items()}

    def bundles(self) -> list[bytes]:
        entries = self.objects[WEBHOOK, names.INJECTOR]["webhooks"]
        return [base64.b64decode(entry.get("clientConfig", {}).get("caBundle", "")) for entry in entries]


def bootstrap(cluster: Cluster, directory: Path) -> Bootstrap:
    return Bootstrap(
        cluster,
        namespace=names.NAMESPACE,
        secret=names.INJECTOR_TLS,
        webhook=names.INJECTOR,
        service=names.INJECTOR,
        directory=directory,
    )


def test_the_first_look_makes_everything(tmp_path: Path) -> None:
    cluster = Cluster()
    looked = bootstrap(cluster, tmp_path / "tls").look(NOW)
    secret = cluster.secret()
    assert cluster.bundles() == [secret[CA], secret[CA]]
    assert (tmp_path / "tls" / CHAIN).read_bytes() == secret[CHAIN]
    assert (tmp_path / "tls" / KEY).read_bytes() == secret[KEY]
    assert (tmp_path / "tls" / KEY).stat().st_mode & 0o077 == 0
    assert looked.not_after == NOW + LEAF_LIFETIME
    assert len(looked.did) == 2
    assert cluster.objects[WEBHOOK, names.INJECTOR]["webhooks"][0]["clientConfig"]["service"] == {}, "all else stays"


def test_a_look_at_what_is_good_writes_nothing(tmp_path: Path) -> None:
    cluster = Cluster()
    look = bootstrap(cluster, tmp_path).look
    look(NOW)
    cluster.calls.clear()
    assert look(NOW + datetime.timedelta(minutes=1)).did == ()
    assert [verb for verb, _, _ in cluster.calls] == ["get", "get"]


def test_only_the_calls_that_its_role_grants_are_made(tmp_path: Path) -> None:
    cluster = Cluster()
    look = bootstrap(cluster, tmp_path).look
    for days in range(0, 800, 5):
        look(NOW + datetime.timedelta(days=days))
    assert set(cluster.calls) == {
        ("get", "Secret", names.INJECTOR_TLS),
        ("create", "Secret", names.INJECTOR_TLS),
        ("update", "Secret", names.INJECTOR_TLS),
        ("get", WEBHOOK, names.INJECTOR),
        ("update", WEBHOOK, names.INJECTOR),
    }


def test_of_two_replicas_at_once_one_makes_it_and_both_show_it(tmp_path: Path) -> None:
    cluster = Cluster()
    first, second = bootstrap(cluster, tmp_path / "a"), bootstrap(cluster, tmp_path / "b")

    def meanwhile(verb: str, kind: str, name: str) -> None:
        if verb == "create":
            cluster.fails = lambda verb, kind, name: None
            second.look(NOW)

    cluster.fails = meanwhile
    first.look(NOW)
    assert (tmp_path / "a" / CHAIN).read_bytes() == (tmp_path / "b" / CHAIN).read_bytes() == cluster.secret()[CHAIN]


def test_of_two_renewals_at_once_one_counts(tmp_path: Path) -> None:
    cluster = Cluster()
    first, second = bootstrap(cluster, tmp_path / "a"), bootstrap(cluster, tmp_path / "b")
    first.look(NOW)
    later = NOW + LEAF_LIFETIME * 0.8
    before = cluster.secret()[CHAIN]

    def meanwhile(verb: str, kind: str, name: str) -> None:
        if verb == "update" and kind == "Secret":
            cluster.fails = lambda verb, kind, name: None
            second.look(later)

    cluster.fails = meanwhile
    first.look(later)
    assert (tmp_path / "a" / CHAIN).read_bytes() == cluster.secret()[CHAIN] != before
    assert cluster.secret()[CHAIN] == (tmp_path / "b" / CHAIN).read_bytes()


def test_a_foreign_ca_bundle_is_mended(tmp_path: Path) -> None:
    cluster = Cluster()
    look = bootstrap(cluster, tmp_path).look
    look(NOW)
    document = copy.deepcopy(cluster.objects[WEBHOOK, names.INJECTOR])
    document["webhooks"][1]["clientConfig"]["caBundle"] = "bm9uc2Vuc2U="
    cluster.put(WEBHOOK, names.INJECTOR, document)
    assert look(NOW).did == (f"the caBundle of {names.INJECTOR} was written",)
    assert cluster.bundles() == [cluster.secret()[CA]] * 2


def test_a_certificate_is_shown_after_the_api_server_can_believe_it(tmp_path: Path) -> None:
    cluster = Cluster()
    look = bootstrap(cluster, tmp_path).look

    def refuse(verb: str, kind: str, name: str) -> None:
        if verb == "update" and kind == WEBHOOK:
            raise KubeError(403, "Forbidden", "no", "give it")

    cluster.fails = refuse
    with pytest.raises(KubeError):
        look(NOW)
    assert not (tmp_path / CHAIN).exists()
    cluster.fails = lambda verb, kind, name: None
    look(NOW)
    assert (tmp_path / CHAIN).exists()


def test_a_call_that_fails_is_made_up_for_by_the_next_look(tmp_path: Path) -> None:
    count = 0
    for broken in range(6):
        cluster, calls = Cluster(), 0

        def fail(verb: str, kind: str, name: str, broken: int = broken) -> None:
            nonlocal calls
            calls += 1
            if calls - 1 == broken:
                raise KubeError(0, "Unreachable", "gone", "look")

        cluster.fails = fail
        look = bootstrap(cluster, tmp_path / str(broken)).look
        try:
            look(NOW)
        except KubeError:
            count += 1
            look(NOW)
        assert cluster.bundles() == [cluster.secret()[CA]] * 2
        assert (tmp_path / str(broken) / CHAIN).read_bytes() == cluster.secret()[CHAIN]
    assert count == 5, "the first look makes five calls"


def test_without_a_webhook_configuration_it_says_what_to_apply(tmp_path: Path) -> None:
    cluster = Cluster()
    del cluster.objects[WEBHOOK, names.INJECTOR]
    with pytest.raises(KubeError, match="remora install"):
        bootstrap(cluster, tmp_path).look(NOW)


def test_who_always_writes_first_is_named(tmp_path: Path) -> None:
    cluster = Cluster()

    def conflict(verb: str, kind: str, name: str) -> None:
        if verb in ("create", "update"):
            raise KubeConflict(409, "Conflict", "it changed", "read it")

    cluster.fails = conflict
    with pytest.raises(KubeError, match=f"the Secret {names.INJECTOR_TLS} changed 5 times"):
        bootstrap(cluster, tmp_path).look(NOW)


def test_a_damaged_secret_heals(tmp_path: Path) -> None:
    cluster = Cluster()
    look = bootstrap(cluster, tmp_path).look
    look(NOW)
    cluster.put("Secret", names.INJECTOR_TLS, {"data": {CA: "%%%", KEY: "bm90aGluZw=="}})
    look(NOW)
    assert not_after(cluster.secret()) == NOW + LEAF_LIFETIME
    assert (tmp_path / CHAIN).read_bytes() == cluster.secret()[CHAIN]
    assert NEXT not in cluster.secret()
