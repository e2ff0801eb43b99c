"""The passphrase in a Secret: made once, whoever begins, and read by everybody after."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from certs.kube import KubeConflict, KubeError
from certs.sealed import KeySource, SealError
from proxy.authority.kube_bundle import CHECK_SECONDS, KubeBundle
from proxy.authority.passphrase_secret import KEY, passphrase_of


class Cluster:
    """Objects in memory; `before` is called with each verb and may raise, `after` when the call was done."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda verb: None
        self.after: Callable[[str], None] = lambda verb: None

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None:
        return self._do("get", lambda: self.objects.get((kind, name)))

    def create(self, kind: str, namespace: str, document: Mapping[str, Any]) -> dict[str, object]:
        def make() -> dict[str, object]:
            key = kind, document["metadata"]["name"]
            if key in self.objects:
                raise KubeConflict(409, "AlreadyExists", "it exists", "read it")
            self.objects[key] = {**document}
            return self.objects[key]

        return self._do("create", make)

    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, Any]) -> dict[str, object]:
        def write() -> dict[str, object]:
            self.objects[kind, name] = {**document}
            return self.objects[kind, name]

        return self._do("update", write)

    def _do(self, verb: str, act: Callable[[], Any]) -> Any:
        self.calls.append(verb)
        self.before(verb)
        done = act()
        self.after(verb)
        return done


def secret(value: str) -> dict[str, Any]:
    return {"data": {KEY: base64.b64encode(value.encode()).decode()}}


def test_it_is_made_once_and_read_after() -> None:
    cluster = Cluster()
    made = passphrase_of(cluster, "mesh", "keys", makes=True)
    assert len(made) == 64
    assert passphrase_of(cluster, "mesh", "keys", makes=True) == made
    assert passphrase_of(cluster, "mesh", "keys", makes=False) == made
    assert cluster.calls.count("create") == 1
    assert passphrase_of(Cluster(), "mesh", "keys", makes=True) != made


def test_who_serves_makes_none() -> None:
    cluster = Cluster()
    with pytest.raises(SealError, match="there is no Secret keys in mesh; make an authority"):
        passphrase_of(cluster, "mesh", "keys", makes=False)
    assert cluster.calls == ["get"]


def test_of_two_that_begin_at_once_both_have_that_of_the_first() -> None:
    cluster = Cluster()

    def meanwhile(verb: str) -> None:
        if verb == "create":
            cluster.objects["Secret", "keys"] = secret("theirs")

    cluster.before = meanwhile
    assert passphrase_of(cluster, "mesh", "keys", makes=True) == b"theirs"


@pytest.mark.parametrize("was_done", [True, False])
def test_an_answer_that_is_lost_is_asked_for_again(was_done: bool) -> None:
    cluster = Cluster()

    def lost(verb: str) -> None:
        if verb == "create":
            raise KubeError(0, "Unreachable", "gone", "look")

    setattr(cluster, "after" if was_done else "before", lost)
    if was_done:
        found = passphrase_of(cluster, "mesh", "keys", makes=True)
        assert base64.b64decode(cluster.objects["Secret", "keys"]["data"][KEY]) == found
    else:
        with pytest.raises(KubeError):
            passphrase_of(cluster, "mesh", "keys", makes=True)


@pytest.mark.parametrize("damaged", [{}, {"data": {}}, {"data": {KEY: "%%%"}}, {"data": {KEY: ""}}, {"data": "x"}])
def test_a_secret_without_a_passphrase_is_never_overwritten(damaged: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.objects["Secret", "keys"] = damaged
    with pytest.raises(SealError, match="the Secret keys holds no passphrase; restore it"):
        passphrase_of(cluster, "mesh", "keys", makes=True)
    assert cluster.calls == ["get"]


def test_a_refusal_of_the_api_server_is_told() -> None:
    cluster = Cluster()

    def refuse(verb: str) -> None:
        if verb == "create":
            raise KubeError(403, "Forbidden", "no", "give it")

    cluster.before = refuse
    with pytest.raises(KubeError, match="no; give it"):
        passphrase_of(cluster, "mesh", "keys", makes=True)


def test_a_key_source_asks_for_it_by_name() -> None:
    asked: list[str] = []

    def fetch(name: str) -> bytes:
        asked.append(name)
        return b"correct horse"

    source = KeySource.parse("secret:keys", fetch)
    assert (asked, source.passphrase) == (["keys"], b"correct horse")
    assert "correct" not in repr(source)
    with pytest.raises(SealError, match="no API server is named; give --kube"):
        KeySource.parse("secret:keys")


# --- the ConfigMap with the trust bundle ---


def test_the_bundle_is_written_and_left_alone() -> None:
    cluster = Cluster()
    bundle = KubeBundle(cluster, "mesh", "bundle", lambda: True)
    bundle.keep(b"one", 0)
    assert cluster.objects["ConfigMap", "bundle"]["data"] == {"bundle.pem": "one"}
    cluster.calls.clear()
    bundle.keep(b"one", CHECK_SECONDS - 1)
    assert cluster.calls == []
    bundle.keep(b"one", CHECK_SECONDS)
    assert cluster.calls == ["get"]


def test_a_rotation_is_written_at_once_and_a_foreign_change_is_mended() -> None:
    cluster = Cluster()
    bundle = KubeBundle(cluster, "mesh", "bundle", lambda: True)
    bundle.keep(b"one", 0)
    bundle.keep(b"two", 1)
    assert cluster.objects["ConfigMap", "bundle"]["data"] == {"bundle.pem": "two"}
    cluster.objects["ConfigMap", "bundle"]["data"] = {"bundle.pem": "theirs", "more": "x"}
    bundle.keep(b"two", 1 + CHECK_SECONDS)
    assert cluster.objects["ConfigMap", "bundle"]["data"] == {"bundle.pem": "two"}


def test_only_the_leader_writes() -> None:
    cluster, leads = Cluster(), False
    bundle = KubeBundle(cluster, "mesh", "bundle", lambda: leads)
    bundle.keep(b"one", 0)
    assert cluster.calls == []
    leads = True
    bundle.keep(b"one", 1)
    assert cluster.objects["ConfigMap", "bundle"]["data"] == {"bundle.pem": "one"}


def test_a_failure_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()

    def refuse(verb: str) -> None:
        raise KubeError(403, "Forbidden", "no", "give it")

    cluster.before = refuse
    bundle = KubeBundle(cluster, "mesh", "bundle", lambda: True)
    for second in range(3):
        bundle.keep(b"one", second)
    assert bundle.fault == "no; give it"
    assert caplog.text.count("does not have the trust bundle: no; give it") == 1
    cluster.before = lambda verb: None
    bundle.keep(b"one", 3)
    assert bundle.fault == ""
    assert cluster.objects["ConfigMap", "bundle"]["data"] == {"bundle.pem": "one"}
