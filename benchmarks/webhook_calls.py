"""Calls a webhook as API servers do: AdmissionReviews over kept connections with TLS, at a fixed rate or as they go.

    open loop     the n-th review is due at n / rate, whatever became of those before; its wait counts from then
    saturation    a review on each connection as soon as the last one is answered

One thread does it all, by `select`: reviews that are due at the same time go out on different connections.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.authority_report import percentile
from benchmarks.open_loop import WARM_UP_SECONDS, OpenLoopError, Schedule, content_length
from benchmarks.processes import BenchError

PATIENCE_SECONDS: Final = 10.0

POD: Final[dict[str, Any]] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "generateName": "orders-7d4b9c5f6d-",
        "labels": {"app": "orders", "pod-template-hash": "7d4b9c5f6d"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "remora.io/log-level": "info"},
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-7d4b9c5f6d", "uid": "1", "controller": True}
        ],
    },
    "spec": {
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "orders"}}],
        "initContainers": [{"name": "migrate", "image": "registry.example/orders:1.4", "args": ["migrate"]}],
        "containers": [
            {
                "name": name,
                "image": f"registry.example/{name}:1.4",
                "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
                "env": [{"name": f"SETTING_{number}", "value": "x" * 20} for number in range(12)],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/etc/app"}],
                "livenessProbe": {
                    "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                    "periodSeconds": 10,
                },
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 5},
            }
            for name, port in (("orders", 8080), ("report", 8081))
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "orders",
        "securityContext": {"runAsNonRoot": True},
        "schedulerName": "default-scheduler",
    },
}
"""A pod of a Deployment: two containers with two probes each, an init container, metrics of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What callers waited, in seconds, of those that were counted; and how long it all took."""

    waits: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        """How many each second."""
        return len(self.waits) / self.seconds

    def percentile_ms(self, part: float) -> float:
        """What `part` of them did not wait longer than, in milliseconds."""
        return percentile(sorted(self.waits), part) * 1000


def request(host: str, number: int) -> bytes:
    """Make the bytes of one call, with its own uid.

    >>> request("injector.svc", 7).partition(b"\\r\\n")[0]
    b'POST /inject?timeout=5s HTTP/1.1'
    """
    review = {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": f"705ab4f5-6393-11e8-b7cc-{number:012d}",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": POD,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }
    body = json.dumps(review, separators=(",", ":")).encode()
    head = (
        f"POST /inject?timeout=5s HTTP/1.1\r\nhost: {host}\r\nuser-agent: kube-apiserver-admission\r\n"
        f"accept: application/json, */*\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Answer:
    """Puts one answer together from the pieces in which it comes, and judges it: a patch, or it is no answer."""

    def __init__(self) -> None:
        self._got = b""
        self._whole = -1

    def take(self, data: bytes) -> bool:
        """Take a piece; say whether the answer is complete. Raises BenchError for one that injects nothing."""
        self._got += data
        if self._whole < 0:
            head, end, _ = self._got.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"the webhook answered {head[:40]!r}")
            try:
                self._whole = len(head) + len(end) + content_length(head)
            except OpenLoopError as failure:
                raise BenchError(str(failure)) from None
        if len(self._got) < self._whole:
            return False
        if b'"patchType":"JSONPatch"' not in self._got:
            raise BenchError("the webhook injected nothing")
        return True


class Callers:
    """Connections of one API server. Use it in a `with`."""

    def __init__(self, port: int, host: str, ca: str, connections: int) -> None:
        """`host` is the name that the certificate has to be for, `ca` the roots (PEM) that are believed."""
        self._port, self._host, self._connections = port, host, connections
        self._context = ssl.create_default_context(cadata=ca)
        self._held = contextlib.ExitStack()
        self._free: deque[ssl.SSLSocket] = deque()
        self._sent = 0

    def __enter__(self) -> Callers:
        for _ in range(self._connections):
            plain = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._free.append(self._held.enter_context(self._context.wrap_socket(plain, server_hostname=self._host)))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def open_loop(self, rate: int, seconds: float) -> Waits:
        """Call at a fixed rate; what is due in the first moments is not counted. Raises BenchError."""
        schedule = Schedule(rate=rate, count=int(rate * (WARM_UP_SECONDS + seconds)))
        counted_from, waits = int(WARM_UP_SECONDS * 1e9), []
        under_way: dict[ssl.SSLSocket, tuple[int, Answer]] = {}
        start = time.perf_counter_ns()
        while schedule.next_due is not None or under_way:
            now = time.perf_counter_ns() - start
            while self._free and (due := schedule.take(now)) is not None:
                under_way[self._send()] = due, Answer()
            following, wait = schedule.next_due, PATIENCE_SECONDS
            if following is not None and self._free:
                wait = max(0.0, (following - (time.perf_counter_ns() - start)) / 1e9)
            for sock in self._receive(under_way, wait):
                due, _ = under_way.pop(sock)
                if due >= counted_from:
                    waits.append((time.perf_counter_ns() - start - due) / 1e9)
        return Waits(waits=waits, seconds=seconds)

    def saturate(self, seconds: float) -> Waits:
        """Call on each connection as soon as it is free, for so long. Raises BenchError."""
        waits: list[float] = []
        under_way: dict[ssl.SSLSocket, tuple[int, Answer]] = {}
        start = time.perf_counter_ns()
        end = start + int(seconds * 1e9)
        while time.perf_counter_ns() < end or under_way:
            while self._free and time.perf_counter_ns() < end:
                began = time.perf_counter_ns()
                under_way[self._send()] = began, Answer()
            for sock in self._receive(under_way, PATIENCE_SECONDS):
                began, _ = under_way.pop(sock)
                waits.append((time.perf_counter_ns() - began) / 1e9)
        return Waits(waits=waits, seconds=(time.perf_counter_ns() - start) / 1e9)

    def _send(self) -> ssl.SSLSocket:
        sock = self._free.popleft()
        self._sent += 1
        sock.sendall(request(self._host, self._sent))
        return sock

    def _receive(self, under_way: dict[ssl.SSLSocket, tuple[int, Answer]], wait: float) -> list[ssl.SSLSocket]:
        """Read what came within `wait` seconds; give the connections whose answer is complete."""
        ready, _, _ = select.select(list(under_way), (), (), wait)
        if not ready and wait == PATIENCE_SECONDS:
            raise BenchError(f"{len(under_way)} answers did not come within {PATIENCE_SECONDS:g} s")
        done = []
        for sock in ready:
            data = sock.recv(65_536)
            if not data:
                raise BenchError("the webhook closed a connection under way")
            complete = under_way[sock][1].take(data)
            # What OpenSSL holds already is not seen by select.
            while not complete and sock.pending():
                complete = under_way[sock][1].take(sock.recv(65_536))
            if complete:
                self._free.append(sock)
                done.append(sock)
        return done
