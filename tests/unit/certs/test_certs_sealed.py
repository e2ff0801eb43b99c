"""A key at rest opens with its secret and with nothing else, and no message holds either."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from certs import sealed
from certs.keys import generate_key, write_key
from certs.sealed import KeySource, SealError


def in_file(path: Path, secret: str) -> KeySource:
    path.write_text(secret + "\n")
    return KeySource.parse(f"file:{path}")


def command(path: Path, program: str) -> KeySource:
    path.write_text(program)
    return KeySource.parse(f"command:{sys.executable} {path}")


def test_every_passphrase_source_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMORA_KEY", "open sesame")
    reader, writer = os.pipe()
    os.write(writer, b"open sesame\n")
    os.close(writer)
    key = generate_key()
    written = in_file(tmp_path / "secret", "open sesame").seal(key)
    for source in (KeySource.parse("env:REMORA_KEY"), KeySource.parse(f"fd:{reader}")):
        assert write_key(source.unseal(written)) == write_key(key)
        assert "sesame" not in repr(source)


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_passphrase_that_everybody_may_read_is_warned_of(tmp_path: Path, mode: int, is_open: bool) -> None:
    file = tmp_path / "secret"
    file.write_text("correct horse\n")
    file.chmod(mode)
    source = KeySource.parse(f"file:{file}")
    said = source.warnings()
    assert [f"{file}: everybody" in warning and "correct horse" not in warning for warning in said] == [True] * is_open
    file.unlink()
    assert source.warnings() == []


def test_a_wrong_passphrase_is_said_without_it(tmp_path: Path) -> None:
    written = in_file(tmp_path / "one", "right-secret").seal(generate_key())
    with pytest.raises(SealError, match="wrong passphrase") as caught:
        in_file(tmp_path / "two", "wrong-secret").unseal(written)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "file", "file:", "fd:x", "fd:correct", "env:REMORA_NOT_SET", "command:'a", "pass:correct horse"]
)
def test_a_bad_source_is_refused(text: str) -> None:
    with pytest.raises(SealError) as caught:
        KeySource.parse(text)
    assert "correct" not in str(caught.value)


def test_a_command_wraps_and_unwraps(tmp_path: Path) -> None:
    program = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(bytes(b ^ 90 for b in d))"
    source, key = command(tmp_path / "wrap.py", program), generate_key()
    assert write_key(source.unseal(source.seal(key))) == write_key(key)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit(3)", "wrote nothing"),
        ("import sys; print('x'); sys.exit(3)", "ended with 3"),
        ("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", "unsealed"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "too much"),
    ],
)
def test_a_broken_command_is_named(tmp_path: Path, program: str, words: str) -> None:
    with pytest.raises(SealError, match=words):
        command(tmp_path / "wrap.py", program).seal(generate_key())


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "COMMAND_SECONDS", 0.2)
    with pytest.raises(SealError, match="took longer"):
        command(tmp_path / "wrap.py", "import signal; signal.pause()").seal(generate_key())
