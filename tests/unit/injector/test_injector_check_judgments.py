"""Judgments of `remora check` about what an API server answered: each state of a cluster, and its line."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.kube import KubeAnswer, KubeError
from certs.testing import half_readable
from injector import names
from injector.certificate import AUTHORITY_LIFETIME, LEAF_LIFETIME, advance, ca_bundle, dns_names
from injector.check import Finding, Level, listed
from injector.check_cluster import NATIVE_SIDECARS, clock, namespaces, nodes, other_meshes, version
from injector.check_control import (
    deployment,
    disruption_budget,
    endpoints,
    images,
    trust_bundle,
    webhook,
    webhook_certificate,
)
from injector.check_pods import pods
from injector.check_rights import NEEDED, VERBS, rights
from injector.check_run import Checkup, Phase
from injector.inject import inject_pod
from injector.install.objects import groups
from injector.install.plan import Plan
from injector.install.webhook import webhook as installed_webhook
from injector.settings import Capture, Settings

NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
OURS = names.NAMESPACE
Document = dict[str, Any]


def levels(found: list[Finding]) -> list[str]:
    return [finding.level.value for finding in found]


# --- the cluster -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("v1.20.15", "fail"),
        ("v1.28.9", "fail"),
        ("v1.29.0", "ok"),
        ("v1.31.4-gke.1372000", "ok"),
        ("v1.37.0-rc.1+k3s1", "ok"),
        ("v1.38.0", "warn"),
        ("", "warn"),
        ("nginx", "warn"),
        ("v1", "warn"),
    ],
)
def test_versions(text: str, level: str) -> None:
    assert version({"gitVersion": text}, Settings()).level is Level(level)


def test_without_native_sidecars_an_older_cluster_will_do_down_to_what_is_printed() -> None:
    plain = Settings(native_sidecar=False)
    assert version({"gitVersion": "v1.28.9"}, plain).level is Level.OK
    assert version({"gitVersion": "v1.20.0"}, plain).level is Level.FAIL
    assert "native-sidecar: false" in version({"gitVersion": "v1.28.9"}, Settings()).mend


@pytest.mark.parametrize(
    ("ours", "level", "words"),
    [
        (0.5, "ok", "differ by 0 s"),
        (5.4, "ok", "differ by 5 s"),
        (9.5, "warn", "9 s behind ours"),
        (-8.5, "warn", "9 s ahead of ours"),
        (61.5, "fail", "61 s behind ours"),
        (-3599.5, "fail", "3600 s ahead of ours"),
    ],
)
def test_clocks(ours: float, level: str, words: str) -> None:
    found = clock("Tue, 01 Jan 2030 12:00:00 GMT", NOW + datetime.timedelta(seconds=ours))
    assert (found.level, words in found.what) == (Level(level), True)


@pytest.mark.parametrize("date", [None, "", "soon", "-1"])
def test_a_server_without_a_time_is_a_line(date: str | None) -> None:
    assert clock(date, NOW).level is Level.WARN


def node(name: str, **facts: str) -> Document:
    known = {"operatingSystem": "linux", "kernelVersion": "6.1.0-28-amd64", "kubeletVersion": "v1.31.4", **facts}
    return {"metadata": {"name": name}, "status": {"nodeInfo": known}}


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        ({}, "ok", "1 node"),
        ({"kernelVersion": "4.17.0"}, "ok", "1 node"),
        ({"kernelVersion": "4.14.336-180.amzn2"}, "warn", "n (4.14.336-180.amzn2)"),
        ({"kernelVersion": "3.10.0-1160.el7"}, "warn", "n (3.10.0-1160.el7)"),
        ({"operatingSystem": "windows", "kernelVersion": "10.0.17763"}, "warn", "1 node with Windows: n"),
        ({"kubeletVersion": "v1.28.3"}, "fail", "n (v1.28.3)"),
    ],
)
def test_nodes(facts: dict[str, str], level: str, words: str) -> None:
    (found,) = nodes([node("n", **facts)], Settings())
    assert (found.level, words in found.what) == (Level(level), True)


def test_what_is_not_used_is_not_asked_of_nodes() -> None:
    old = [node("n", kernelVersion="3.10.0", kubeletVersion="v1.28.3")]
    assert levels(list(nodes(old, Settings(native_sidecar=False, capture=Capture.PORTS)))) == []
    assert NATIVE_SIDECARS == (1, 29)


def namespace(name: str, **labels: str) -> Document:
    known = {"inject": names.INJECT, "enforce": "pod-security.kubernetes.io/enforce"}
    return {"metadata": {"name": name, "labels": {known[key]: value for key, value in labels.items()}}}


@pytest.mark.parametrize(
    ("labels", "level", "words"),
    [
        ({"inject": "enabled"}, "ok", "allows them"),
        ({"inject": "true", "enforce": "privileged"}, "ok", "allows them"),
        ({"inject": "enabled", "enforce": "baseline"}, "warn", "baseline forbids the NET_ADMIN"),
        ({"inject": "enabled", "enforce": "restricted"}, "warn", "restricted forbids the NET_ADMIN"),
        ({"inject": "disabled", "enforce": "restricted"}, "warn", "no namespace asks"),
        ({}, "warn", "no namespace asks"),
    ],
)
def test_namespaces(labels: dict[str, str], level: str, words: str) -> None:
    (found,) = namespaces([namespace("shop", **labels)], Settings())
    assert (found.level, words in found.what) == (Level(level), True)


def test_without_a_capture_step_every_pod_security_level_will_do() -> None:
    asking = [namespace("shop", inject="enabled", enforce="restricted")]
    assert levels(list(namespaces(asking, Settings(capture=Capture.PORTS)))) == ["ok"]


def test_a_label_that_does_nothing_is_named() -> None:
    found = list(namespaces([namespace("kube-system", inject="enabled")], Settings()))
    assert found[0].mend == "kubectl label namespace kube-system remora.io/inject-"
    assert "no namespace asks" in found[1].what


@pytest.mark.parametrize(
    ("name", "entry", "mesh"),
    [
        ("istio-sidecar-injector", "rev.namespace.sidecar-injector.istio.io", "Istio"),
        ("istio-revision-tag-default", "x", "Istio"),
        ("linkerd-proxy-injector-webhook-config", "linkerd-proxy-injector.linkerd.io", "Linkerd"),
        ("custom", "namespace.sidecar-injector.istio.io", "Istio"),
        ("kuma-admission-mutating-webhook-configuration", "x", "Kuma"),
    ],
)
def test_other_meshes_are_named(name: str, entry: str, mesh: str) -> None:
    ours = installed_webhook(Plan(image="remora"))
    (found,) = other_meshes([ours, {"metadata": {"name": name}, "webhooks": [{"name": entry}]}])
    assert found.what.startswith(f"{mesh} is here too: its webhook {name} ")
    assert levels(list(other_meshes([ours]))) == ["ok"]


# --- rights ----------------------------------------------------------------------------------------------------------


def test_the_table_of_rights_has_every_kind_that_an_installation_prints_and_no_other() -> None:
    printed = {
        (str(item["apiVersion"]).rpartition("/")[0], item["kind"], "namespace" in item["metadata"])  # type: ignore[operator]
        for group in groups(Plan(image="remora", mesh_namespaces=("shop",)))
        for item in group.objects
    }
    assert {(needed.api_group, needed.kind, not needed.is_cluster_wide) for needed in NEEDED} == printed


def asked_of(refused: Callable[[Mapping[str, str]], bool]) -> tuple[list[Mapping[str, str]], list[Finding]]:
    asked: list[Mapping[str, str]] = []

    def may(attributes: Mapping[str, str]) -> bool:
        asked.append(attributes)
        return attributes["verb"] != "*" and not refused(attributes)

    return asked, list(rights(may, OURS))


def test_every_verb_of_every_kind_is_asked_for_in_its_place() -> None:
    asked, found = asked_of(lambda attributes: False)
    assert levels(found) == ["ok"]
    for needed in NEEDED:
        place = {} if needed.is_cluster_wide else {"namespace": OURS}
        for verb in VERBS:
            assert {"group": needed.api_group, "resource": needed.resource, "verb": verb, **place} in asked


def test_rights_that_can_neither_be_had_nor_granted_are_named() -> None:
    _, found = asked_of(lambda attributes: attributes["verb"] == "bind" or attributes["resource"] == "tokenreviews")
    assert [finding.what for finding in found] == [
        "we may not grant what we do not have ourselves: create tokenreviews"
    ]
    _, found = asked_of(lambda attributes: attributes["resource"] == "tokenreviews")
    assert levels(found) == ["ok"]


# --- the control plane -----------------------------------------------------------------------------------------------


def made(now: datetime.datetime = NOW) -> dict[str, bytes]:
    step = advance({}, dns_names(names.INJECTOR, OURS), now)
    assert step is not None
    return dict(step.files)


def configuration(files: Mapping[str, bytes] | None) -> Document:
    document: Document = installed_webhook(Plan(image="remora"))
    for entry in document["webhooks"]:
        if files is not None:
            entry["clientConfig"]["caBundle"] = base64.b64encode(ca_bundle(files)).decode()
    return document


def secret(files: Mapping[str, bytes]) -> Document:
    return {"data": {name: base64.b64encode(content).decode() for name, content in files.items()}}


def test_a_webhook_as_installed_is_sound() -> None:
    assert levels(list(webhook(configuration(made()), OURS))) == ["ok"]


def test_what_is_wrong_with_a_webhook_is_named_entry_by_entry() -> None:
    assert levels(list(webhook(None, OURS))) == ["fail"]
    assert [f.what.split(" has ")[-1] for f in webhook(configuration(None), OURS)] == [
        "no caBundle, so the API server believes no answer"
    ] * 2
    moved = configuration(made())
    moved["webhooks"][0]["clientConfig"]["service"]["path"] = "/other"
    moved["webhooks"][1]["failurePolicy"] = "Ignore"
    found = list(webhook(moved, OURS))
    assert levels(found) == ["fail", "warn"]
    assert found[0].what.endswith("calls another place: path /other")
    # What another installation left behind calls the injector of another namespace.
    assert levels(list(webhook(configuration(made()), "elsewhere"))) == ["fail", "fail"]


def test_a_certificate_that_the_ca_bundle_verifies_is_sound_for_as_long_as_it_holds() -> None:
    files = made()

    def look(now: datetime.datetime) -> list[str]:
        return levels(list(webhook_certificate(configuration(files), secret(files), OURS, now)))

    assert look(NOW) == ["ok"]
    assert look(NOW + LEAF_LIFETIME - 10 * DAY) == ["ok"]
    assert look(NOW + LEAF_LIFETIME - 8 * DAY) == ["warn"]
    assert look(NOW + LEAF_LIFETIME + DAY) == ["fail"]


def test_a_certificate_of_another_authority_for_another_name_or_none_fails() -> None:
    files, other = made(), made()
    found = list(webhook_certificate(configuration(other), secret(files), OURS, NOW))
    assert [finding.level for finding in found[:2]] == [Level.FAIL, Level.FAIL]
    assert "ok" not in levels(found)
    found = list(webhook_certificate(configuration(files), secret(files), "elsewhere", NOW))
    assert "not for remora-injector.elsewhere.svc" in found[0].what
    for document in (None, {}, {"data": {"tls.crt": "%%"}}, secret({"tls.crt": b"no PEM"})):
        assert levels(list(webhook_certificate(configuration(files), document, OURS, NOW))) == ["fail"]


def test_a_certificate_that_begins_well_and_cannot_be_used_fails() -> None:
    files = made()
    [leaf] = x509.load_pem_x509_certificates(files["tls.crt"])
    der = leaf.public_bytes(Encoding.DER).replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1)
    unknown = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    for damaged in (half_readable(leaf).public_bytes(Encoding.PEM), unknown):
        document = secret({**files, "tls.crt": damaged})
        [finding] = webhook_certificate(configuration(files), document, OURS, NOW)
        assert finding.level is Level.FAIL
        assert "holds no certificate" in finding.what


def test_a_ca_bundle_whose_root_has_ended_does_not_verify() -> None:
    files = made()
    late = NOW + AUTHORITY_LIFETIME + DAY
    found = list(webhook_certificate(configuration(files), secret(files), OURS, late))
    assert sum("does not verify" in finding.what for finding in found) == 2


@pytest.mark.parametrize(
    ("slices", "level"),
    [
        ([], "fail"),
        ([{"endpoints": None}], "fail"),
        ([{"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}]}], "fail"),
        ([{"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]}], "ok"),
        ([{"endpoints": [{"addresses": ["10.0.0.1"]}]}], "ok"),
    ],
    ids=["none", "null", "unready", "ready", "unsaid"],
)
def test_endpoints(slices: list[Document], level: str) -> None:
    assert endpoints(slices, names.INJECTOR, OURS).level is Level(level)


@pytest.mark.parametrize(
    ("wanted", "ready", "level"), [(2, 2, "ok"), (2, 1, "warn"), (2, None, "fail"), (0, None, "fail"), (1, 1, "warn")]
)
def test_deployments(wanted: int, ready: int | None, level: str) -> None:
    status = {} if ready is None else {"readyReplicas": ready}
    assert deployment({"spec": {"replicas": wanted}, "status": status}, "remora-authority", OURS).level is Level(level)
    assert deployment(None, "remora-authority", OURS).level is Level.FAIL


def test_disruption_budgets() -> None:
    assert disruption_budget(None, "a", OURS).level is Level.WARN
    assert disruption_budget({"status": {"disruptionsAllowed": 0}}, "a", OURS).level is Level.WARN
    assert disruption_budget({"status": {"disruptionsAllowed": 1}}, "a", OURS).level is Level.OK


def test_a_trust_bundle_is_judged_by_the_ends_of_its_roots() -> None:
    root = ca_bundle(made()).decode()
    older = ca_bundle(made(NOW - 360 * DAY)).decode()

    def look(pem: str, now: datetime.datetime) -> list[str]:
        return levels(list(trust_bundle({"data": {names.BUNDLE_NAME: pem}}, OURS, now)))

    assert look(root, NOW) == ["ok"]
    assert look(older, NOW) == ["warn"]
    assert look(older, NOW + 6 * DAY) == ["fail"]
    assert look(older + root, NOW + 6 * DAY) == ["warn", "ok"]
    assert look("", NOW) == ["fail"]
    assert levels(list(trust_bundle(None, OURS, NOW))) == ["fail"]


def test_images_that_differ_are_named() -> None:
    def deployed(image: str) -> Document:
        return {"spec": {"template": {"spec": {"containers": [{"image": image}]}}}}

    assert levels(list(images({"a": deployed("r:1"), "b": deployed("r:1")}, "r:1"))) == ["ok"]
    (found,) = images({"a": deployed("r:1"), "b": None}, "r:2")
    assert (found.level, found.what) == (Level.WARN, "images differ: new sidecars r:2, a r:1")
    assert list(images({"a": None}, None)) == []


# --- pods ------------------------------------------------------------------------------------------------------------


def pod(name: str, phase: str = "Running", **spec: object) -> Document:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "app"}], **spec},
        "status": {"phase": phase},
    }


def look(*found: Document, **labels: str) -> list[Finding]:
    known = {names.INJECT: "enabled", **labels}
    return list(pods(list(found), namespace="shop", labels=known, own_namespace=OURS, image="r:1"))


def test_pods_that_need_no_sidecar_are_not_missed() -> None:
    refuses = pod("refuses")
    refuses["metadata"]["labels"] = {names.INJECT: "disabled"}
    going = pod("going")
    going["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    found = look(pod("done", "Succeeded"), pod("host", hostNetwork=True), refuses, going)
    assert [finding.line for finding in found] == ["ok    namespace shop: 0 pods with a ready sidecar, none without"]


def test_pods_without_a_sidecar_are_one_line_for_all() -> None:
    (found,) = look(*[pod(f"p{number}") for number in range(7)])
    assert found.what == "7 pods of shop should have a sidecar and have none: p0, p1, p2, p3, p4 and 2 more"


def test_a_pod_with_an_annotation_that_cannot_be_read_is_named() -> None:
    faulty = pod("faulty")
    faulty["metadata"]["annotations"] = {names.STATUS: "{"}
    (found,) = look(faulty)
    assert (found.level, "annotations that cannot be read: faulty" in found.what) == (Level.WARN, True)


def test_a_pod_that_names_its_own_image_and_a_mirror_of_a_static_pod_are_not_missed() -> None:
    mirror = pod("mirror")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    made = inject_pod({"annotations": {"remora.io/image": "r:2"}}, pod("own")["spec"], settings=Settings(image="r:2"))
    status = {"phase": "Running", "initContainerStatuses": [{"name": names.PROXY, "ready": True}]}
    (found,) = look(mirror, {"metadata": made.metadata, "spec": made.spec, "status": status})
    assert found.line == "ok    namespace shop: 1 pod with a ready sidecar, none without"


def test_a_sidecar_that_is_a_plain_container_counts_by_its_own_status() -> None:
    made = inject_pod({}, pod("p")["spec"], settings=Settings(image="r:1", native_sidecar=False))
    status = {"phase": "Running", "containerStatuses": [{"name": names.PROXY, "ready": True}, {"name": "app"}]}
    (found,) = look({"metadata": made.metadata, "spec": made.spec, "status": status})
    assert found.level is Level.OK


# --- the look itself -------------------------------------------------------------------------------------------------


class Gone:
    """An API server that answers /version and is not there any more after it."""

    def __init__(self, status: int) -> None:
        self.status = status

    def read(self, path: str) -> KubeAnswer:
        if path == "/version":
            return KubeAnswer(document={"gitVersion": "v1.31.4"}, date=None)
        raise self._error()

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None:
        raise self._error()

    def read_all(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, object]]:
        raise self._error()

    def may(self, attributes: Mapping[str, str]) -> bool:
        raise self._error()

    def try_create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]:
        raise self._error()

    def _error(self) -> KubeError:
        return KubeError(self.status, "Any", "it answers no more", "look at it")


@pytest.mark.parametrize("status", [0, 401])
def test_a_server_that_goes_away_ends_the_look(status: int) -> None:
    checkup = Checkup(Gone(status), namespace=OURS, planned=Settings(), clock=lambda: NOW)
    with pytest.raises(KubeError, match="it answers no more"):
        checkup.look(None)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_no_answer_that_is_an_answer_ends_the_look(status: int, phase: Phase) -> None:
    found = Checkup(Gone(status), namespace=OURS, planned=Settings(), clock=lambda: NOW).look(phase)
    assert found[0].what == "the API server answers, Kubernetes v1.31.4"
    assert sum(finding.what.startswith("not looked at: ") for finding in found) >= 5


# --- lines -----------------------------------------------------------------------------------------------------------


def test_what_a_cluster_says_cannot_move_the_terminal() -> None:
    found = version({"gitVersion": "v1.31.4\x1b[2J\n"}, Settings())
    assert found.line.isprintable()
    assert listed(["a"] * 5) == "a, a, a, a, a"
