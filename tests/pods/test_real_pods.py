"""Real pods from injected manifests: their applications know nothing, and all that they say and hear goes by mesh."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from authority_process import eventually
from captured_pods import HTTP, ORDERS, ORDERS_6, SERVICE, SERVICE_6, STRANGER, STRANGER_6
from injected_pods import WAIT
from pod_network import PREFIX, PREFIX_6
from podman import BUILD_SECONDS, Podman
from real_pods import JOB, MARIADB, REDIS, Containers, RealCluster, RealPod, real_cluster

from injector import names

pytestmark = [pytest.mark.debian, pytest.mark.timeout(2 * BUILD_SECONDS)]

CALLER_ID = "spiffe://cluster.local/ns/shop/sa/caller"
ORDERS_ID = "spiffe://cluster.local/ns/shop/sa/orders"


@pytest.fixture(scope="module")
def cluster(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with real_cluster(tmp_path_factory.mktemp("cluster"), podman) as made:
        made.start(HTTP, MARIADB, REDIS)
        yield made


@pytest.fixture(scope="module")
def caller(cluster: RealCluster) -> Containers:
    return cluster.pods["caller"].containers


def find(pod: RealPod, **wanted: object) -> dict[str, object]:
    """Wait for a record of a pod's sidecar that says all this."""

    def found() -> dict[str, object] | None:
        return next((each for each in reversed(pod.lines()) if wanted.items() <= each.items()), None)

    record: dict[str, object] = eventually(found, f"a record with {wanted}", WAIT)
    return record


@pytest.mark.parametrize("host", ["orders.shop", "orders6.shop", SERVICE, f"[{SERVICE_6}]"])
def test_a_plain_call_becomes_mutual_tls(cluster: RealCluster, caller: Containers, host: str) -> None:
    got = caller.curl(f"http://{host}/orders", "--dump-header", "/dev/stderr")
    assert got.output == "three orders\n200"
    # What nginx was told: who asks, by the certificate.
    assert f"URI={CALLER_ID}" in got.error
    sent = find(cluster.pods["caller"], authority=host, path="/orders")
    assert sent["destination_principal"] == ORDERS_ID
    met = find(cluster.pods["orders"], authority=host, path="/orders")
    assert met["source_principal"] == CALLER_ID
    assert met["downstream_local_address"] in (f"{ORDERS}:{HTTP}", f"[{ORDERS_6}]:{HTTP}")


def test_policy_holds_for_method_path_and_port(cluster: RealCluster, caller: Containers) -> None:
    assert caller.status("http://orders.shop/secrets") == 403
    assert caller.status("http://orders.shop:81/orders") == 403
    assert caller.curl("http://orders.shop/orders", "--request", "POST").output.endswith("403")
    assert find(cluster.pods["orders"], path="/secrets")["reason"] == "denied_by_policy"


@pytest.mark.parametrize("host", [ORDERS, f"[{ORDERS_6}]", "orders.shop"])
def test_a_pod_without_a_sidecar_is_refused(cluster: RealCluster, host: str) -> None:
    port = 80 if host == "orders.shop" else HTTP
    got = cluster.stranger.curl(f"http://{host}:{port}/orders")
    assert (got.code != 0, got.output) == (True, "\n000")
    find(cluster.pods["orders"], reason="not_tls")


def test_a_pod_without_a_sidecar_is_not_called_either(cluster: RealCluster, caller: Containers) -> None:
    assert cluster.stranger.status(f"http://127.0.0.1:{HTTP}/orders") == 200
    for host in (STRANGER, f"[{STRANGER_6}]"):
        assert caller.status(f"http://{host}:{HTTP}/orders") == 502
    assert find(cluster.pods["caller"], authority=f"{STRANGER}:{HTTP}")["reason"] == "service_unknown"


def test_excluded_ports_and_dns_go_past_the_sidecar(cluster: RealCluster, caller: Containers) -> None:
    with ThreadPoolExecutor() as threads:
        for port in (8443, 53):
            listening = threads.submit(cluster.stranger.within, "app", "timeout", "20", "nc", "-l", "-N", str(port))
            said = eventually(
                lambda at=port: caller.within("app", "bash", "-c", f"echo plain | nc -N {STRANGER} {at}").code == 0,
                "somebody listens",
                WAIT,
            )
            assert said
            assert listening.result().output == "plain\n"


def test_probes_of_the_kubelet_are_performed_by_the_sidecar(cluster: RealCluster) -> None:
    pod = cluster.pods["orders"]
    [app] = [each for each in pod.document["spec"]["containers"] if each["name"] == "app"]
    for field in ("livenessProbe", "readinessProbe"):
        assert app[field]["httpGet"]["port"] == names.HEALTH_PORT
        assert pod.probe(app[field]).status == 200
    assert pod.probe(pod.proxy["readinessProbe"]).status == 200


