"""The end of a captured pod's sidecar: by order without a lost request, by force without an open door."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from authority_process import eventually
from captured_pods import (
    ANOTHER,
    HTTP,
    MANIFESTS,
    ORDERS,
    ORDERS_6,
    SECOND,
    SERVICE,
    SERVICE_6,
    STRANGER,
    CapturedCluster,
    captured,
    curl,
)
from injected_pods import END, WAIT

pytestmark = [pytest.mark.debian, pytest.mark.timeout(180)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CapturedCluster]:
    with captured(tmp_path) as made:
        yield made


@pytest.mark.parametrize("pod", ["orders", "caller"])
def test_a_sidecar_that_is_killed_leaves_no_way_round_it(cluster: CapturedCluster, pod: str) -> None:
    application = cluster.run_captured()
    outside = cluster.serve(cluster.stranger, 80)
    caller = cluster.pods["caller"].space
    assert curl(caller, f"http://{SERVICE}/orders").status == 200
    asked = len(application.requests)
    process = cluster.pods[pod].process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait(END)
    if pod == "orders":
        for host in (ORDERS, f"[{ORDERS_6}]"):
            assert curl(cluster.stranger, f"http://{host}:{HTTP}/orders").code == 7, "refused"
        assert curl(caller, f"http://{SERVICE}/orders").status == 503
    else:
        for host in (SERVICE, f"[{SERVICE_6}]", STRANGER):
            assert curl(caller, f"http://{host}/orders").code == 7, "refused"
    assert (len(application.requests), outside.requests) == (asked, [])
    cluster.pods[pod].start()
    assert curl(caller, f"http://{SERVICE}/orders").status == 200


def test_what_runs_ends_and_nothing_new_begins(cluster: CapturedCluster) -> None:
    application = cluster.run_captured()
    caller, orders = cluster.pods["caller"].space, cluster.pods["orders"]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(curl, caller, f"http://{SERVICE}/slow")
        assert application.asked.wait(WAIT)
        process = orders.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        eventually(lambda: orders.probe(orders.proxy["readinessProbe"]).status == 503, "it drains", WAIT)
        assert curl(caller, f"http://{SERVICE}/orders").status == 503
        application.go.set()
        assert slow.result().status == 200
    assert process.wait(END) == 0


def test_a_pod_that_ends_behind_its_service_fails_no_request(tmp_path: Path) -> None:
    # Kubernetes takes a pod out of its Service and ends it at the same time; the hook waits for the first.
    with captured(tmp_path, MANIFESTS + ANOTHER) as cluster:
        _end_one_of_two(cluster)


def _end_one_of_two(cluster: CapturedCluster) -> None:
    cluster.run_captured()
    caller, orders, second = cluster.pods["caller"].space, cluster.pods["orders"], cluster.pods["second"]
    cluster.serve(second.space, HTTP)
    answers: list[int] = []
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            answers.append(curl(caller, f"http://{SERVICE}/orders").status)

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call) for _ in range(2)]
        eventually(lambda: len(answers) > 10, "requests run", WAIT)
        hook = pool.submit(orders.execute, orders.proxy["lifecycle"]["preStop"])
        cluster.lead_to(SECOND)
        done = hook.result()
        assert orders.stop() == 0
        before = len(answers)
        eventually(lambda: len(answers) > before + 10, "requests still run", WAIT)
        is_over.set()
        for each in calls:
            each.result()
    assert done.returncode == 0, done.stderr
    assert set(answers) == {200}
    assert len(second.records()) > 5
