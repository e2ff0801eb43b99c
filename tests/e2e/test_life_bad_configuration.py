"""A bad configuration file ends the process with code 2 and one clear line per fault, with its place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mesh import ROOT, authority, svid

from certs.testing import write_set

BAD = """\
workload: {namespace: demo, service_account: orders}
identity: {files: {directory: /nowhere}}
inbound:
  ports:
    - {listen: "127.0.0.1:99999", port: 8080}
    - {listen: "127.0.0.1:15443", port: 8080, protocol: htpp}
policy: {directory: /nowhere, defualt: deny}
limits: {head_timeout: soon}
"""


def run(command: str, config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "remora", "proxy", command, "--config", str(config)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("command", ["run", "check"])
def test_every_fault_on_a_line_of_its_own(tmp_path: Path, command: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(BAD)
    done = run(command, config)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    places = [re.match(rf"{re.escape(str(config))}:(\d+):(\d+): .+", line) for line in lines]
    assert all(places), done.stderr
    assert [int(place.group(1)) for place in places if place] == [5, 6, 6, 7, 8]  # 6: a port that stands twice, too
    for word in ("99999", "htpp", "defualt", "soon"):
        assert sum(word in line for line in lines) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["", "a: [", "\x00", "- 1\n", "workload: {namespace: demo}\n---\n{}\n"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    done = run("check", config)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("run", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "none.yaml" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_is_not_installed(tmp_path: Path, workers: int) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError('not here')\n")
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "workload: {namespace: demo, service_account: orders}\n"
        f"identity: {{workload_api: {{socket: 'unix://{tmp_path}/agent.sock'}}}}\n"
        f"policy: {{directory: {tmp_path}}}\n"
        f"runtime: {{workers: {workers}}}\n"
    )
    done = run("run", config, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/agent.sock: the package grpcio")
    assert "not here" in line
    assert "pip install 'remora[spire]'" in line


def test_check_looks_at_what_the_file_points_at(tmp_path: Path) -> None:
    write_set(svid("orders"), authority().bundles, tmp_path / "identity")
    (tmp_path / "policy").mkdir()
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "workload: {namespace: demo, service_account: orders}\n"
        f"identity: {{files: {{directory: {tmp_path}/identity}}}}\n"
        f"policy: {{directory: {tmp_path}/policy}}\n"
    )
    done = run("check", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "spiffe://cluster.local/ns/demo/sa/orders" in done.stdout
    bad = tmp_path / "policy" / "bad.yaml"
    bad.write_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x, namespace: demo}\n"
        "spec:\n  action: ALOW\n  rules: [{frm: []}]\n"
    )
    done = run("check", config)
    assert done.returncode == 2
    assert re.search(rf"^{re.escape(str(bad))}:5:\d+: ", done.stderr, re.M)
    assert re.search(rf"^{re.escape(str(bad))}:6:\d+: ", done.stderr, re.M)
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_a_sentence(tmp_path: Path) -> None:
    write_set(svid("orders"), authority().bundles, tmp_path / "identity")
    (tmp_path / "policy").mkdir()
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "workload: {namespace: demo, service_account: orders}\n"
        f"identity: {{files: {{directory: {tmp_path}/identity}}}}\n"
        f"policy: {{directory: {tmp_path}/policy}}\n"
        'health: {listen: "192.0.2.1:1"}\n'
    )
    done = run("run", config)
    assert done.returncode == 1
    assert "192.0.2.1:1" in done.stderr
    assert "Traceback" not in done.stderr
