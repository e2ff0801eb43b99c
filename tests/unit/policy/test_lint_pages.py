"""Every finding has a page, and the page's examples behave as it says: asked with the command that it prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from proxy.policy.lint.catalogue import CATALOGUE
from proxy.policy_commands.cli import main
from proxy.policy_commands.lint import PAGES, page_of

ROOT = Path(__file__).parents[3]
WITHOUT_EXAMPLE = {"RM0002"}  # takes thousands of rules; see test_lint_shadows.py
CONFIG = {
    "workload": {"namespace": "demo", "service_account": "orders", "labels": {"app": "orders"}},
    "identity": {"files": {"directory": "/run/certs"}},
    "policy": {"directory": "policy"},
}


def sections(page: str) -> dict[str, str]:
    """Split a page at its headings; the part before the first is ""."""
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def ids_of(page: dict[str, str], heading: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lint an example by the command of its page, with the files that the page shows."""
    (policy,) = fenced(page[heading], "yaml")
    (directory / "policy").mkdir()
    (directory / "policy" / "example.yaml").write_text(policy)
    asked = page.get("Asked with", "```sh\nremora policy lint policy/\n```\n")
    (command,) = fenced(asked, "sh")
    excerpts = fenced(asked, "yaml")
    given = yaml.safe_load(excerpts[0]) if excerpts else {}
    if "--config" in command:
        (directory / "remora.yaml").write_text(json.dumps(CONFIG | given))
    elif given:
        (directory / "known.yaml").write_text(excerpts[0])
    words = shlex.split(command)
    assert words[:3] == ["remora", "policy", "lint"]
    main([*words[2:], "--output", "json", "--fail-on", "never"])
    return [finding["id"] for finding in json.loads(capsys.readouterr().out)]


def test_every_finding_has_a_page_and_every_page_a_finding() -> None:
    pages = {path.stem for path in (ROOT / PAGES).iterdir()}
    assert pages == set(CATALOGUE)


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_page_begins_with_what_the_catalogue_says(code: str) -> None:
    entry = CATALOGUE[code]
    page = page_of(code)
    assert page.startswith(f"# {code}: {entry.title}\n\nSeverity: {entry.severity.value}\n\n")
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize("code", sorted(set(CATALOGUE) - WITHOUT_EXAMPLE))
def test_the_bad_example_is_found_and_the_mended_one_is_clean(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = sections(page_of(code))
    found = {}
    for heading in ("Found in", "Mended"):
        directory = tmp_path / heading
        directory.mkdir()
        monkeypatch.chdir(directory)
        found[heading] = ids_of(page, heading, directory, capsys)
    assert set(found["Found in"]) == {code}
    assert found["Mended"] == []
