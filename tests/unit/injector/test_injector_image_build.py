"""What the build of the image hands on of pip's own settings, and what it says where it cannot build."""

from __future__ import annotations

import pytest

from injector.image import build

LISTED = """\
:env:.cert='/etc/ssl/own.crt'
:env:.find-links='/opt/wheels'
global.cert='/etc/other.crt'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.index-url='https://one.example/simple'
global.user='yes'
install.timeout='30'
list.format='columns'
"""


def test_settings_are_read_as_pip_lists_them_and_the_environment_wins() -> None:
    found = build.pip_settings(LISTED)
    assert found["cert"] == "/etc/ssl/own.crt"
    assert found["timeout"] == "30"
    assert "format" not in found


def test_what_is_handed_on_says_where_packages_come_from_and_nothing_of_the_machine() -> None:
    assert build.pip_file(build.pip_settings(LISTED)) == (
        "[global]\n"
        "extra-index-url = https://one.example/simple\n"
        "    https://two.example/simple\n"
        "index-url = https://one.example/simple\n"
        "timeout = 30\n"
        "cert = /run/pip-ca.pem\n"
    )
    assert build.pip_file({}) == "[global]\n"


def test_without_a_builder_the_mend_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert build.main([]) == 1
    assert capsys.readouterr().err == (
        "image: neither podman nor buildah is here: install one (Debian: apt-get install podman)\n"
    )


def test_without_a_base_and_a_way_to_make_one_the_mend_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "_runs", lambda *words: False)
    assert build.main(["--builder", "podman"]) == 1
    assert "image: no base: name one with --base IMAGE, or install debootstrap" in capsys.readouterr().err
