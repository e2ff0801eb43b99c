"""Two pods whose manifests went through `remora inject`, run as a cluster runs them: `caller` calls `orders`.

The sidecars are real processes with the arguments, user, files and network that the injected manifest asks for, and so
is the authority; the applications are threads of the test. tests/kube_server.py stands in for the API server, the
kubelet's part is kubelet_volumes.py and pod_network.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import kube_server
import yaml
from authority_process import ROOT, AuthorityProcess, eventually
from kubelet_volumes import ConfigMaps, Volume, files_of
from pod_network import NODE, PREFIX, Node, Space
from test_authority_serve_tokens import token_of

from certs.callers.tokenreview import POD_NAME, POD_UID
from injector import names

PLACE: Final = "shop"
AUTHORITY_HOST: Final = f"{names.AUTHORITY}.{names.NAMESPACE}"
WAIT, ASK, END = 30.0, 15.0, 20.0
"""Seconds for what comes about by itself, for an answer, and for the end of a process."""

MANIFESTS: Final = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {remora.io/inject: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: None
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata:
  name: caller
  namespace: shop
  labels: {app: caller}
  annotations:
    remora.io/capture: ports
    remora.io/outbound-listeners: orders.shop=9001
spec:
  serviceAccountName: caller
  containers:
    - {name: app, image: "caller:1"}
---
# The one that is called.
apiVersion: v1
kind: Pod
metadata:
  name: orders
  namespace: shop
  labels: {app: orders}
  annotations:
    remora.io/capture: ports
    prometheus.io/scrape: "true"
    prometheus.io/port: "8080"
spec:
  serviceAccountName: orders
  containers:
    - name: app
      image: orders:1
      ports: [{name: http, containerPort: 8080}]
      livenessProbe: {httpGet: {path: /healthz, port: http}}
      readinessProbe: {tcpSocket: {port: 8080}}
"""

POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/caller]}}]
      to: [{operation: {methods: [GET], paths: [/orders, /slow]}}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: str
    headers: Mapping[str, str]


def fetch(space: Space, host: str, port: int, path: str, method: str = "GET") -> Reply:
    """Ask from within a network; the request says for which host it is, as its port forwards it."""

    def ask() -> Reply:
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=ASK)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(status=answer.status, body=answer.read().decode(), headers=headers)

    return space.inside(ask)


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class Application:
    """An application in a pod: /orders, /healthz, /metrics, and /slow, which waits for `go`."""

    def __init__(self, space: Space, port: int, host: str = "127.0.0.1") -> None:
        self.is_healthy = True
        self.go = threading.Event()
        self.asked = threading.Event()
        self.requests: list[tuple[str, dict[str, str]]] = []
        kind = _Server6 if ":" in host else ThreadingHTTPServer
        self._server = space.inside(lambda: kind((host, port), _handler(self)))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="application")
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(application: Application) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = ASK

        def do_GET(self) -> None:
            application.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if self.path == "/slow":
                application.asked.set()
                application.go.wait(ASK)
            status = 200 if application.is_healthy or self.path != "/healthz" else 500
            body = b"# TYPE orders_total counter\norders_total 7\n" if self.path == "/metrics" else b"three orders\n"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    return Handler


