"""What keeps the webhook from starting, or from being ready, is said: at the command line, at /readyz, in the log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from injector_process import ROOT, InjectorProcess, eventually

from tests.reviews import encoded, patch_of, response_of, review_of


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[InjectorProcess]:
    made = InjectorProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def refused(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "remora", "injector", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_without_a_certificate_it_does_not_start_and_names_both_files(tmp_path: Path) -> None:
    code, told = refused("serve", "--listen", "127.0.0.1:0", "--tls-directory", str(tmp_path))
    assert code == 1
    assert f"{tmp_path}/tls.crt" in told
    assert f"{tmp_path}/tls.key" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--listen", "nowhere"], "--listen: "),
        (["--listen", "127.0.0.1:0", "--drain", "soon"], "--drain: "),
        (["--listen", "127.0.0.1:0", "--kube", "in-cluster"], "--kube needs --tls-secret, --webhook, --service too"),
        (["--listen", "127.0.0.1:0", "--kube-ca-file", "ca.crt"], "--kube-ca-file needs --kube"),
        (
            ["--listen", "127.0.0.1:0", "--kube", "ftp://x", "--tls-secret", "a", "--webhook", "b", "--service", "c"],
            "is no address of an API server",
        ),
    ],
    ids=["listen", "drain", "kube-alone", "kube-missing", "kube-address"],
)
def test_arguments_that_make_no_webhook_are_refused_with_the_mend(tmp_path: Path, words: list[str], told: str) -> None:
    code, said = refused("serve", "--tls-directory", str(tmp_path), *words)
    assert code == 2
    assert told in said


def test_it_is_not_ready_until_what_is_to_be_mounted_is_there(injector: InjectorProcess) -> None:
    injector.issue()
    injector.start(*injector.mounted)
    status, told = injector.page("/readyz")
    assert status == 503
    assert f"defaults: {injector.defaults}: " in told
    assert f"trust bundle: {injector.bundle}: " in told
    with injector.api_server() as api:
        assert api.post(encoded(review_of()))[0] == 503
        injector.mount()
        eventually(lambda: injector.page("/readyz")[0] == 200, "ready")
        assert api.post(encoded(review_of()))[0] == 200
    assert 'remora_injector_requests_unanswered_total{reason="not_ready"} 1.0' in injector.page("/metrics")[1]


def test_new_defaults_hold_for_the_next_pod_and_bad_ones_change_nothing(injector: InjectorProcess) -> None:
    injector.issue()
    injector.start(*injector.mount())

    def image() -> str:
        patch = patch_of(response_of(api.post(encoded(review_of()))[1]))
        added = next(each["value"] for each in patch if each["path"] == "/spec/initContainers")
        return str(added[1]["image"])

    with injector.api_server() as api:
        assert image() == "remora:0.1.0"
        injector.defaults.write_text("image: remora:0.2.0\n")
        eventually(lambda: image() == "remora:0.2.0", "the new image")
        injector.defaults.write_text("image: remora:0.3.0\nlog-level: loud\n")
        eventually(lambda: "rejected: defaults" in injector.page("/readyz")[1], "rejected")
        assert image() == "remora:0.2.0"
        status, told = injector.page("/readyz")
        assert (status, f"{injector.defaults}:2:" in told) == (200, True)
        assert 'remora_injector_files_rejected{kind="defaults"} 1.0' in injector.page("/metrics")[1]
        injector.defaults.write_text("image: remora:0.4.0\n")
        eventually(lambda: image() == "remora:0.4.0", "the newest image")
    assert "rejected: defaults" not in injector.page("/readyz")[1]
    assert 'remora_injector_files_rejected{kind="defaults"} 0.0' in injector.page("/metrics")[1]


def test_the_table_of_annotations_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remora", "injector", "annotations"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("| annotation | value | default | meaning |\n")
    assert "| `remora.io/log-level` | " in done.stdout
