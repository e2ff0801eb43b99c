"""`remora inject` and `remora uninject`: exit codes, what is printed where, and nothing half done."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from injector import inject_cli, uninject_cli

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app}]}\n"
HOST = POD.replace("spec: {", "spec: {hostNetwork: true, ").replace("web", "host")
SERVICE = "apiVersion: v1\nkind: Service # kept\nmetadata: {name: web}"
BAD = POD.replace("{name: web}", "{name: bad, annotations: {remora.io/log-level: loud}}")
Captured = pytest.CaptureFixture[str]


def written(directory: Path, **files: str) -> list[str]:
    found = []
    for name, text in files.items():
        path = directory / f"{name}.yaml"
        path.write_text(text)
        found += ["-f", str(path)]
    return found


def test_a_pod_is_printed_with_its_sidecar_and_taken_out_it_is_as_before(tmp_path: Path, capsys: Captured) -> None:
    assert inject_cli.main(written(tmp_path, pod=POD)) == 0
    out, err = capsys.readouterr()
    assert "remora-proxy" in out
    assert "pod default/web: injected: nothing says otherwise\n" in err
    assert uninject_cli.main(written(tmp_path, made=out)) == 0
    out, err = capsys.readouterr()
    assert "remora" not in out
    assert "its sidecar was taken out" in err


def test_several_files_stay_several_documents(tmp_path: Path, capsys: Captured) -> None:
    assert inject_cli.main(written(tmp_path, a=SERVICE, b=HOST, c=SERVICE)) == 0
    out, err = capsys.readouterr()
    assert out == f"{SERVICE}\n---\n{HOST}---\n{SERVICE}"
    assert "pod default/host: not injected: hostNetwork" in err


def test_a_directory_is_its_manifests_by_name(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, b=HOST, a=SERVICE)
    (tmp_path / "notes.txt").write_text("{")
    assert inject_cli.main(["-f", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{SERVICE}\n---\n{HOST}"


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SERVICE.encode())))
    assert inject_cli.main(["-f", "-"]) == 0
    out, err = capsys.readouterr()
    assert out == SERVICE
    assert "there is no pod in these manifests" in err
    assert inject_cli.main(["-f", "-", "-f", "-"]) == 2
    assert "stands twice" in capsys.readouterr().err


def test_with_one_pod_refused_nothing_is_printed(tmp_path: Path, capsys: Captured) -> None:
    assert inject_cli.main(written(tmp_path, a=POD, b=BAD)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert 'pod default/bad: refused: the annotation remora.io/log-level is "loud": write one of' in err
    assert "nothing is printed" in err


def test_a_forged_record_is_refused(tmp_path: Path, capsys: Captured) -> None:
    forged = POD.replace("{name: web}", '{name: web, annotations: {remora.io/status: "{}"}}')
    for command in (inject_cli.main, uninject_cli.main):
        assert command(written(tmp_path, pod=forged)) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "refused: the annotation remora.io/status holds no record" in err


@pytest.mark.parametrize("command", [inject_cli.main, uninject_cli.main])
def test_every_fault_of_every_file_is_named_with_its_place(command: object, tmp_path: Path, capsys: Captured) -> None:
    assert command(written(tmp_path, a="x: 1\nx: 2", b="a:\n\tb", c=POD)) == 2  # type: ignore[operator]
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path}/a.yaml:2:1: " in err
    assert f"{tmp_path}/b.yaml:2:1: " in err


def test_what_is_not_there_or_has_nothing_in_it_is_named(tmp_path: Path, capsys: Captured) -> None:
    assert inject_cli.main(["-f", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err
    assert inject_cli.main(["-f", str(tmp_path)]) == 2
    assert "no .yaml, .yml, .json file is in it" in capsys.readouterr().err


def test_a_directory_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert inject_cli.main(["-f", str(tmp_path)]) == 2
    assert f"{tmp_path}: Permission denied" in capsys.readouterr().err


def test_a_fault_of_the_defaults_has_line_and_column(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "d").write_text("log-level: info\ncapture: all\n")
    assert inject_cli.main([*written(tmp_path, pod=POD), "--defaults", str(tmp_path / "d")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "d:2:10: " in err


@pytest.mark.parametrize("bundle", ["", "x", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"])
def test_a_bundle_that_is_none_or_holds_a_key_is_refused(bundle: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "b.pem").write_text(bundle)
    assert inject_cli.main([*written(tmp_path, pod=POD), "--trust-bundle", str(tmp_path / "b.pem")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "b.pem" in err
    assert "MIIB" not in err
