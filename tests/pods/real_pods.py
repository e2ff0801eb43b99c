"""Pods that podman runs from injected manifests: containers from real images, in network namespaces of podman's.

The tests do what a kubelet does and podman 4 does not: they write the volumes, wire the pod's network to the node,
start containers in the kubelet's order, perform hooks and probes. What a container may do, and in which image, user and
file system it runs, is the manifest's affair and podman's; nothing of that is changed.

    caller     curl, from the shell of its container        orders    nginx (HTTP), MariaDB (speaks first), redis
    stranger   the same image as caller, without a sidecar
"""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from authority_process import eventually
from captured_pods import HTTP, ORDERS, ORDERS_6, POLICY, SERVICE, SERVICE_6
from injected_pods import ASK, WAIT, Cluster, Pod
from pod_network import Node, Space
from podman import IMAGE, Podman

from injector import names

APPLICATION: Final = "localhost/remora-application:under-test"
_DOCKERFILE: Final = """\
FROM localhost/remora-base:bookworm
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \\
    curl mariadb-server netcat-openbsd nginx-light redis-server redis-tools && rm -rf /var/lib/apt/lists
"""
JOB: Final = "report"
MARIADB, REDIS, CLOSED = 3306, 6379, 8081
"""A server that speaks first, one that does not, and a port that no policy allows."""

_NGINX: Final = """\
daemon off; pid /tmp/pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
  uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
  server {
    LISTEN
    location = /slow { limit_rate 20k; root /tmp; }
    location / { add_header x-caller "$http_x_forwarded_client_cert"; return 200 "three orders"; }
  }
}
"""


def serving(*addresses: str) -> str:
    """Give the script of a container that serves HTTP at these addresses, as nginx writes them."""
    listens = " ".join(f"listen {address};" for address in addresses)
    configuration = _NGINX.replace("LISTEN", listens)
    return (
        f"cat > /tmp/nginx.conf <<'END'\n{configuration}END\n"
        "head -c 60000 /dev/zero > /tmp/slow\nexec nginx -c /tmp/nginx.conf\n"
    )


_SERVE: Final = serving(str(HTTP), f"[::]:{HTTP}", str(CLOSED), f"[::]:{CLOSED}")
_DATABASE: Final = """\
mysql_install_db --user=mysql --datadir=/tmp/db > /dev/null
exec mariadbd --no-defaults --user=mysql --datadir=/tmp/db --socket=/tmp/socket --skip-grant-tables \\
  --skip-networking=0 --bind-address='*' --port=3306
"""
_QUIT: Final = f"http://127.0.0.1:{names.HEALTH_PORT}/quitquitquit"
_STAY: Final = "trap 'exit 0' TERM; sleep infinity & wait"


def _container(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": APPLICATION, "command": ["bash", "-c", script], **more}


def _pod(name: str, account: str, containers: list[dict[str, Any]], **annotations: str) -> dict[str, Any]:
    # podman's init containers are plain ones: the sidecar has to be one beside the others.
    settings = {
        "image": IMAGE,
        "native-sidecar": "false",
        **{key.replace("_", "-"): v for key, v in annotations.items()},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"app": name},
            "annotations": {names.PREFIX + key: value for key, value in settings.items()},
        },
        "spec": {"serviceAccountName": account, "containers": containers},
    }


def _service(name: str, **ports: tuple[int, int]) -> dict[str, Any]:
    listed = [{"name": each.replace("_", "-"), "port": a, "targetPort": b} for each, (a, b) in ports.items()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": SERVICE,
            "clusterIPs": [SERVICE, SERVICE_6],
            "selector": {"app": name},
            "ports": listed,
        },
    }


