"""What `remora install` prints, run: each container with its own arguments, over a stand-in for an API server.

The test is the kubelet: it makes volumes of ConfigMaps, and puts a token, an address and directories of its own in the
place of those that a cluster gives.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from injector_process import InjectorProcess, eventually

from injector import install_cli, names
from injector.install.workloads import DEFAULTS_DIRECTORY, STATE, TRUST_DIRECTORY
from tests.kube_server import KubeServer
from tests.reviews import encoded, patch_of, response_of, review_of

ROOT = Path(__file__).parents[2]
START, END = 40.0, 20.0
WEBHOOKS = "mutatingwebhookconfigurations"


class Node:
    """Runs the containers of the printed Deployments as processes."""

    def __init__(self, base: Path, kube: KubeServer) -> None:
        self.base, self.kube = base, kube
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert install_cli.main(["--mesh-namespace", "shop"]) == 0
        self.objects = list(yaml.safe_load_all(printed.getvalue()))
        self.token = base / "token"
        self.token.write_text(kube.token)
        self.processes: list[subprocess.Popen[bytes]] = []

    def apply(self) -> None:
        """Give the API server what `kubectl apply` would, of the kinds that it knows."""
        for item in self.objects:
            if item["kind"] == "ConfigMap":
                self.kube.put("configmaps", item["metadata"]["namespace"], item["metadata"]["name"], item)
            elif item["kind"] == "MutatingWebhookConfiguration":
                self.kube.put(WEBHOOKS, "", item["metadata"]["name"], item)

    def container(self, deployment: str, kind: str) -> dict[str, Any]:
        """Give the one container of a kind."""
        [found] = [
            item for item in self.objects if item["kind"] == "Deployment" and item["metadata"]["name"] == deployment
        ]
        [container] = found["spec"]["template"]["spec"][kind]
        return dict(container)

    def words(self, arguments: list[str], pod: str) -> list[str]:
        """Give a container's arguments with our own directories, ports and API server."""
        places = {STATE: "state", DEFAULTS_DIRECTORY: "defaults", TRUST_DIRECTORY: "trust"}
        made: list[str] = []
        for word in arguments:
            changed = re.sub(r"^\[::\]:\d+$", "127.0.0.1:0", word)
            for path, name in places.items():
                if word == path or word.startswith(f"{path}/"):
                    changed = word.replace(path, str(self.directory(pod, name)))
            made.append(self.kube.url if word == "in-cluster" else changed)
        return [*made, "--kube-token-file", str(self.token)]

    def directory(self, pod: str, name: str) -> Path:
        path = self.base / pod / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def begin(self, container: dict[str, Any], pod: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a container; gives the process and its log."""
        log = self.directory(pod, "logs") / f"{container['name']}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "remora", *self.words(container["args"], pod)],
                cwd=ROOT,
                env={**os.environ, "HOSTNAME": pod},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)
        return process, log

    def said(self, log: Path, process: subprocess.Popen[bytes], pattern: str) -> re.Match[str]:
        """Wait until a log has a line."""

        def found() -> re.Match[str] | None:
            text = log.read_text(errors="replace")
            match = re.search(pattern, text)
            assert match or process.poll() is None, text
            return match

        match = eventually(found, pattern, START)
        assert isinstance(match, re.Match)
        return match

    def mount(self, pod: str, name: str, config_map: str) -> None:
        """Make files of a ConfigMap."""
        held = self.kube.objects["configmaps", names.NAMESPACE, config_map]
        for key, text in held["data"].items():
            (self.directory(pod, name) / key).write_text(text)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait(END)


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    # A directory with a short name: the address of the authority's control socket must fit in 107 bytes.
    with KubeServer() as kube:
        made = Node(tmp_path_factory.mktemp("node"), kube)
        try:
            yield made
        finally:
            made.stop()


@pytest.mark.timeout(180)
def test_the_printed_containers_make_one_authority_and_a_webhook_that_gives_out_its_bundle(node: Node) -> None:
    node.apply()
    init = node.container(names.AUTHORITY, "initContainers")
    begun = [node.begin(init, pod) for pod in ("authority-a", "authority-b")]
    assert [process.wait(START) for process, _ in begun] == [0, 0], [log.read_text() for _, log in begun]
    for pod in ("authority-a", "authority-b"):
        process, log = node.begin(node.container(names.AUTHORITY, "containers"), pod)
        node.said(log, process, r"ports: signing (\d+), health (\d+)")
    key = ("configmaps", names.NAMESPACE, names.TRUST_BUNDLE_MAP)
    eventually(lambda: key in node.kube.objects, "the trust bundle", START)
    bundle = node.kube.objects[key]["data"][names.BUNDLE_NAME]
    assert bundle.count("BEGIN CERTIFICATE") == 1, "one authority, though two began"

    node.mount("injector-a", "defaults", names.DEFAULTS)
    node.mount("injector-a", "trust", names.TRUST_BUNDLE_MAP)
    process, log = node.begin(node.container(names.INJECTOR, "containers"), "injector-a")
    ports = node.said(log, process, r"serving; ports: health (\d+), webhook (\d+)")
    written = node.kube.objects[WEBHOOKS, "", names.INJECTOR]["webhooks"]
    bundles = {entry["clientConfig"]["caBundle"] for entry in written}
    assert len(written) == 2
    assert len(bundles) == 1, "both entries have it"

    injector = InjectorProcess(node.directory("caller", "webhook"))
    injector.port, injector.ca = int(ports[2]), base64.b64decode(bundles.pop())
    with injector.api_server() as api:
        answer = response_of(api.post(encoded(review_of()))[1])
    assert answer["allowed"], answer
    patch = json.dumps(patch_of(answer))
    assert json.dumps(bundle.strip())[1:-1] in patch, "pods believe this authority"
    assert "remora-authority.remora-system:8443" in patch
