"""Files as people and their tools break them: every sentence has its file, its place, and can be read in a log."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from policy_corpus import POLICIES, bad_files
from policy_world import workload

from proxy.documents import MAX_FAULTS
from proxy.errors import ConfigError, Fault
from proxy.policy import PolicyDefault, PolicySettings, load
from proxy.policy.load import MAX_TOLD
from proxy.types import Generation

ROOT = Path(__file__).parents[3]
FILES = bad_files()
MALFORMED = {path.name for path in (POLICIES / "malformed").iterdir() if path.suffix != ".expect"}
FAMILIES = (
    "authorization",
    "bytes",
    "condition",
    "frame",
    "json",
    "jwks",
    "list",
    "peer",
    "request-authentication",
    "template",
    "value",
    "yaml",
)
READERS = (
    "documents/reader.py",
    "policy/read.py",
    "policy/read_rules.py",
    "policy/read_values.py",
    "policy/read_tokens.py",
    "policy/templates.py",
    "policy/load.py",
    "authn/keys.py",
    "authn/uris.py",
    "authn/strict_json.py",
)
# Sentences about size, which hostile_files.py and huge_files.py cause, and those that no policy file can cause.
ELSEWHERE = (
    "'split it into several files'",
    "values in one file",
    "documents', 'split the file'",
    "jwtRules', 'split the document'",
    "hint='this is the largest",
    "hint='mend those above first'",
    "not YAML: {shown(str(error))}",
    "_Abort((1, 1), f'not YAML: {shown(problem)}')",
    "it is not UTF-8",
)


def faults(name: str, content: bytes) -> list[Fault]:
    with pytest.raises(ConfigError) as raised:
        load(
            {name: content},
            workload=workload(),
            settings=PolicySettings(default=PolicyDefault.DENY),
            generation=Generation(1),
            tcp_ports=(3306,),
        )
    return raised.value.faults


def test_the_corpus_has_files_of_every_family() -> None:
    assert len(MALFORMED) >= 150
    families = Counter(next((family for family in FAMILIES if name.startswith(f"{family}-")), "") for name in MALFORMED)
    assert set(families) == set(FAMILIES)
    assert min(families.values()) >= 9


def test_a_fault_stands_inside_its_file_and_is_one_line_of_printable_text() -> None:
    for bad in FILES:
        lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", bad.content.decode("utf-8", "replace"))
        for fault in faults(bad.name, bad.content):
            assert 1 <= fault.line <= len(lines) + 1, bad.name
            assert 1 <= fault.column <= len(lines[min(fault.line, len(lines)) - 1]) + 1, bad.name
            assert str(fault).isprintable(), bad.name
            assert len(str(fault)) < 600, bad.name


def sentences() -> Iterator[tuple[str, int, str]]:
    """Yield every statement of the readers that says what is wrong."""
    for name in READERS:
        file = ROOT / "proxy" / name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Expr | ast.Raise | ast.Return | ast.Assign) and any(map(says, ast.walk(node))):
                yield str(file), node.lineno, ast.unparse(node)


def says(node: ast.AST) -> bool:
    if isinstance(node, ast.Return):
        texts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
        return any(isinstance(text, ast.Constant) and " " in str(text.value) for text in texts)
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute):
        return called.attr == "fault"
    return isinstance(called, ast.Name) and called.id in ("Problem", "_Abort", "ValueError", "Fault")


def test_every_sentence_of_the_readers_has_a_file() -> None:
    told = {str(ROOT / "proxy" / name) for name in READERS}
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in told:
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for bad in FILES:
            faults(bad.name, bad.content)
    finally:
        sys.settrace(before)
    missing = [(file, line, text) for file, line, text in sentences() if (file, line) not in reached]
    assert [each for each in missing if not any(known in each[2] for known in ELSEWHERE)] == []
    assert len(missing) < len(list(sentences())) / 5


@pytest.mark.timeout(300)
def test_what_is_huge_is_refused_in_bounded_memory_and_time(tmp_path: Path) -> None:
    program = Path(__file__).parent / "huge_files.py"
    done = subprocess.run([sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = {name: rest for name, *rest in (line.split("\t") for line in done.stdout.splitlines())}
    file_too_large = "f.yaml:1:1: the file has more than 1048576 bytes; split it into several files"
    set_too_large = "000.yaml: the policy files have more than 16777216 bytes together"
    faulty = 'f.yaml:4:17: unknown key "a0" in `spec.rules[0]`; known here: from, to, when'
    misspelt = '00000.yaml:4:8: unknown key "rule" in `spec`; did you mean `rules`?'
    more = f"00999.yaml: {10_000 - MAX_TOLD} further faults, in this file and behind it, are not listed"
    assert told["one file of a tebibyte"] == ["1", file_too_large, file_too_large]
    assert told["a thousand files of a gibibyte"][1].startswith(set_too_large)
    assert told["ten thousand faults in one file"][:2] == [str(MAX_FAULTS), faulty]
    assert told["ten thousand faulty files"] == [str(MAX_TOLD + 1), misspelt, f"{more}; mend those above first"]
    assert told["a value of fifteen mebibytes"] == ["1", file_too_large, file_too_large]
    assert told["a million documents in many files"][0] == "250"
    assert told["more token rules than a document may have"][0] == str(MAX_FAULTS)
    assert told["more token rules than a document may have"][1].startswith("f.yaml:4:18: more than 4096 jwtRules")
    assert len(told) == 7
