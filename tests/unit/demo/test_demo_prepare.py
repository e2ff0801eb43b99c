"""What is written for a mesh is what a sidecar takes, and nothing of somebody else's is written over."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from certs.files import read_files
from certs.spiffe import parse_trust_domain
from certs.store import judge_set
from demo.layout import EDIT, MEMBERS, TRUST_DOMAIN, WORKLOADS, Layout, identity_of
from demo.prepare import DirectoryError, prepare
from proxy.config import Config, load_config
from proxy.material import compile_policy, read_policy
from proxy.types import Generation

DOMAIN = parse_trust_domain(TRUST_DOMAIN)


def layout_in(directory: Path) -> Layout:
    return Layout(directory=directory, base=21_000)


def config_of(layout: Layout, name: str) -> Config:
    return load_config(layout.configuration(name).read_bytes(), name)


def test_every_sidecar_takes_its_files_without_a_warning(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    assert prepare(layout)
    for name in WORKLOADS:
        config = config_of(layout, name)
        assert not compile_policy(config, read_policy(config), Generation(1)).warnings


def test_the_stranger_says_that_it_is_web_and_only_its_own_root_vouches_for_it(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    stranger = judge_set(read_files(layout.identity("stranger")), DOMAIN, datetime.datetime.now(datetime.UTC))
    assert str(stranger.spiffe_id) == identity_of("web")


def test_nobody_else_has_a_key_before_the_authority_is_asked(tmp_path: Path) -> None:
    layout = layout_in(tmp_path / "mesh")
    prepare(layout)
    assert layout.directory.stat().st_mode & 0o077 == 0
    keys = [path for path in layout.directory.rglob("*.key") if not path.is_symlink()]
    assert [path.relative_to(layout.directory).parts[0] for path in keys] == ["stranger"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


def test_nothing_of_another_runs_authority_is_left(tmp_path: Path) -> None:
    """A token, a passphrase or a root of before would be believed, and the new authority knows nothing of them."""
    layout = layout_in(tmp_path)
    prepare(layout)
    layout.authority.mkdir()
    left = [layout.authority / "state.json", layout.authority_passphrase, layout.bundle]
    left += [layout.token(name) for name in MEMBERS]
    for file in left:
        file.write_text("of before")
    layout.identity("batch").mkdir()
    prepare(layout)
    assert [file for file in (*left, layout.authority, layout.identity("batch")) if file.exists()] == []


def test_changed_policies_are_kept_and_said(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    (layout.policies / "ledger.yaml").write_text("# mine\n")
    assert not prepare(layout)
    assert (layout.policies / "ledger.yaml").read_text() == "# mine\n"


def test_a_policy_that_was_added_is_a_change(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    assert prepare(layout)
    (layout.policies / "web.yaml").write_text("")
    assert not prepare(layout)


def test_the_edit_of_a_demo_that_was_killed_is_no_change(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    (layout.policies / EDIT).write_text("")
    assert prepare(layout)
    assert not (layout.policies / EDIT).exists()


def test_logs_begin_anew(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    logs = (layout.access_log("web"), layout.audit_log, layout.batch_log)
    for log in logs:
        log.write_text("{}\n")
    prepare(layout)
    assert [log.read_bytes() for log in logs] == [b""] * 3


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DirectoryError, match="not empty and not of the demo"):
        prepare(layout_in(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
