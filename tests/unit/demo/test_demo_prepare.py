"""What is written for a mesh is what a sidecar takes, and nothing of somebody else's is written over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from certs.authority import AuthorityError
from demo.layout import EDIT, MARK, WORKLOADS, Layout, identity_of
from demo.prepare import DirectoryError, prepare
from proxy.config import Config, load_config
from proxy.errors import ConfigError
from proxy.material import compile_policy, judge_identity, read_identity, read_policy
from proxy.types import Generation


def layout_in(directory: Path) -> Layout:
    return Layout(directory=directory, base=21_000)


def config_of(layout: Layout, name: str) -> Config:
    return load_config(layout.configuration(name).read_bytes(), name)


def test_every_sidecar_takes_its_material_without_a_warning(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    assert prepare(layout)
    for name in WORKLOADS:
        config = config_of(layout, name)
        tls = judge_identity(config, read_identity(config), Generation(1), time.time())
        assert str(tls.identity_set.spiffe_id) == identity_of(name)
        assert not compile_policy(config, read_policy(config), Generation(1)).warnings


def test_the_stranger_says_that_it_is_web_and_no_root_of_the_mesh_vouches_for_it(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    stranger, web = layout.identity("stranger"), layout.identity("web")
    assert (stranger / "ca.crt").read_bytes() != (web / "ca.crt").read_bytes()
    config = config_of(layout, "web")
    for name in ("tls.crt", "tls.key"):
        (web / name).unlink()
        (web / name).write_bytes((stranger / name).read_bytes())
        (web / name).chmod(0o600)
    (web / "..data").unlink()  # plain files now
    ca = (layout.identity("orders") / "ca.crt").read_bytes()
    (web / "ca.crt").unlink()
    (web / "ca.crt").write_bytes(ca)
    with pytest.raises(ConfigError, match=r"no root of cluster\.local vouches"):
        judge_identity(config, read_identity(config), Generation(1), time.time())


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    layout = layout_in(tmp_path / "mesh")
    prepare(layout)
    assert layout.directory.stat().st_mode & 0o077 == 0
    keys = [path for path in layout.directory.rglob("*.key") if not path.is_symlink()]
    assert len(keys) == 7  # five callers and workloads, root and intermediate
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


def test_changed_policies_are_kept_and_said(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    (layout.policies / "ledger.yaml").write_text("# mine\n")
    root = (layout.identity("web") / "ca.crt").read_bytes()
    assert not prepare(layout)
    assert (layout.policies / "ledger.yaml").read_text() == "# mine\n"
    assert (layout.identity("web") / "ca.crt").read_bytes() == root, "the authority is kept too"


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
    layout.access_log("web").write_text("{}\n")
    prepare(layout)
    assert layout.access_log("web").read_bytes() == b""


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DirectoryError, match="not empty and not of the demo"):
        prepare(layout_in(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_authority_is_said(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    prepare(layout)
    (layout.authority / "root.crt").unlink()
    with pytest.raises(AuthorityError, match=r"root\.crt: it is missing"):
        prepare(layout)
    assert (layout.directory / MARK).exists()
