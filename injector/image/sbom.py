"""The list of what is in the image: CycloneDX 1.5 (ECMA-424) as JSON, the same bytes for the same content.

Scanners read it inside the image, people who judge an image read it beside it. An archive's hash is there where the
build knew it: of what pip downloaded, of what apt's index names, of our own wheel.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final
from urllib.parse import quote

NAMESPACE: Final = uuid.UUID("b3a5b3c0-6a2c-5d0e-9b6e-7d1f0c9a1337")
"""Of serial numbers: the same content has the same number, other content another."""
LONGEST_NAME: Final = 80
"""Characters of a licence's name. Some packages write the text there, which is no name."""


class Ecosystem(Enum):
    """Where a component comes from, by its word in a package URL."""

    PYTHON = "pypi"
    DEBIAN = "deb"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing in the image. `licenses` are names as the component has them, `expression` is SPDX, and goes first."""

    ecosystem: Ecosystem
    name: str
    version: str
    architecture: str = ""
    distribution: str = ""
    licenses: tuple[str, ...] = ()
    expression: str = ""
    sha256: str = ""


def package_url(component: Component) -> str:
    """Give the package URL (purl) by which databases of vulnerabilities know the component."""
    name, version = component.name, quote(component.version, safe=".-~")
    match component.ecosystem:
        case Ecosystem.PYTHON:
            return f"pkg:pypi/{normal_name(name)}@{version}"
        case Ecosystem.DEBIAN:
            about = f"arch={component.architecture}&distro={component.distribution}"
            return f"pkg:deb/debian/{quote(name, safe='.-')}@{version}?{about}"
        case Ecosystem.GENERIC:
            return f"pkg:generic/{quote(name, safe='.-')}@{version}"


def normal_name(name: str) -> str:
    """Give the one spelling of a Python distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_licenses(
    expression: str | None, words: str | None, classifiers: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Read a distribution's licence from its metadata: an SPDX expression, or else the names that it gives itself.

    `expression` is License-Expression (PEP 639), `words` the older License field.
    """
    if expression:
        return expression, ()
    first = (words or "").strip().partition("\n")[0].strip()
    if first and first.upper() != "UNKNOWN" and len(first) <= LONGEST_NAME:
        return "", (first,)
    told = [entry.rpartition(" :: ")[2] for entry in classifiers if entry.startswith("License :: ")]
    return "", tuple(dict.fromkeys(told))


def debian_licenses(copyright_file: str) -> tuple[str, ...]:
    """Read the short names of licences from a machine-readable copyright file (DEP-5); none from another."""
    if not re.match(r"\s*Format:", copyright_file):
        return ()
    names = (name.strip() for name in re.findall(r"^License: *(.+)$", copyright_file, re.MULTILINE))
    return tuple(sorted({name for name in names if len(name) <= LONGEST_NAME}))


def archive_hashes(report: str) -> dict[str, str]:
    """Read from what `pip install --report` wrote the SHA-256 of each archive, by the name of the distribution."""
    found: dict[str, str] = {}
    for entry in json.loads(report)["install"]:
        archive = entry["download_info"].get("archive_info", {})
        told = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
        if told:
            found[normal_name(entry["metadata"]["name"])] = told
    return found


def index_hashes(index: str) -> dict[tuple[str, str, str], str]:
    """Read from what `apt-cache show` prints the SHA-256 of archives, by name, version and architecture."""
    found: dict[tuple[str, str, str], str] = {}
    for stanza in re.split(r"\n{2,}", index):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, re.MULTILINE))
        if "SHA256" in fields:
            found[fields["Package"], fields["Version"], fields["Architecture"]] = fields["SHA256"]
    return found


def document(components: Iterable[Component], *, subject: Component, epoch: int) -> str:
    """Write the list of components of an image. `epoch` is the build's SOURCE_DATE_EPOCH in seconds."""
    listed = sorted(components, key=lambda component: (component.ecosystem.value, component.name, component.version))
    made: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "container", "name": subject.name, "version": subject.version},
        },
        "components": [_entry(component) for component in listed],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(made, sort_keys=True))
    return json.dumps({"$schema": _SCHEMA, "serialNumber": f"urn:uuid:{serial}", **made}, indent=1) + "\n"


_SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.5.schema.json"


def _entry(component: Component) -> dict[str, Any]:
    url = package_url(component)
    made: dict[str, Any] = {
        "type": "application" if component.ecosystem is Ecosystem.GENERIC else "library",
        "bom-ref": url,
        "name": component.name,
        "version": component.version,
        "purl": url,
    }
    if component.expression:
        made["licenses"] = [{"expression": component.expression}]
    elif component.licenses:
        made["licenses"] = [{"license": {"name": name}} for name in component.licenses]
    if component.sha256:
        made["hashes"] = [{"alg": "SHA-256", "content": component.sha256}]
    return made
