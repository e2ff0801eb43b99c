"""What is compiled, when, and that nothing else changes by it."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import setuptools  # type: ignore[import-untyped]

import remora

ROOT = Path(__file__).parents[2]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Read setup.py as an installer does, but build nothing."""
    monkeypatch.delenv("REMORA_COMPILE", raising=False)
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(setuptools, "setup", lambda **words: asked.append(words))
    spec = importlib.util.spec_from_file_location("remora_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.asked = asked  # type: ignore[attr-defined]
    return module


def test_nothing_is_compiled_unless_asked_for(build: ModuleType) -> None:
    assert build.asked == [{"ext_modules": []}]
    assert build.extensions("0") == []


@pytest.mark.parametrize("value", ["yes", "true", "2", " 1"])
def test_a_value_that_nobody_knows_builds_nothing(build: ModuleType, value: str) -> None:
    with pytest.raises(SystemExit, match="set it to 1"):
        build.extensions(value)


def test_without_the_compiler_the_build_says_what_it_needs(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mypyc", None)
    monkeypatch.setitem(sys.modules, "mypyc.build", None)
    with pytest.raises(SystemExit, match="needs mypy"):
        build.extensions("1")


def test_the_list_is_of_files_that_are_there_each_once_in_order(build: ModuleType) -> None:
    assert list(build.COMPILED) == sorted(set(build.COMPILED))
    assert [name for name in build.COMPILED if not (ROOT / name).is_file()] == []


def _faults(tree: ast.Module) -> list[str]:
    """Find what stops mypyc, or makes the compiled form another one than the pure one."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [item.arg for item in arguments if item.annotation is None and item.arg not in ("self", "cls")]
            if node.returns is None or bare:
                faults.append(f"line {node.lineno}: {node.name} is not typed")
        if isinstance(node, ast.Attribute) and node.attr == "_thread":
            faults.append(f"line {node.lineno}: `_thread` becomes a word of C")
        if isinstance(node, ast.ClassDef):
            names = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if names & {"OSError", "ValueError", "int", "str", "bytes", "dict", "list", "tuple", "deque"}:
                faults.append(f"line {node.lineno}: {node.name} is a subclass of a builtin, which cannot be compiled")
    return faults


@pytest.mark.parametrize(
    "source",
    [
        "def f(a) -> None: ...",
        "def f(a: int): ...",
        "class A:\n    def __init__(self) -> None:\n        self._thread = 1",
        "class Gone(OSError): ...",
    ],
)
def test_a_fault_is_found(source: str) -> None:
    assert len(_faults(ast.parse(source))) == 1


def test_what_is_compiled_can_be(build: ModuleType) -> None:
    found = {name: _faults(ast.parse((ROOT / name).read_text())) for name in build.COMPILED}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_what_a_compiled_class_builds_upon_is_compiled_too(build: ModuleType) -> None:
    """Else mypyc knows nothing of the attributes that it inherits."""
    for name in build.COMPILED:
        tree = ast.parse((ROOT / name).read_text())
        origins = {
            alias.asname or alias.name: f"{node.module.replace('.', '/')}.py"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("proxy.")
            for alias in node.names
        }
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        bases = [base.id for node in classes for base in node.bases if isinstance(base, ast.Name)]
        outside = {origins[base] for base in bases if base in origins} - set(build.COMPILED)
        assert outside == set(), f"{name} builds upon what setup.py does not compile"


@pytest.mark.parametrize(
    ("suffix", "words"),
    [(".py", "pure Python"), (importlib.machinery.EXTENSION_SUFFIXES[0], "byte path compiled by mypyc")],
)
def test_version_says_which_form_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str, words: str
) -> None:
    folder = tmp_path / "proxy" / "forward"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py", folder / "http.py", folder / f"http{suffix}"):
        path.touch()
    found = importlib.machinery.PathFinder.find_spec("proxy", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert remora.main(["version"]) == 0
    first, interpreter, _ = capsys.readouterr().out.splitlines()
    assert first.endswith(f", {words}")
    assert "build" in interpreter


def test_version_says_when_there_is_no_proxy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert remora.main(["version"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(", without the proxy")
