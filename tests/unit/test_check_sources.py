"""`remora proxy check` judges identities and bootstrap bundles where they are files, and asks nobody for anything."""

from __future__ import annotations

import datetime
import json
import os
import stat
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from certs.joins import new_token
from certs.testing import MemoryAuthority
from proxy.cli import main


def check(directory: Path, text: str) -> int:
    (directory / "policy").mkdir(exist_ok=True)
    file = directory / "sidecar.yaml"
    head = f"workload: {{namespace: demo, service_account: orders}}\npolicy: {{directory: {directory}/policy}}\n"
    file.write_text(head + text)
    return main(["check", "--config", str(file)])


def test_a_credential_bundle_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = MemoryAuthority("cluster.local")
    identity, other = memory.svid("demo", "orders"), memory.svid("demo", "web")
    (tmp_path / "roots.pem").write_bytes(memory.bundle.to_pem())
    (tmp_path / "c.pem").write_bytes(identity.key_pem() + identity.chain_pem())
    section = f"identity: {{credential_bundle: {{file: {tmp_path}/c.pem, bundle_file: {tmp_path}/roots.pem}}}}\n"
    assert check(tmp_path, section) == 0
    assert "identity  spiffe://cluster.local/ns/demo/sa/orders, valid for" in capsys.readouterr().out
    (tmp_path / "c.pem").write_bytes(other.key_pem() + identity.chain_pem())
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/c.pem: it does not fit" in capsys.readouterr().err


def test_a_command_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "get-identity"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    program.chmod(0o700)
    assert check(tmp_path, f"identity: {{command: {{run: [{program}]}}}}\n") == 0
    assert f"asked of {program} by a running sidecar" in capsys.readouterr().out
    assert not (tmp_path / "was-run").exists()


def test_a_bootstrap_bundle_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (
        f"identity: {{workload_api: {{socket: 'unix://{tmp_path}/agent.sock'}}}}\n"
        "federation: [{trust_domain: other.example, url: 'https://other.example/', profile: https_spiffe,\n"
        f"  identity: 'spiffe://other.example/bundles', bundle_file: {tmp_path}/boot.pem}}]\n"
    )
    os.mknod(tmp_path / "agent.sock", stat.S_IFSOCK | 0o600)
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/boot.pem: the bootstrap bundle cannot be read" in capsys.readouterr().err
    (tmp_path / "boot.pem").write_bytes(b'{"keys": []}')
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/boot.pem: it is empty" in capsys.readouterr().err
    (tmp_path / "boot.pem").write_bytes(MemoryAuthority("other.example").bundle.to_pem())
    assert check(tmp_path, section) == 0


def jwt(**claims: object) -> str:
    """A token that nobody signed; the last part is what must never be shown."""
    now = int(time.time())
    parts = ({"alg": "RS256"}, {"iat": now, "exp": now + 3600, "aud": ["remora-authority"]} | claims)
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2VjcmV0"])


def enrolling(directory: Path, token: str, bundle: bytes | None = None) -> int:
    (directory / "token").write_text(token)
    (directory / "roots").write_bytes(MemoryAuthority("cluster.local").bundle.to_pem() if bundle is None else bundle)
    where = f"url: 'https://authority', token_file: {directory}/token, bundle_file: {directory}/roots"
    return check(directory, f"identity: {{authority: {{{where}}}}}\n")


@pytest.mark.parametrize(
    "token", [jwt(), f"{jwt(aud='remora-authority')}\n", new_token()], ids=["list", "text", "join"]
)
def test_a_token_that_may_be_right_passes(tmp_path: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert enrolling(tmp_path, token) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "it holds no token"),
        ("two words", "it holds no token"),
        ("a" * 20_000, "larger than"),
        ("hush-hush", "no JWT of three parts"),
        ("xqz.xqz.hush", "cannot be read"),
        (jwt(exp=int(time.time()) - 600, iat=int(time.time()) - 4200), "the token expired"),
        (jwt(exp=int(time.time()) + 40 * 86_400), "the token lives for"),
        (jwt(exp="soon"), "exp is no time"),
    ],
    ids=["empty", "two words", "large", "no token", "unreadable", "expired", "long-lived", "without an end"],
)
def test_a_token_that_cannot_be_right_is_a_fault_and_never_shown(
    tmp_path: Path, token: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enrolling(tmp_path, token) == 2
    shown = capsys.readouterr()
    assert f"{tmp_path}/token: " in shown.err
    assert says in shown.err
    for part in filter(None, token.split(".")):
        assert part not in shown.err + shown.out


def test_a_token_for_somebody_else_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enrolling(tmp_path, jwt(aud=["https://kubernetes.default.svc"])) == 0
    assert f"warning: {tmp_path}/token: the token is not made for the audience" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        (b"", "no certificate"),
        (b'{"keys": []}', "nobody is believed by it"),
        (b"{", "it is no JSON"),
        (
            MemoryAuthority("cluster.local", datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)).bundle.to_pem(),
            "no root in it is valid now",
        ),
    ],
)
def test_a_bundle_by_which_nobody_can_be_believed_is_a_fault(
    tmp_path: Path, bundle: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enrolling(tmp_path, jwt(), bundle) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/roots: ")
    assert says in line


def test_what_is_not_there_is_said_of_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"url: 'https://authority', token_file: {tmp_path}/token, bundle_file: {tmp_path}/roots"
    assert check(tmp_path, f"identity: {{authority: {{{where}}}}}\n") == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"{tmp_path}/token",
        f"{tmp_path}/roots",
    ]


@pytest.mark.parametrize(("mode", "says"), [(None, "there is no such program"), (0o600, "it may not be executed")])
def test_a_command_has_to_be_a_program(
    tmp_path: Path, mode: int | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if mode is not None:
        (tmp_path / "get").touch(mode)
    section = f"identity: {{command: {{run: [{tmp_path}/get], bundle_file: {tmp_path}/roots}}}}\n"
    assert check(tmp_path, section) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/get: {says}" in told
    assert f"{tmp_path}/roots: it cannot be read" in told


def test_a_workload_api_has_to_have_a_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = f"identity: {{workload_api: {{socket: 'unix://{tmp_path}/agent.sock'}}}}\n"
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/agent.sock: the socket cannot be seen" in capsys.readouterr().err
    (tmp_path / "agent.sock").touch()
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/agent.sock: it is no socket" in capsys.readouterr().err


def test_a_workload_api_needs_a_package_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)  # as if it were not installed
    os.mknod(tmp_path / "agent.sock", stat.S_IFSOCK | 0o600)
    section = f"identity: {{workload_api: {{socket: 'unix://{tmp_path}/agent.sock'}}}}\n"
    assert check(tmp_path, section) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/agent.sock: the package grpcio" in told
    assert "pip install 'remora[spire]'" in told


def test_roots_for_the_web_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mknod(tmp_path / "agent.sock", stat.S_IFSOCK | 0o600)
    (tmp_path / "web.pem").write_text("no certificate")
    section = (
        f"identity: {{workload_api: {{socket: 'unix://{tmp_path}/agent.sock'}}}}\n"
        "federation: [{trust_domain: other.example, url: 'https://other.example/', profile: https_web,\n"
        f"  ca_file: {tmp_path}/web.pem}}]\n"
    )
    assert check(tmp_path, section) == 2
    assert f"{tmp_path}/web.pem: it holds no readable certificate" in capsys.readouterr().err
    (tmp_path / "web.pem").write_bytes(MemoryAuthority("other.example").bundle.to_pem())
    assert check(tmp_path, section) == 0
