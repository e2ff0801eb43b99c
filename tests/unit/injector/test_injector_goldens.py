"""Pods that differ in kind, each with what `remora inject` makes of it: tests/corpus/pods/NAME.yaml and NAME.injected.

The second file has the report first, as comments, and then the manifest; nothing but the report where a pod is refused.
REMORA_GOLDEN=write writes them anew: look at the difference before you keep it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from injector.documents import split
from injector.doors import World, inject_manifest, objects, uninject_manifest
from injector.manifests import template
from injector.settings import Settings
from tests import pod_security, schemas

CORPUS = Path(__file__).parents[2] / "corpus" / "pods"
PODS = sorted(path.stem for path in CORPUS.glob("*.yaml"))
WORLD = World(defaults=Settings(image="remora:0.1.0"), trust_bundle="-----BEGIN CERTIFICATE-----\nMIIB\n")
NEWER = {"pod-level-resources": 32, "ephemeral-container": 0}
"""From which minor version the schemas know a pod; 0: no manifest may have it, as the API adds it later."""


def injected(name: str) -> tuple[str, list[str], bool]:
    text, report = inject_manifest(split((CORPUS / f"{name}.yaml").read_bytes(), f"{name}.yaml"), WORLD)
    return text, [str(line) for line in report.lines], report.is_refused


@pytest.mark.parametrize("name", PODS)
def test_a_pod_becomes_what_is_written_down(name: str) -> None:
    text, lines, refused = injected(name)
    shown = "".join(f"# {line}\n" for line in lines) + ("" if refused else "---\n" + text)
    golden = CORPUS / f"{name}.injected"
    if os.environ.get("REMORA_GOLDEN") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text(), "REMORA_GOLDEN=write writes it anew"


@pytest.mark.parametrize("name", PODS)
def test_taken_out_again_it_is_the_pod_that_it_was(name: str) -> None:
    before = split((CORPUS / f"{name}.yaml").read_bytes(), name)
    text, _, refused = injected(name)
    back, report = uninject_manifest(split(text.encode(), name))
    assert not report.is_refused
    after = split(back.encode(), name)
    assert [part.value for part in after] == [part.value for part in before]
    assert [list(keys(part.value)) for part in after] == [list(keys(part.value)) for part in before], "in their order"
    assert refused or text != back or not report.changed


@pytest.mark.parametrize("name", PODS)
def test_put_in_twice_is_put_in_once(name: str) -> None:
    text, _, _ = injected(name)
    again, report = inject_manifest(split(text.encode(), name), WORLD)
    assert again == text
    assert report.changed == 0


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_what_is_printed_is_valid_in_every_version(version: str) -> None:
    found = {}
    for name in PODS:
        text, _, refused = injected(name)
        minor = int(version.partition(".")[2])
        since = NEWER.get(name, schemas.FIRST)
        if refused or not since or since > minor:
            continue
        for document in objects(split(text.encode(), name)):
            if template(document) is not None:
                found.update({f"{name}: {fault}": None for fault in schemas.faults(without_nulls(document), version)})
    assert not found


def test_without_capture_rules_a_restricted_pod_stays_restricted() -> None:
    text, _, _ = injected("pod-restricted")
    [pod] = objects(split(text.encode(), "pod"))
    assert pod_security.restricted(pod["spec"]) == []  # type: ignore[arg-type]
    text, _, _ = injected("pod-security-context")
    [pod] = objects(split(text.encode(), "pod"))
    assert any("remora-capture" in each for each in pod_security.restricted(pod["spec"]))  # type: ignore[arg-type]


def keys(value: object) -> list[object]:
    """Give all keys of a value, in their order."""
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in (key, *keys(inner))]
    return [each for inner in value for each in keys(inner)] if isinstance(value, list) else []


def without_nulls(value: object) -> object:
    """Leave out what is null, as the API server does before it looks."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
