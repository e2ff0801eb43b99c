"""Pods of a namespace that enforces the pod security level `restricted`: no rules, no privilege, the same guarantees.

The sidecar of `orders` listens at a port of its own and reaches the application on loopback, where alone it listens;
the application of `caller` dials a port on loopback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from captured_pods import HTTP, ORDERS, ORDERS_6
from podman import BUILD_SECONDS, Podman
from real_pods import APPLICATION, RealCluster, real_cluster, serving

from injector import names
from tests import pod_security

pytestmark = [pytest.mark.debian, pytest.mark.timeout(2 * BUILD_SECONDS)]

LISTENER = 9001
_HARDENED = """
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}"""
MANIFESTS = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {{remora.io/inject: enabled, pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Service
metadata: {{name: orders, namespace: shop}}
spec:
  clusterIP: None
  selector: {{app: orders}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: caller
  namespace: shop
  labels: {{app: caller}}
  annotations:
    remora.io/capture: ports
    remora.io/image: localhost/remora:under-test
    remora.io/native-sidecar: "false"
    remora.io/outbound-listeners: orders.shop={LISTENER}
spec:
  serviceAccountName: caller
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: app
      image: {APPLICATION}
      command: [sleep, infinity]{_HARDENED}
---
apiVersion: v1
kind: Pod
metadata:
  name: orders
  namespace: shop
  labels: {{app: orders}}
  annotations:
    remora.io/capture: ports
    remora.io/image: localhost/remora:under-test
    remora.io/native-sidecar: "false"
spec:
  serviceAccountName: orders
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: app
      image: {APPLICATION}
      command: [bash, -c, {json.dumps(serving(f"127.0.0.1:{HTTP}"))}]
      ports: [{{name: http, containerPort: {HTTP}}}]
      livenessProbe: {{httpGet: {{path: /healthz, port: http}}}}{_HARDENED}
"""


@pytest.fixture(scope="module")
def cluster(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with real_cluster(tmp_path_factory.mktemp("restricted"), podman, MANIFESTS) as made:
        made.start(HTTP)
        yield made


@pytest.mark.parametrize("name", ["caller", "orders"])
def test_the_level_admits_the_injected_pod(cluster: RealCluster, name: str) -> None:
    document = cluster.pods[name].document
    assert pod_security.restricted(document["spec"]) == []
    assert cluster.pods[name].capture is None


def test_a_call_by_loopback_becomes_mutual_tls(cluster: RealCluster) -> None:
    url = f"http://127.0.0.1:{LISTENER}/orders"
    got = cluster.pods["caller"].containers.curl(url, "--dump-header", "/dev/stderr")
    assert got.output == "three orders\n200"
    assert "URI=spiffe://cluster.local/ns/shop/sa/caller" in got.error


def test_policy_holds(cluster: RealCluster) -> None:
    assert cluster.pods["caller"].containers.status(f"http://127.0.0.1:{LISTENER}/secrets") == 403


@pytest.mark.parametrize("host", [ORDERS, f"[{ORDERS_6}]"])
def test_nobody_reaches_the_application_past_the_sidecar(cluster: RealCluster, host: str) -> None:
    for pod in (cluster.stranger, cluster.pods["caller"].containers):
        assert pod.curl(f"http://{host}:{HTTP}/orders").code == 7, "nobody listens there"
        refused = pod.curl(f"http://{host}:{names.MESH_PORT}/orders")
        assert (refused.code != 0, refused.output) == (True, "\n000")


def test_probes_reach_the_application_by_the_sidecar(cluster: RealCluster) -> None:
    pod = cluster.pods["orders"]
    [app] = [each for each in pod.document["spec"]["containers"] if each["name"] == "app"]
    assert pod.probe(app["livenessProbe"]).status == 200


@pytest.mark.parametrize("name", ["caller", "orders"])
def test_no_process_of_the_pod_has_a_capability(cluster: RealCluster, name: str) -> None:
    containers = cluster.pods[name].containers
    for container, words in (
        (names.PROXY, ("/opt/remora/bin/python", "-c", _STATUS)),
        ("app", ("cat", "/proc/1/status")),
    ):
        told = containers.within(container, *words).output
        assert "CapBnd:\t0000000000000000" in told
        assert "NoNewPrivs:\t1" in told
        assert "Uid:\t0" not in told


_STATUS = "print(open('/proc/1/status').read())"
