"""The container image: what is in it and what is not, that its list is true, and that it runs without any privilege."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from podman import BUILD_SECONDS, IMAGE, ROOT, Podman

from injector.image.build import EPOCH
from injector.image.packages import read_status
from injector.image.sbom import normal_name

pytestmark = [pytest.mark.debian, pytest.mark.timeout(2 * BUILD_SECONDS)]

MEGABYTES = 120
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app}]}\n"
CAPTURE = ("injector", "capture", "--include-inbound-ports", "*", "--include-outbound-ip-ranges", "*")


@pytest.fixture(scope="module")
def files(podman: Podman) -> Iterator[Path]:
    with podman.files(IMAGE) as path:
        yield path


def everything(files: Path) -> Iterator[Path]:
    yield from files.rglob("*")


def test_it_is_small(podman: Podman) -> None:
    size = int(podman.run("image", "inspect", "--format", "{{.Size}}", IMAGE))
    assert size < MEGABYTES * 1_000_000


def test_two_builds_without_a_cache_give_the_same_image(podman: Podman) -> None:
    again = f"{IMAGE}-again"
    podman.build(again, "--no-cache")
    try:
        first, second = (json.loads(podman.run("image", "inspect", each))[0] for each in (IMAGE, again))
        assert first["RootFS"] == second["RootFS"]
        assert first["Id"] == second["Id"]
    finally:
        podman.run("rmi", again)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("version",), "Debian's build"),
        (("proxy", "--help"), "run"),
        (("authority", "--help"), "serve"),
        (("injector", "serve", "--help"), "--tls-directory"),
        (("certs", "--help"), "authority"),
        (("install", "--image", "remora:1"), "kind: MutatingWebhookConfiguration"),
        ((*CAPTURE, "--dry-run"), "redirect to :15001"),
    ],
)
def test_one_entry_point_has_every_command(podman: Podman, words: tuple[str, ...], told: str) -> None:
    assert told in podman.remora(*words)


def test_it_injects_what_comes_by_standard_input(podman: Podman) -> None:
    assert "name: remora-proxy" in podman.remora("inject", "-f", "-", text=POD)


def test_the_commands_of_the_readme_run(podman: Podman) -> None:
    section = (ROOT / "README.md").read_text().partition("## In a container\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^podman (run .*)$", section, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert podman.run(*command.replace("localhost/remora ", f"{IMAGE} ").split())


def test_without_a_command_it_is_a_sidecar_that_says_what_it_lacks(podman: Podman) -> None:
    assert "/etc/remora/remora.yaml" in podman.remora(code=2)


@pytest.mark.parametrize("backend", ["nft", "iptables-nft", "iptables-legacy"])
def test_it_sets_capture_rules_with_net_admin_alone(podman: Podman, backend: str) -> None:
    options = ("--user=0:0", "--read-only", "--cap-drop=all", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW")
    done = podman.run(
        *("run", "--rm", "--network=none", *options, IMAGE, *CAPTURE, "--backend", backend), code=0, seconds=60
    )
    assert done == ""
    assert "it lacks the capability NET_ADMIN" in podman.remora(*CAPTURE, code=1)


def test_it_runs_as_the_sidecars_user(podman: Podman) -> None:
    config = json.loads(podman.run("image", "inspect", IMAGE))[0]["Config"]
    assert config["User"] == "1337:1337"
    assert config["Entrypoint"] == ["remora"]
    assert config["StopSignal"] == "SIGTERM"


def test_nobody_but_root_may_change_anything_and_nobody_becomes_more_by_running_it(files: Path) -> None:
    for path in everything(files):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        is_for_all = path.is_dir() and found.st_mode & stat.S_ISVTX  # /tmp, where it can be written at all
        if not path.is_symlink() and not is_for_all:
            assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH), path


def test_every_file_has_the_one_time(files: Path) -> None:
    assert {int(path.lstat().st_mtime) for path in everything(files)} == {EPOCH}


def test_there_is_no_shell_no_package_manager_and_no_secret_of_the_build(files: Path) -> None:
    programs = {path.name for path in everything(files) if path.is_file() and path.stat().st_mode & 0o111}
    assert not programs & {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "pip3", "perl", "gcc"}
    for name in ("etc/pip.conf", "run/pip-ca.pem", "root/.config", "root/.cache", "var/lib/apt", "src", "build"):
        assert not (files / name).exists(), name


def test_no_link_leads_nowhere(files: Path) -> None:
    for path in everything(files):
        if path.is_symlink():
            target = path.readlink()
            place = files / target.relative_to("/") if target.is_absolute() else path.parent / target
            is_made_later = target.parts[:2] in (("/", "run"), ("/", "proc"))
            assert is_made_later or place.exists() or place.is_symlink(), f"{path} -> {target}"


def test_bytecode_is_there_and_depends_on_nothing_but_the_sources(files: Path) -> None:
    [package] = files.glob("opt/remora/lib/python3.*/site-packages/proxy")
    for source in package.rglob("*.py"):
        [compiled] = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        assert compiled.read_bytes()[4:8] == b"\x01\0\0\0", f"{compiled}: hash-based and unchecked (PEP 552)"


def listed(files: Path, kind: str) -> dict[str, dict[str, Any]]:
    document = json.loads((files / "usr/share/sbom/remora.cdx.json").read_text())
    return {each["name"]: each for each in document["components"] if each["purl"].startswith(f"pkg:{kind}/")}


def test_the_list_names_every_python_distribution_and_no_other(files: Path) -> None:
    metadata = [Parser().parsestr(path.read_text()) for path in files.glob("opt/remora/**/*.dist-info/METADATA")]
    found = listed(files, "pypi")
    assert {normal_name(name): each["version"] for name, each in found.items()} == {
        normal_name(each["Name"]): each["Version"] for each in metadata
    }
    for name, each in found.items():
        assert re.fullmatch(r"[0-9a-f]{64}", each["hashes"][0]["content"]), name
        assert each["licenses"], name


def test_the_list_names_every_debian_package_and_no_other(files: Path) -> None:
    installed = read_status((files / "var/lib/dpkg/status").read_text())
    found = listed(files, "deb")
    assert {name: each["version"] for name, each in found.items()} == {
        name: package.version for name, package in installed.items()
    }
    assert {"nftables", "iptables", "libc6"} <= set(found)
    assert not {"apt", "dpkg", "perl-base", "bash"} & set(found)


def test_the_list_has_the_shape_of_cyclonedx(files: Path) -> None:
    document = json.loads((files / "usr/share/sbom/remora.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert document["metadata"]["component"]["name"] == "remora"
    references = [each["bom-ref"] for each in document["components"]]
    assert len(references) == len(set(references))
    for each in document["components"]:
        assert each["type"] in ("library", "application")
        assert re.fullmatch(r"pkg:(pypi|deb/debian|generic)/[^@]+@[^@]+", each["purl"]), each
