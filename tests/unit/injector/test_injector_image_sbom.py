"""The list of what is in the image: names as scanners know them, licences, hashes; the same bytes for one content."""

from __future__ import annotations

import json
from typing import Any

import pytest

from injector.image.sbom import (
    Component,
    Ecosystem,
    archive_hashes,
    debian_licenses,
    document,
    index_hashes,
    normal_name,
    package_url,
    python_licenses,
)

REMORA = Component(ecosystem=Ecosystem.PYTHON, name="remora", version="0.1.0", expression="Apache-2.0")
LIBC = Component(
    ecosystem=Ecosystem.DEBIAN,
    name="libstdc++6",
    version="1:12.2.0-14+deb12u1",
    architecture="amd64",
    distribution="debian-12",
    licenses=("GPL-3+",),
    sha256="ab" * 32,
)
PYTHON = Component(ecosystem=Ecosystem.GENERIC, name="python", version="3.13.1", expression="PSF-2.0")


@pytest.mark.parametrize(
    ("component", "url"),
    [
        (Component(ecosystem=Ecosystem.PYTHON, name="Prometheus_Client", version="1"), "pkg:pypi/prometheus-client@1"),
        (LIBC, "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"),
        (PYTHON, "pkg:generic/python@3.13.1"),
    ],
)
def test_a_component_has_the_url_by_which_scanners_know_it(component: Component, url: str) -> None:
    assert package_url(component) == url


@pytest.mark.parametrize("name", ["A.b_c", "a-b-c", "a__B..C"])
def test_a_distribution_has_one_name(name: str) -> None:
    assert normal_name(name) == "a-b-c"


@pytest.mark.parametrize(
    ("expression", "words", "classifiers", "found"),
    [
        ("MIT", "other", ["License :: OSI Approved :: BSD License"], ("MIT", ())),
        (None, "BSD-3-Clause", [], ("", ("BSD-3-Clause",))),
        (None, " MIT \nmore text", [], ("", ("MIT",))),
        (None, "UNKNOWN", ["License :: OSI Approved :: MIT License"], ("", ("MIT License",))),
        (None, "x" * 81, ["License :: OSI Approved :: MIT License", "Topic :: X"], ("", ("MIT License",))),
        (None, None, [], ("", ())),
    ],
)
def test_a_licence_is_read_from_what_a_distribution_says(
    expression: str | None, words: str | None, classifiers: list[str], found: object
) -> None:
    assert python_licenses(expression, words, classifiers) == found


def test_a_licence_is_read_from_a_copyright_file_that_machines_can_read() -> None:
    text = "Format: https://x\n\nFiles: *\nLicense: GPL-2+\n text\n\nLicense: MIT\nLicense: GPL-2+\n"
    assert debian_licenses(text) == ("GPL-2+", "MIT")
    assert debian_licenses("This is free software.\nLicense: GPL-2+\n") == ()


def test_hashes_are_read_from_pip_and_apt() -> None:
    report = {
        "install": [
            {"download_info": {"archive_info": {"hashes": {"sha256": "aa"}}}, "metadata": {"name": "H11"}},
            {"download_info": {"archive_info": {"hash": "sha256=bb"}}, "metadata": {"name": "h2"}},
            {"download_info": {"dir_info": {}}, "metadata": {"name": "local"}},
        ]
    }
    assert archive_hashes(json.dumps(report)) == {"h11": "aa", "h2": "bb"}
    index = "Package: a\nVersion: 1\nArchitecture: all\nSHA256: cc\n\nPackage: b\nVersion: 2\nArchitecture: all\n"
    assert index_hashes(index) == {("a", "1", "all"): "cc"}


def test_the_same_content_is_the_same_document_in_whatever_order() -> None:
    one = document([LIBC, REMORA, PYTHON], subject=REMORA, epoch=0)
    assert document([PYTHON, REMORA, LIBC], subject=REMORA, epoch=0) == one
    other = document([LIBC, REMORA], subject=REMORA, epoch=0)
    assert json.loads(other)["serialNumber"] != json.loads(one)["serialNumber"]


def test_the_document_says_what_a_component_is() -> None:
    made: Any = json.loads(document([REMORA, LIBC, PYTHON], subject=REMORA, epoch=315532800))
    assert made["metadata"] == {
        "timestamp": "1980-01-01T00:00:00Z",
        "component": {"type": "container", "name": "remora", "version": "0.1.0"},
    }
    libc, python, remora = made["components"]
    assert libc["licenses"] == [{"license": {"name": "GPL-3+"}}]
    assert libc["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert (python["type"], python["licenses"]) == ("application", [{"expression": "PSF-2.0"}])
    assert (remora["type"], remora["purl"], "hashes" in remora) == ("library", "pkg:pypi/remora@0.1.0", False)
