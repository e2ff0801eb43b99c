"""Pods whose traffic is captured by rules, beside one that has no sidecar: the applications know of nothing.

`caller` calls `orders` at the addresses that its Services have, with curl; the node leads these to the pod, as
kube-proxy does. `stranger` is a pod without a sidecar.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from injected_pods import ASK, Application, Cluster
from pod_network import PREFIX, PREFIX_6, Space

SERVICE, SERVICE_6 = "10.96.0.5", "fd96::5"
"""Where the Service `orders` is."""
ORDERS, ORDERS_6 = f"{PREFIX}12", f"{PREFIX_6}12"
SECOND = f"{PREFIX}13", f"{PREFIX_6}13"
STRANGER, STRANGER_6 = f"{PREFIX}20", f"{PREFIX_6}20"
GREETING: Final = "220 ready\n"
HTTP, OPEN, UNNAMED, TCP = 8080, 8081, 9999, 3306
"""Ports of `orders`: named, PERMISSIVE by policy, in no manifest, and one whose server speaks first."""

MANIFESTS: Final = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{remora.io/inject: enabled}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: orders, namespace: shop}}
spec:
  clusterIP: {SERVICE}
  clusterIPs: [{SERVICE}, "{SERVICE_6}"]
  selector: {{app: orders}}
  ports:
    - {{name: http, port: 80, targetPort: {HTTP}}}
    - {{name: http-unnamed, port: 99, targetPort: {UNNAMED}}}
    - {{name: tcp-greeting, port: {TCP}, targetPort: {TCP}}}
---
apiVersion: v1
kind: Service
metadata: {{name: each, namespace: shop}}
spec:
  clusterIP: None
  selector: {{app: orders}}
  ports: [{{name: http, port: {HTTP}, targetPort: {HTTP}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: caller, namespace: shop, labels: {{app: caller}}, annotations: {{}}}}
spec:
  serviceAccountName: caller
  containers: [{{name: app, image: "caller:1"}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: orders, namespace: shop, labels: {{app: orders}}, annotations: {{}}}}
spec:
  serviceAccountName: orders
  containers:
    - name: app
      image: "orders:1"
      ports: [{{name: http, containerPort: {HTTP}}}, {{name: tcp-greeting, containerPort: {TCP}}}]
      livenessProbe: {{httpGet: {{path: /healthz, port: http}}}}
"""

ANOTHER: Final = f"""\
---
apiVersion: v1
kind: Pod
metadata: {{name: second, namespace: shop, labels: {{app: orders}}}}
spec:
  serviceAccountName: orders
  containers: [{{name: app, image: "orders:1", ports: [{{name: http, containerPort: {HTTP}}}]}}]
"""
"""One more pod of `orders`, at SECOND."""

POLICY: Final = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: readers, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  action: ALLOW
  rules:
    - from: [{{source: {{principals: [cluster.local/ns/shop/sa/caller]}}}}]
      to:
        - {{operation: {{methods: [GET], paths: [/orders, /slow], ports: ["{HTTP}", "{UNNAMED}"]}}}}
    - from: [{{source: {{principals: [cluster.local/ns/shop/sa/caller]}}}}]
      to: [{{operation: {{ports: ["{TCP}"]}}}}]
    - from: [{{source: {{principals: [cluster.local/ns/shop/sa/orders]}}}}]
      to: [{{operation: {{methods: [GET], paths: [/self], ports: ["{HTTP}"]}}}}]
    - to: [{{operation: {{methods: [GET], paths: [/open], ports: ["{OPEN}"]}}}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: open, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  mtls: {{mode: STRICT}}
  portLevelMtls: {{{OPEN}: {{mode: PERMISSIVE}}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What curl saw: the status (0 without an answer), the body, and its exit code."""

    status: int
    body: str
    code: int


def curl(space: Space, url: str, *more: str) -> Got:
    """Get an address from within a pod, as its application."""
    done = space.run("curl", "--silent", "--max-time", str(ASK), "--write-out", "\n%{http_code}", *more, url)
    body, _, status = done.stdout.rpartition("\n")
    return Got(status=int(status), body=body, code=done.returncode)


class Greeter:
    """A server that speaks first: it greets, then gives back what it gets."""

    def __init__(self, space: Space, port: int) -> None:
        self.peers: list[str] = []
        self._server = space.inside(
            lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        self._thread = threading.Thread(target=self._serve, name="greeter")
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, peer = self._server.accept()
                self.peers.append(peer[0])
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(ASK)
                    sock.sendall(GREETING.encode())
                    while data := sock.recv(1024):
                        sock.sendall(data)

    def close(self) -> None:
        """End it."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


class CapturedCluster(Cluster):
    """A cluster of captured pods; `orders` serves at all of its ports, IPv4 and IPv6."""

    def begin(self) -> None:
        """Lay everything out, the pod without a sidecar too, and lead the addresses of Services to the pod."""
        self.hosts = {
            "orders.shop": SERVICE,
            "each.shop.svc.cluster.local": ORDERS,
            "each6.shop.svc.cluster.local": ORDERS_6,
        }
        super().begin()
        self.stranger = self.node.pod("stranger", 20, {}, {})
        self.lead_to((ORDERS, ORDERS_6))

    def lead_to(self, pod: tuple[str, str]) -> None:
        """Lead the addresses of the Service to a pod, and new connections to no other."""
        self.node.forget_services()
        for service, address in zip((SERVICE, SERVICE_6), pod, strict=True):
            for port, target in ((80, HTTP), (99, UNNAMED), (TCP, TCP)):
                self.node.service(service, port, address, target)

    def serve(self, space: Space, port: int) -> Application:
        """Start a program that answers over HTTP at every address of a pod; it ends with the cluster."""
        made = Application(space, port, "::")
        self._stack.callback(made.close)
        return made

    def greet(self, space: Space, port: int) -> Greeter:
        """Start a server that speaks first; it ends with the cluster."""
        made = Greeter(space, port)
        self._stack.callback(made.close)
        return made

    def run_captured(self, policy: Mapping[str, str] | None = None) -> Application:
        """Start everything, with these policy files or with ours."""
        return self.run("::", services=self.services(), policy={"policy.yaml": POLICY} if policy is None else policy)


def annotated(pod: str, **values: str) -> str:
    """Give the manifests with annotations on one of the pods; `_` in a name stands for `-`."""
    wanted = ", ".join(f'remora.io/{name.replace("_", "-")}: "{value}"' for name, value in values.items())
    mark = f"labels: {{app: {pod}}}, annotations: {{}}"
    assert mark in MANIFESTS
    return MANIFESTS.replace(mark, f"labels: {{app: {pod}}}, annotations: {{{wanted}}}")


@contextlib.contextmanager
def captured(base: Path, manifests: str = MANIFESTS) -> Iterator[CapturedCluster]:
    """A cluster of captured pods, laid out; everything that it made is ended afterwards."""
    made = CapturedCluster(base, manifests)
    try:
        made.begin()
        yield made
    finally:
        made.close()
