"""The service begins and ends in order, leaves nothing half done when it is killed, and shares its directory."""

from __future__ import annotations

import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import AuthorityProcess, identity


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def test_it_ends_in_order_and_begins_where_it_was(authority: AuthorityProcess, loop_name: str) -> None:
    authority.init()
    authority.start(loop=loop_name)
    token = authority.token()
    first = authority.enrol(token=token, bundle_sequence=1, instance="orders-0")
    socket = authority.directory / "control.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert authority.stop() == 0
    assert not socket.exists()
    assert "Traceback" not in authority.log_file.read_text()
    # Without a process the same commands work on the directory.
    assert "1 of 1 known sidecars" in authority.order("status")
    later = authority.token()
    authority.start(loop=loop_name)
    assert authority.sign(token=token).reason == "join_token_used"
    assert authority.enrol(first).spiffe_id == first.spiffe_id
    assert authority.enrol(token=later).spiffe_id == first.spiffe_id


def test_killed_it_forgets_nothing_that_it_gave(authority: AuthorityProcess) -> None:
    authority.init()
    authority.start("--identity-rate", "50:50")
    token = authority.token()
    serials = {authority.enrol(token=token).leaf.serial_number}
    authority.order("revoke", "--identity", identity("web"))
    assert authority.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (authority.directory / "control.sock").exists()  # nobody took it away
    assert identity("web") in authority.order("status")
    authority.start("--identity-rate", "50:50")
    assert authority.sign(token=token).reason == "join_token_used"
    assert authority.sign(token=authority.token("web")).reason == "identity_revoked"
    serials.add(authority.enrol(token=authority.token()).leaf.serial_number)
    index = (authority.directory / "issued.jsonl").read_text()
    assert all(f"{serial:x}" in index for serial in serials)


def test_two_do_not_serve_one_directory(authority: AuthorityProcess) -> None:
    authority.init()
    authority.start()
    done = authority.run("serve", "--directory", str(authority.directory), "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "another authority holds it" in done.stderr
    assert authority.ask("GET", "/v1/bundle").status == 200


def test_a_port_that_is_taken_is_said(authority: AuthorityProcess, tmp_path: Path) -> None:
    authority.init()
    authority.start()
    other = AuthorityProcess(tmp_path / "other")
    (tmp_path / "other").mkdir()
    other.init()
    done = other.run("serve", "--directory", str(other.directory), "--listen", f"127.0.0.1:{authority.port}")
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_audit_log_it_does_not_begin(authority: AuthorityProcess) -> None:
    authority.init()
    done = authority.run(
        "serve", "--directory", str(authority.directory), "--listen", "127.0.0.1:0", "--audit-log", "/dev/full"
    )
    assert done.returncode == 1
    assert "the audit log /dev/full cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_keys_are_sealed_and_nothing_is_readable_by_others(authority: AuthorityProcess) -> None:
    authority.init()
    authority.start()
    authority.enrol(token=authority.token())
    for path in [authority.directory, *authority.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in (authority.directory / "keys").iterdir():
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE((authority.base / "ca.passphrase").stat().st_mode) == 0o600
    limits = Path(f"/proc/{authority.process.pid}/limits").read_text() if authority.process else ""
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("status", "--directory", "nowhere"), "make an authority with"),
        (("init", "--directory", "new", "--trust-domain", "Not A Domain"), "trust domain"),
        (("serve", "--directory", "nowhere", "--listen", "localhost:1"), "localhost"),
        (("serve", "--directory", "nowhere", "--listen", "127.0.0.1:1", "--identity-rate", "fast"), "PER_SECOND:BURST"),
        (("rotate", "import", "--directory", "nowhere"), "--from"),
        (("token", "create", "--directory", "nowhere", "--identity", "x", "--lifetime", "soon"), "no duration"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(
    authority: AuthorityProcess, words: tuple[str, ...], message: str
) -> None:
    places = {"nowhere": str(authority.base / "nowhere"), "new": str(authority.base / "new")}
    done: subprocess.CompletedProcess[str] = authority.run(*(places.get(word, word) for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_authority_is_not_made_twice(authority: AuthorityProcess) -> None:
    authority.init()
    before = (authority.directory / "state.json").read_bytes()
    assert "stands there already" in authority.refused("init", "--trust-domain", "cluster.local")
    assert (authority.directory / "state.json").read_bytes() == before


def test_the_wrong_passphrase_opens_nothing(authority: AuthorityProcess) -> None:
    authority.init()
    (authority.base / "wrong").write_text("wrong\n")
    said = authority.refused("status", "--key-source", f"file:{authority.base / 'wrong'}")
    assert "wrong passphrase" in said
