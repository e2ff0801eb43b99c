"""Locks, image and build files hold together: what is installed is what was chosen."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {
    "requirements.lock": PROJECT["dependencies"],
    "requirements-test.lock": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"],
    "requirements-bench.lock": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["bench"],
    "requirements-build.lock": tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"],
}


def pins(lock: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"^([a-z0-9.-]+)==([0-9.]+)(?:\.post[0-9]+)? \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return {name: numbers(version) for name, version in found}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_pinned_at_or_above_its_floor(lock: str) -> None:
    pinned = pins(lock)
    for requirement in LOCKS[lock]:
        name, _, floor = requirement.partition(">=")
        assert floor, f"{requirement} has no floor"
        name = name.lower().replace("_", "-")
        assert name in pinned, f"{lock} lacks {name}: run `make lock`"
        assert pinned[name] >= numbers(floor), f"{lock} has {name} below its floor: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    for line, following in itertools.pairwise(lines):
        if "==" in line:
            assert following.startswith("    --hash=sha256:"), line
    assert all("==" in line or line.startswith("    --hash=sha256:") for line in lines)
    assert "://" not in text
    assert "index" not in text
    assert re.search(r"(?<![\w.])/\w", text) is None, "a path of somebody's machine"


def test_the_locks_agree_on_what_the_product_runs_with() -> None:
    runtime = pins("requirements.lock")
    for lock in ("requirements-test.lock", "requirements-bench.lock"):
        assert runtime.items() <= pins(lock).items(), f"{lock} chose other versions: run `make lock`"


def test_each_floor_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    body = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")].splitlines()
    for before, line in itertools.pairwise(body):
        if line.startswith('    "'):
            assert before.lstrip().startswith("#"), f"{line.strip()} has no reason beside it"


def test_the_import_rules_know_the_dependencies() -> None:
    from test_rules_imports import DEPENDENCIES

    imported = {"pyopenssl": "OpenSSL", "prometheus-client": "prometheus_client", "pyyaml": "yaml", "pyjwt": "jwt"}
    names = [requirement.partition(">=")[0] for requirement in PROJECT["dependencies"]]
    assert sorted(imported.get(name, name) for name in names) == sorted(DEPENDENCIES)


def test_the_image_runs_as_1337_from_a_lock_with_hashes() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE_IMAGE=", text, re.MULTILINE)
    stages = re.findall(r"^FROM .*$", text, re.MULTILINE)
    assert stages == ["FROM ${BASE_IMAGE} AS build", "FROM scratch"]
    last = text[text.rindex("FROM ") :]
    assert "\nUSER 1337:1337\n" in last
    assert '\nENTRYPOINT ["remora"]\n' in last
    assert "PYTHONDONTWRITEBYTECODE=1" in last, "the root file system is read-only"
    lines = text.replace("\\\n", " ").splitlines()
    installs = [part for line in lines for part in line.split("&&") if re.search(r"-m pip .*install ", part)]
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command, command


def test_the_image_gets_what_it_copies() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    let_in = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert {name for line in copied for name in line.split()} == let_in


def test_make_says_what_each_target_does() -> None:
    text = (ROOT / "Makefile").read_text()
    described = dict(re.findall(r"^([a-z0-9]+):.*## (.+)$", text, re.MULTILINE))
    assert {"demo", "test", "e2e", "check", "bench"} <= set(described)
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) == set(described)


def test_ci_runs_everything_that_must_hold() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test", "make e2e"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_security_document_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`(tests/[^`]+)`", text))
    assert len(named) > 10
    for name in named:
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), f"SECURITY.md names {path}, which is not there"
        assert not function or f"def {function}(" in (ROOT / path).read_text(), name


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_the_changelog_speaks_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{PROJECT['version']}]" in text
