"""A source takes what is whole and valid, once, and tells what is not, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from certs.store import publish
from proxy.errors import ConfigError, Fault
from proxy.watch import Source, read_policy_files


class Mount:
    """A source over files that the test sets; content "bad..." is refused by `judge`, "late..." by `take`."""

    def __init__(self, text: str) -> None:
        self.text: str | None = text
        self.told: list[str] = []
        self.refuse_late = True
        self.source: Source[str] = Source(
            "policy", read=self._read, judge=self._judge, take=self._take, reject=self._reject
        )

    def look(self, *, first: bool = False) -> list[str]:
        act = self.source.look(first=first)
        if act is not None:
            act()
        told, self.told = self.told, []
        return told

    def _read(self) -> Mapping[str, bytes]:
        if self.text is None:
            raise ConfigError([Fault(file="dir", message="missing")])
        return {"file": self.text.encode()}

    def _judge(self, files: Mapping[str, bytes]) -> str:
        text = files["file"].decode()
        if text.startswith("bad"):
            raise ConfigError([Fault(file="file", line=1, column=1, message=text)])
        return text

    def _take(self, judged: str) -> None:
        if judged.startswith("late") and self.refuse_late:
            raise ConfigError([Fault(file="file", message=judged)])
        self.told.append(f"take {judged}")

    def _reject(self, faults: Sequence[Fault]) -> None:
        self.told.append("reject " + ", ".join(fault.message for fault in faults))


def test_content_is_taken_once_when_two_looks_have_found_it() -> None:
    mount = Mount("one")
    assert mount.look(first=True) == ["take one"]
    assert mount.look() == []
    mount.text = "two"
    assert [mount.look(), mount.look(), mount.look()] == [[], ["take two"], []]


def test_what_is_seen_in_the_middle_of_a_write_is_neither_taken_nor_told() -> None:
    mount = Mount("one")
    mount.look(first=True)
    for half in ("", "bad, half written", "tw"):
        mount.text = half
        assert mount.look() == []
    mount.text = "two"
    assert [mount.look(), mount.look()] == [[], ["take two"]]


def test_a_fault_is_told_at_once_at_the_first_look_and_then_when_it_stays() -> None:
    mount = Mount("bad at the start")
    assert mount.look(first=True) == ["reject bad at the start"]
    mount.text = "one"
    assert [mount.look(), mount.look()] == [[], ["take one"]]
    mount.text = "bad for good"
    assert [mount.look(), mount.look(), mount.look()] == [[], ["reject bad for good"], []]


def test_another_fault_is_told_too() -> None:
    mount = Mount("one")
    mount.look(first=True)
    mount.text = "bad 1"
    assert [mount.look(), mount.look()] == [[], ["reject bad 1"]]
    mount.text = None
    assert [mount.look(), mount.look(), mount.look()] == [[], ["reject missing"], []]


def test_what_is_mounted_again_as_it_is_in_force_ends_the_rejection_without_being_taken_twice() -> None:
    mount = Mount("one")
    mount.look(first=True)
    mount.text = "bad"
    mount.look()
    mount.look()
    mount.text = "one"
    assert mount.look() == ["reject "]
    assert mount.source.faults == ()
    assert mount.look() == []


def test_what_cannot_be_taken_yet_is_tried_again_and_told_once() -> None:
    mount = Mount("one")
    mount.look(first=True)
    mount.text = "late two"
    assert [mount.look(), mount.look(), mount.look()] == [[], ["reject late two"], []]
    mount.refuse_late = False
    assert mount.look() == ["take late two"]
    assert mount.look() == []


def test_policy_files_are_read_by_their_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt", "d.yaml~"):
        (tmp_path / name).write_text(name)
    (tmp_path / "e.yaml").mkdir()
    assert list(read_policy_files(str(tmp_path))) == ["a.yml", "b.yaml", "c.json"]


def test_policy_files_behind_a_link_are_of_one_generation(tmp_path: Path) -> None:
    publish(tmp_path, {"a.yaml": b"1"})
    publish(tmp_path, {"b.yaml": b"2"})
    (tmp_path / "stray.yaml").write_text("not of the generation")
    assert read_policy_files(str(tmp_path)) == {"b.yaml": b"2"}


def test_a_policy_directory_that_is_missing_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_policy_files(str(tmp_path / "none"))
    assert read_policy_files(str(tmp_path)) == {}