class Pod:
    """An injected pod on a node: its volumes, its namespaces, and its sidecar between `start` and `stop`."""

    def __init__(
        self, base: Path, node: Node, document: Mapping[str, Any], number: int, hosts: Mapping[str, str], token: str
    ) -> None:
        self.document, self.node, self._token = document, node, token
        self.address = f"{PREFIX}{number}"
        every = [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]
        [self.proxy] = [each for each in every if each["name"] == names.PROXY]
        self.capture = next((each for each in every if each["name"] == names.CAPTURE), None)
        """The container that sets the capture rules, where the pod has one."""
        self.log_file, self.access_log = base / "stderr", base / "stdout"
        self.process: subprocess.Popen[bytes] | None = None
        mounts = {mount["name"]: mount["mountPath"] for mount in self.proxy["volumeMounts"]}
        self.volumes = {name: Volume(base / name) for name in mounts}
        self.mount({})
        directories = {mounts[name]: volume.directory for name, volume in self.volumes.items()}
        self.space = self.laid_out(number, hosts, directories)

    def laid_out(self, number: int, hosts: Mapping[str, str], directories: Mapping[str, Path]) -> Space:
        """Make the pod's namespaces; `directories` by where they are mounted."""
        return self.node.pod(self.document["metadata"]["name"], number, hosts, directories)

    def mount(self, maps: ConfigMaps) -> None:
        """Write the volumes as the kubelet does when these ConfigMaps are in the pod's namespace."""
        for volume in self.document["spec"]["volumes"]:
            self.volumes[volume["name"]].write(files_of(volume, self.document, maps, self._token))

    @property
    def container(self) -> Mapping[str, Any]:
        """The application's container."""
        [found] = [each for each in self.document["spec"]["containers"] if each is not self.proxy]
        return dict(found)

    def start(self) -> None:
        """Start what the pod has before its application, and wait until the kubelet would start that one."""
        if self.capture is not None:
            done = self.run(self.capture, "remora", *self.capture["args"])
            assert done.returncode == 0, done.stderr
        with self.log_file.open("ab") as errors, self.access_log.open("ab") as log:
            self.process = subprocess.Popen(
                self._as_its_user(self.proxy, "remora", *self.proxy["args"]), cwd="/", env=self._environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=errors,
            )  # fmt: skip
        if "startupProbe" in self.proxy:
            eventually(lambda: self._is_well(self.proxy["startupProbe"]), f"{self.address} is ready", WAIT)
        else:
            done = self.execute(self.proxy["lifecycle"]["postStart"])
            assert done.returncode == 0, done.stderr + self.said

    def _is_well(self, probe: Mapping[str, Any]) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said
        try:
            return self.probe(probe).status == 200
        except OSError:
            return False

    def probe(self, probe: Mapping[str, Any]) -> Reply:
        """Perform a probe of the manifest from the node, as the kubelet does."""
        return fetch(self.node, self.address, probe["httpGet"]["port"], probe["httpGet"]["path"])

    def execute(self, action: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """Carry out a hook of the manifest within the sidecar's container."""
        return self.run(self.proxy, *action["exec"]["command"])

    def run(self, container: Mapping[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with the user and the capabilities of a container."""
        return subprocess.run(
            self._as_its_user(container, *words),
            cwd="/", env=self._environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def said(self) -> str:
        """What the sidecar said on standard error."""
        return self.log_file.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Give the records of the access log so far."""
        lines = self.access_log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[-1] == "\n"]

    def records(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many records of requests in the access log, and give all of them."""

        def found() -> list[dict[str, Any]]:
            kept = [line for line in self.lines() if line["kind"] == "request"]
            return kept if len(kept) >= count else []

        records: list[dict[str, Any]] = eventually(found, f"{count} records", WAIT)
        return records

    def admin(self, path: str) -> Any:
        """Get a page of the admin listener, from within the pod, as JSON."""
        return json.loads(fetch(self.space, "127.0.0.1", names.ADMIN_PORT, f"{path}?format=json").body)

    def stop(self) -> int:
        """End the sidecar as the kubelet does; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    @property
    def _environment(self) -> dict[str, str]:
        # The image's, of which PATH leads to the interpreter of this test.
        return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin", "PYTHONUNBUFFERED": "1"}

    def _as_its_user(self, container: Mapping[str, Any], *words: str) -> list[str]:
        context = container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert not context["allowPrivilegeEscalation"]
        kept = "".join(f",+{name.lower()}" for name in context["capabilities"].get("add", ()))
        return [
            *self.space.enter, "setpriv", f"--reuid={context['runAsUser']}", f"--regid={context['runAsGroup']}",
            "--clear-groups", f"--bounding-set=-all{kept}", "--no-new-privs", "--", *words,
        ]  # fmt: skip


class Cluster:
    """A node with an authority, and the manifests through the real commands."""

    def __init__(self, base: Path, manifests: str) -> None:
        self.base = base
        self._stack = contextlib.ExitStack()
        self.node = self._stack.enter_context(Node())
        self.kube = self._stack.enter_context(self.node.inside(kube_server.KubeServer))
        self.authority = AuthorityProcess(base)
        self.manifests = base / "manifests"
        self.manifests.mkdir()
        (self.manifests / "shop.yaml").write_text(manifests)
        self.pods: dict[str, Pod] = {}
        self.hosts: dict[str, str] = {}
        """More names that pods know, with their addresses."""

    def begin(self) -> None:
        """Start the authority, inject the manifests, and lay their pods out without any ConfigMap."""
        (self.base / "kube-token").write_text(self.kube.token)
        self.authority.init()
        self.authority.enter = self.node.enter
        self.authority.listen = f"{NODE}:{names.AUTHORITY_PORT}"
        self.authority.start("--kube", self.kube.url, "--kube-token-file", str(self.base / "kube-token"))
        self.injected = self.remora(
            "inject", "-f", str(self.manifests), "--trust-bundle", str(self.authority.bundle_file)
        )
        hosts = {AUTHORITY_HOST: NODE, f"orders.{PLACE}.svc.cluster.local": f"{PREFIX}12", **self.hosts}
        documents = [each for each in yaml.safe_load_all(self.injected) if each["kind"] == "Pod"]
        for number, name in enumerate((each["metadata"]["name"] for each in documents), 11):
            base = self.base / name
            base.mkdir()
            pod = self.pod(base, self.document("Pod", name), number, hosts, self._vouched(name))
            self.pods[name] = pod
            self._stack.callback(pod.stop)

    def pod(self, base: Path, document: Mapping[str, Any], number: int, hosts: Mapping[str, str], token: str) -> Pod:
        """Lay out one pod."""
        return Pod(base, self.node, document, number, hosts, token)

    def services(self, more: str = "") -> dict[str, str]:
        """Give the data of the ConfigMap that `remora services generate` makes of the injected manifests and `more`."""
        text = self.remora("services", "generate", "-f", "-", given=f"{self.injected}---\n{more}")
        [document] = [each for each in yaml.safe_load_all(text) if each["metadata"]["name"] == names.SERVICES]
        return dict(document["data"])

    def application(self, host: str = "127.0.0.1") -> Application:
        """Start the application of `orders`."""
        made = Application(self.pods["orders"].space, 8080, host)
        self._stack.callback(made.close)
        return made

    def run(self, host: str = "127.0.0.1", **maps: Mapping[str, str]) -> Application:
        """Start everything, the application at `host`; `maps` are ConfigMaps by what they are: `services`, `policy`."""
        application = self.application(host)
        self.mount(**maps)
        for pod in self.pods.values():
            pod.start()
        return application

    def mount(self, **maps: Mapping[str, str]) -> None:
        """Let all pods have these ConfigMaps and no others."""
        by_name = {{"services": names.SERVICES, "policy": names.POLICY}[what]: data for what, data in maps.items()}
        for pod in self.pods.values():
            pod.mount(by_name)

    def call(self, path: str = "/orders", method: str = "GET") -> Reply:
        """Let the application of `caller` ask that of `orders`, at the loopback listener of its sidecar."""
        return fetch(self.pods["caller"].space, "127.0.0.1", 9001, path, method)

    def document(self, kind: str, name: str) -> dict[str, Any]:
        """Give one document of the injected manifests."""
        [found] = [
            each
            for each in yaml.safe_load_all(self.injected)
            if each["kind"] == kind and each["metadata"]["name"] == name
        ]
        return dict(found)

    def remora(self, *words: str, given: str = "") -> str:
        """Run a command that has to succeed; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "remora", *words],
            cwd=ROOT, input=given, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _vouched(self, name: str) -> str:
        """Make the token of a pod that runs, and let the API server know both."""
        uid = f"uid-of-{name}"
        account = self.document("Pod", name)["spec"]["serviceAccountName"]
        token = token_of(uid)
        self.kube.reviews[token] = {
            "authenticated": True,
            "audiences": ["remora-authority"],
            "user": {
                "username": f"system:serviceaccount:{PLACE}:{account}",
                "extra": {POD_NAME: [name], POD_UID: [uid]},
            },
        }
        spec = {"serviceAccountName": account}
        self.kube.put("pods", PLACE, name, {"metadata": {"uid": uid}, "spec": spec, "status": {}})
        return token

    def close(self) -> None:
        """End everything."""
        with self._stack:
            self.authority.stop()


@contextlib.contextmanager
def a_cluster(base: Path, manifests: str = MANIFESTS) -> Iterator[Cluster]:
    """A cluster with its pods laid out; everything that it made is ended afterwards."""
    made = Cluster(base, manifests)
    try:
        made.begin()
        yield made
    finally:
        made.close()