def test_a_server_that_speaks_first_is_heard(caller: Containers) -> None:
    asked = ("mariadb", "--host", "orders.shop", "--port", str(MARIADB), "--skip-ssl", "--execute", "select 6*7")
    got = caller.within("app", *asked)
    assert got.output.split() == ["6*7", "42"], got.error


def test_redis_is_spoken_to(cluster: RealCluster, caller: Containers) -> None:
    assert caller.within("app", "redis-cli", "-h", "orders.shop", "-p", str(REDIS), "set", "a", "b").output == "OK\n"
    stranger = cluster.stranger.within(
        "app", "timeout", "5", "redis-cli", "-h", "orders.shop", "-p", str(REDIS), "get", "a"
    )
    assert "b" not in stranger.output.split()


def test_a_pod_that_calls_itself_comes_in_like_any_caller(cluster: RealCluster) -> None:
    orders = cluster.pods["orders"]
    # By its Service: through its sidecar twice, with its own identity, which policy lets ask for /self alone.
    assert orders.containers.status("http://orders.shop/self") == 200
    assert orders.containers.status("http://orders6.shop/orders") == 403
    assert find(orders, path="/self", source_principal=ORDERS_ID)
    # By loopback and by its own address it does not leave the pod.
    for host in ("127.0.0.1", "[::1]", f"{PREFIX}12", f"[{PREFIX_6}12]"):
        assert orders.containers.status(f"http://{host}:{HTTP}/anything") == 200


def test_a_job_ends_with_its_own_exit_code(cluster: RealCluster, podman: Podman) -> None:
    base = cluster.base / JOB
    base.mkdir()
    hosts = {**cluster.hosts, f"{names.AUTHORITY}.{names.NAMESPACE}": f"{PREFIX}1"}
    pod = cluster.pod(base, cluster.document("Pod", JOB), 14, hosts, cluster._vouched(JOB))
    try:
        pod.mount({names.SERVICES: cluster.services(), names.POLICY: {}})
        pod.start()
        assert pod.containers.code("app") == 0
        assert pod.containers.code(names.PROXY) == 0
        assert "three orders" in pod.containers.logs("app").output
    finally:
        pod.stop()


def test_the_sidecar_has_no_privilege_and_the_capture_step_two(cluster: RealCluster, podman: Podman) -> None:
    def status(container: str) -> dict[str, str]:
        text = cluster.pods["orders"].containers.within(container, "/opt/remora/bin/python", "-c", _STATUS).output
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    found = status(names.PROXY)
    assert found["Uid"].split() == ["1337"] * 4
    assert found["Gid"].split() == ["1337"] * 4
    assert int(found["CapBnd"], 16) == 0
    assert int(found["CapEff"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert cluster.pods["orders"].containers.within(names.PROXY, "/opt/remora/bin/python", "-c", "open('/x', 'w')").code


_STATUS = "print(open('/proc/1/status').read())"


def test_an_ending_pod_fails_no_request(cluster: RealCluster, caller: Containers) -> None:
    """The last of the tests of this pod: it ends while it is called, and what runs is served to its end."""
    orders = cluster.pods["orders"]
    with ThreadPoolExecutor() as threads:
        # 60,000 bytes at 20 kB a second: it runs when the end is ordered.
        slow = threads.submit(caller.curl, "http://orders.shop/slow", "--output", "/tmp/slow")
        eventually(lambda: caller.within("app", "test", "-s", "/tmp/slow").code == 0, "it has begun", WAIT)
        leaving = threads.submit(orders.leave)
        assert slow.result().output == "\n200"
        leaving.result()
    assert caller.within("app", "stat", "--format=%s", "/tmp/slow").output == "60000\n"
    assert orders.containers.code(names.PROXY) == 0
    assert caller.status("http://orders.shop/orders") == 503


def test_a_sidecar_that_is_killed_leaves_no_way_round_it(cluster: RealCluster, caller: Containers) -> None:
    """The last of the tests of all: afterwards the caller has no sidecar."""
    assert caller.status(f"http://{STRANGER}:{HTTP}/orders") == 502
    caller.kill(names.PROXY, "KILL")
    assert caller.code(names.PROXY) == 137
    for host in (SERVICE, f"[{SERVICE_6}]", STRANGER, f"[{STRANGER_6}]"):
        got = caller.curl(f"http://{host}:{HTTP}/orders")
        assert (got.code, got.output) == (7, "\n000"), "refused"