_ORDERS_PORTS: Final = [
    {"name": "http", "containerPort": HTTP},
    {"name": "http-closed", "containerPort": CLOSED},
]
MANIFESTS: Final = yaml.safe_dump_all(
    [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {names.INJECT: "enabled"}},
        },
        _service("orders", http=(80, HTTP), http_closed=(81, CLOSED), tcp_db=(MARIADB, MARIADB), redis=(REDIS, REDIS)),
        _pod("caller", "caller", [_container("app", _STAY)], exclude_outbound_ports="8443", unknown_outbound="reject"),
        _pod(
            "orders",
            "orders",
            [
                _container(
                    "app",
                    _SERVE,
                    ports=_ORDERS_PORTS,
                    livenessProbe={"httpGet": {"path": "/live", "port": "http"}},
                    readinessProbe={"tcpSocket": {"port": HTTP}},
                ),
                _container("db", _DATABASE, ports=[{"name": "tcp-db", "containerPort": MARIADB}]),
                _container(
                    "cache",
                    "exec redis-server --bind '*' --protected-mode no --save ''",
                    ports=[{"name": "redis", "containerPort": REDIS}],
                ),
            ],
        ),
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": JOB, "namespace": "shop"},
            "spec": {
                "template": {
                    "metadata": _pod(JOB, "caller", [])["metadata"],
                    "spec": {
                        "serviceAccountName": "caller",
                        "restartPolicy": "Never",
                        "containers": [
                            _container(
                                "app",
                                "curl -sS --fail http://orders.shop/orders; code=$?; "
                                f"curl -sS --fail -X POST {_QUIT}; exit $code",
                            )
                        ],
                    },
                }
            },
        },
    ],
    sort_keys=False,
)
RULES: Final = (
    POLICY
    + f"""---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: stores, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  action: ALLOW
  rules:
    - from: [{{source: {{principals: [cluster.local/ns/shop/sa/caller]}}}}]
      to: [{{operation: {{ports: ["{MARIADB}", "{REDIS}"]}}}}]
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program in a container ended, and what it printed."""

    code: int
    output: str
    error: str


class Containers:
    """The containers of one pod, in a network that the node knows. `directories` are its volumes, by name."""

    def __init__(
        self,
        base: Path,
        podman: Podman,
        node: Node,
        document: Mapping[str, Any],
        number: int,
        hosts: Mapping[str, str],
        directories: Mapping[str, Path],
    ) -> None:
        self._base, self._podman, self._document = base, podman, document
        self.name = f"remora-test-{document['metadata']['name']}"
        podman.run("pod", "rm", "--force", "--ignore", self.name)
        written = yaml.safe_dump(self._as_podman_takes_it(hosts, directories))
        podman.run("kube", "play", "--start=false", "--network=none", "-", text=written)
        # The one that holds the namespaces: with it there is a network that can be wired.
        holder = podman.run("pod", "inspect", "--format", "{{.InfraContainerID}}", self.name).strip()
        podman.run("start", holder)
        self.space = Space(int(podman.run("inspect", "--format", "{{.State.Pid}}", holder)))
        node.connect(self.space, str(number), number)

    def _as_podman_takes_it(self, hosts: Mapping[str, str], directories: Mapping[str, Path]) -> dict[str, Any]:
        """Give the manifest with what the kubelet does taken out: probes, hooks, and volumes that it fills.

        Ports too, which say something to people and to the mesh; podman would publish them on the machine.
        """
        spec: dict[str, Any] = copy.deepcopy(self._document["spec"])
        spec["restartPolicy"] = "Never"  # podman would start init containers for ever
        spec["volumes"] = [{"name": name, "hostPath": {"path": str(path)}} for name, path in directories.items()]
        # The kubelet writes this file too; here it stands in the place of the cluster's DNS.
        lines = "".join(f"{address} {host}\n" for host, address in {"localhost": "127.0.0.1", **hosts}.items())
        (self._base / "hosts").write_text(lines)
        spec["volumes"].append({"name": "hosts", "hostPath": {"path": str(self._base / "hosts"), "type": "File"}})
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            for field in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports"):
                container.pop(field, None)
            container.setdefault("volumeMounts", []).append({"name": "hosts", "mountPath": "/etc/hosts"})
        # Annotations of several lines are no annotations for podman: who reads them reads the volume.
        metadata = {"name": self.name, "labels": self._document["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def start(self) -> None:
        """Start them in the kubelet's order: each init container to its end, then one after the other.

        The next of the others begins when the hook of the one before has ended.
        """
        for container in self._document["spec"].get("initContainers", ()):
            self._podman.run("start", "--attach", f"{self.name}-{container['name']}")
        for container in self._document["spec"]["containers"]:
            self._podman.run("start", f"{self.name}-{container['name']}")
            hook = container.get("lifecycle", {}).get("postStart")
            if hook is not None:
                self._hold(container["name"], hook["exec"]["command"])

    def _hold(self, container: str, command: list[str]) -> None:
        try:
            done = self.within(container, *command, seconds=WAIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not become ready:\n{self.logs(container).error}") from None
        assert done.code == 0, done.error + self.logs(container).error

    def within(self, container: str, *words: str, seconds: float = 60) -> Ran:
        """Run a program in one of them, as its user."""
        return self._run("exec", f"{self.name}-{container}", *words, seconds=seconds)

    def logs(self, container: str) -> Ran:
        """Give what one of them has printed."""
        return self._run("logs", f"{self.name}-{container}", seconds=60)

    def _run(self, *words: str, seconds: float) -> Ran:
        done = subprocess.run(
            ["podman", *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=self._podman.environment,
        )
        return Ran(code=done.returncode, output=done.stdout, error=done.stderr)

    def curl(self, url: str, *more: str) -> Ran:
        """Let the application get an address; what it prints is the body, a newline, and the status (000: none)."""
        return self.within("app", "curl", "-sS", "--max-time", str(int(ASK)), "-w", "\n%{http_code}", *more, url)

    def status(self, url: str) -> int:
        """Give the status that the application gets from an address, 0 where it gets no answer."""
        return int(self.curl(url).output.rpartition("\n")[2])

    def code(self, container: str) -> int:
        """Wait for the end of one of them and give its exit code."""
        return int(self._podman.run("wait", f"{self.name}-{container}"))

    def kill(self, container: str, signal: str) -> None:
        """Send a signal to what runs in one of them."""
        self._podman.run("kill", "--signal", signal, f"{self.name}-{container}")

    def stop(self) -> None:
        """End all as the kubelet does after the hooks: SIGTERM, and after a time the other signal."""
        self._podman.run("pod", "stop", "--time", "10", self.name)

    def remove(self) -> None:
        """Take all away."""
        self._podman.run("pod", "rm", "--force", "--ignore", "--time", "0", self.name)


class RealPod(Pod):
    """A pod of podman's, from an injected manifest."""

    containers: Containers

    def __init__(self, podman: Podman, base: Path, *laid: Any) -> None:
        self._base, self._podman = base, podman
        super().__init__(base, *laid)

    def laid_out(self, number: int, hosts: Mapping[str, str], directories: Mapping[str, Path]) -> Space:
        """Create the containers with their network."""
        volumes = {name: volume.directory for name, volume in self.volumes.items()}
        self.containers = Containers(self._base, self._podman, self.node, self.document, number, hosts, volumes)
        return self.containers.space

    def start(self) -> None:
        """Start the containers."""
        self.containers.start()

    def leave(self) -> None:
        """End the pod as the kubelet does: the sidecar's hook, then all containers."""
        done = self.containers.within(names.PROXY, *self.proxy["lifecycle"]["preStop"]["exec"]["command"])
        assert done.code == 0, done.error
        self.containers.stop()

    @property
    def said(self) -> str:
        """What the sidecar said on standard error."""
        return self.containers.logs(names.PROXY).error

    def lines(self) -> list[dict[str, Any]]:
        """Give the records of the access log so far."""
        written = self.containers.logs(names.PROXY).output.splitlines(keepends=True)
        return [json.loads(line) for line in written if line[-1] == "\n"]

    def stop(self) -> int:
        """Take it away."""
        self.containers.remove()
        return 0


class RealCluster(Cluster):
    """A node with podman's pods, one of them without a sidecar."""

    pods: dict[str, RealPod]  # type: ignore[assignment]
    stranger: Containers

    def __init__(self, base: Path, podman: Podman, manifests: str) -> None:
        super().__init__(base, manifests)
        self._podman = podman

    def begin(self) -> None:
        """Lay everything out, and lead the addresses of the Service to its pod."""
        self.hosts = {"orders.shop": SERVICE, "orders6.shop": SERVICE_6}
        super().begin()
        for service, address in ((SERVICE, ORDERS), (SERVICE_6, ORDERS_6)):
            for port, target in ((80, HTTP), (81, CLOSED), (MARIADB, MARIADB), (REDIS, REDIS)):
                self.node.service(service, port, address, target)
        plain = _pod("stranger", "stranger", [_container("app", _SERVE)])
        self.stranger = Containers(self.base, self._podman, self.node, plain, 20, self.hosts, {})
        self._stack.callback(self.stranger.remove)

    def pod(
        self, base: Path, document: Mapping[str, Any], number: int, hosts: Mapping[str, str], token: str
    ) -> RealPod:
        """Lay out one pod."""
        return RealPod(self._podman, base, self.node, document, number, hosts, token)

    def document(self, kind: str, name: str) -> dict[str, Any]:
        """Give one document of the injected manifests; of a Job the pod that it makes."""
        if (kind, name) != ("Pod", JOB):
            return super().document(kind, name)
        job = super().document("Job", name)
        template = job["spec"]["template"]
        metadata = {**template["metadata"], "name": name, "namespace": job["metadata"]["namespace"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}

    def start(self, *ports: int) -> None:
        """Start the pods of the manifests, the Job's not, and wait until `orders` listens at these ports."""
        self.mount(services=self.services(), policy={"rules.yaml": RULES})
        for pod in (*self.pods.values(), self.stranger):
            pod.start()
        orders = self.pods["orders"].containers
        for port in ports:
            eventually(lambda at=port: orders.within("app", "nc", "-z", "127.0.0.1", str(at)).code == 0, "serves", WAIT)


@contextlib.contextmanager
def real_cluster(base: Path, podman: Podman, manifests: str = MANIFESTS) -> Iterator[RealCluster]:
    """A cluster of real pods, laid out; everything that it made is ended afterwards."""
    podman.build_application(APPLICATION, _DOCKERFILE)
    made = RealCluster(base, podman, manifests)
    try:
        made.begin()
        yield made
    finally:
        made.close()
