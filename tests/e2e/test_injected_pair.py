"""Two pods that `remora inject` has changed talk to each other: enrolment, mutual TLS, policies, probes, drain."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from authority_process import eventually
from injected_pods import MANIFESTS, POLICY, WAIT, Cluster, a_cluster, fetch

from injector import names

pytestmark = [pytest.mark.debian, pytest.mark.timeout(180)]

CALLER, ORDERS = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("caller", "orders"))
READERS = {"readers.yaml": POLICY}

LEDGER = """\
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {clusterIP: None, selector: {app: orders}, ports: [{name: http, port: 80, targetPort: http}]}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with a_cluster(tmp_path) as made:
        yield made


def test_who_is_allowed_gets_through_under_its_identity(cluster: Cluster) -> None:
    application = cluster.run(services=cluster.services(), policy=READERS)
    answer = cluster.call()
    assert (answer.status, answer.body) == (200, "three orders\n")
    [(path, headers)] = application.requests
    assert path == "/orders"
    assert f"By={ORDERS};" in headers["x-forwarded-client-cert"]
    assert headers["x-forwarded-client-cert"].endswith(f"URI={CALLER}")
    [record] = cluster.pods["orders"].records()
    assert (record["source_principal"], record["destination_principal"]) == (CALLER, ORDERS)
    assert (record["response_code"], record["path"]) == (200, "/orders")
    [sent] = cluster.pods["caller"].records()
    assert (sent["direction"], sent["destination_principal"]) == ("outbound", ORDERS)


@pytest.mark.parametrize(("method", "path"), [("POST", "/orders"), ("GET", "/secrets")])
def test_who_is_not_allowed_gets_403_and_the_record_has_the_reason(cluster: Cluster, method: str, path: str) -> None:
    application = cluster.run(services=cluster.services(), policy=READERS)
    answer = cluster.call(path, method)
    assert (answer.status, answer.body) == (403, "RBAC: access denied")
    assert application.requests == []
    [record] = cluster.pods["orders"].records()
    assert (record["source_principal"], record["reason"]) == (CALLER, "denied_by_policy")
    assert "readers" in str(record["nearest_miss"])


def test_without_policies_everything_is_denied_until_their_config_map_is_there(cluster: Cluster) -> None:
    services = cluster.services()
    application = cluster.run(services=services)
    assert cluster.call().status == 403
    [record] = cluster.pods["orders"].records()
    assert record["reason"] == "denied_by_default"
    assert application.requests == []
    cluster.mount(services=services, policy=READERS)
    eventually(lambda: cluster.call().status == 200, "the policy is in force", WAIT)
    cluster.mount(services=services)
    eventually(lambda: cluster.call().status == 403, "the policy is gone", WAIT)


def test_without_a_certificate_nobody_reaches_the_application(cluster: Cluster) -> None:
    application = cluster.run(services=cluster.services(), policy=READERS)
    orders = cluster.pods["orders"]
    for port in (names.MESH_PORT, 8080):
        with pytest.raises(OSError, match=r"(?i)refused|reset|closed"):
            fetch(cluster.node, orders.address, port, "/orders")
    with pytest.raises(OSError, match="refused"):
        fetch(cluster.node, orders.address, names.ADMIN_PORT, "/")
    assert application.requests == []


def test_the_rewritten_probes_say_how_the_application_is(cluster: Cluster) -> None:
    application = cluster.run(services=cluster.services())
    orders = cluster.pods["orders"]
    liveness, readiness = orders.container["livenessProbe"], orders.container["readinessProbe"]
    assert (liveness["httpGet"]["port"], readiness["httpGet"]["port"]) == (names.HEALTH_PORT, names.HEALTH_PORT)
    assert (orders.probe(liveness).status, orders.probe(readiness).status) == (200, 200)
    assert [path for path, _ in application.requests] == ["/healthz"]
    application.is_healthy = False
    assert (orders.probe(liveness).status, orders.probe(readiness).status) == (503, 200)
    application.close()
    assert (orders.probe(liveness).status, orders.probe(readiness).status) == (503, 503)
    assert orders.probe(orders.proxy["readinessProbe"]).status == 200, "the sidecar itself is well"


def test_one_scrape_where_the_annotations_say_has_the_metrics_of_both(cluster: Cluster) -> None:
    cluster.run(services=cluster.services())
    orders = cluster.pods["orders"]
    told = {key: value for key, value in orders.document["metadata"]["annotations"].items() if "prometheus" in key}
    page = fetch(cluster.node, orders.address, int(told["prometheus.io/port"]), told["prometheus.io/path"])
    assert told["prometheus.io/scrape"] == "true"
    assert page.status == 200
    assert "\norders_total 7\n" in page.body
    assert "\nremora_ready 1" in page.body


def test_the_hook_before_the_end_lets_what_runs_end_and_then_the_sidecar_ends(cluster: Cluster) -> None:
    application = cluster.run(services=cluster.services(), policy=READERS)
    orders = cluster.pods["orders"]
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(cluster.call, "/slow")
        assert application.asked.wait(WAIT)
        hook = pool.submit(orders.execute, orders.proxy["lifecycle"]["preStop"])
        eventually(lambda: orders.probe(orders.proxy["readinessProbe"]).status == 503, "it drains", WAIT)
        assert not hook.done()
        assert not slow.done()
        application.go.set()
        assert slow.result().status == 200
        done = hook.result()
    assert done.returncode == 0, done.stderr
    assert cluster.call().status == 503, "nobody is taken any more"
    assert orders.stop() == 0
    assert "Traceback" not in orders.said


def test_services_that_are_generated_anew_are_followed_without_a_restart(cluster: Cluster) -> None:
    cluster.run(services=cluster.services(), policy=READERS)
    caller = cluster.pods["caller"]

    def known() -> list[str]:
        return [each["name"] for each in caller.admin("/services")["services"]]

    assert known() == ["orders.shop"]
    cluster.mount(services=cluster.services(more=LEDGER), policy=READERS)
    eventually(lambda: known() == ["ledger.shop", "orders.shop"], "the new service", WAIT)
    assert cluster.call().status == 200
    # Whoever answers by now is not who may answer by these manifests.
    cluster.injected = cluster.injected.replace("serviceAccountName: orders", "serviceAccountName: another")
    cluster.mount(services=cluster.services(), policy=READERS)
    eventually(lambda: cluster.call().status == 503, "another identity is wanted", WAIT)
    assert caller.process is not None
    assert caller.process.poll() is None


def test_the_hook_of_a_plain_sidecar_holds_the_application_until_it_is_ready(tmp_path: Path) -> None:
    ours = "    remora.io/capture: ports\n"
    plain = MANIFESTS.replace(ours, f'{ours}    remora.io/native-sidecar: "false"\n')
    with a_cluster(tmp_path, plain) as cluster:
        cluster.run(services=cluster.services(), policy=READERS)
        for pod in cluster.pods.values():
            assert "initContainers" not in pod.document["spec"]
            assert pod.probe(pod.proxy["readinessProbe"]).status == 200
        assert cluster.call().status == 200


def test_uninject_gives_back_what_was_there(cluster: Cluster) -> None:
    back = cluster.remora("uninject", "-f", "-", given=cluster.injected)
    assert list(yaml.safe_load_all(back)) == list(yaml.safe_load_all(MANIFESTS))
    assert list(yaml.safe_load_all(cluster.injected)) != list(yaml.safe_load_all(MANIFESTS))
    untouched = MANIFESTS.partition("---\napiVersion: v1\nkind: Pod")[0]
    assert cluster.injected.startswith(untouched)
    assert back.startswith(untouched)
