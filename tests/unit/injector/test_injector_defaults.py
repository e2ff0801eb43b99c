"""The defaults file: every fault with its place, and what is written is read again."""

from __future__ import annotations

import pytest
import yaml

from injector.defaults import as_document, read_defaults
from injector.ports import Ports
from injector.settings import Capture, Settings
from proxy.errors import ConfigError


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_gives_the_built_in_values(text: str) -> None:
    assert read_defaults(text.encode(), "d") == Settings()


def test_numbers_and_booleans_need_no_quotes() -> None:
    found = read_defaults(b"workers: 2\nnative-sidecar: false\nopaque-ports: 5432\ncapture: ports\n", "d")
    assert (found.workers, found.native_sidecar, found.opaque_ports) == (2, False, Ports.parse("5432"))
    assert found.capture is Capture.PORTS


def test_every_fault_has_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        read_defaults(b"workers: 0\nlog-levle: x\nimage: [a]\ncapture: all\n", "d")
    places = sorted((fault.line, fault.column) for fault in caught.value.faults)
    assert places == [(1, 10), (2, 1), (3, 8), (4, 10)]


@pytest.mark.parametrize(
    "text", ["- a\n", "x\n", "workers: 1\n---\nworkers: 2\n", "workers: 1\nworkers: 2\n", "a:\n\tb"]
)
def test_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"d:\d+:\d+: "):
        read_defaults(text.encode(), "d")


def test_what_cannot_hold_together_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"d:1:\d+: .*raise the limit"):
        read_defaults(b"memory-limit: 1Mi\n", "d")


def test_what_is_written_is_read_again() -> None:
    changed = Settings(workers=3, drain_timeout=90.0, opaque_ports=Ports.parse("1-5"), inbound_ports={80: "http"})
    assert as_document(Settings()) == {}
    assert read_defaults(yaml.safe_dump(as_document(changed)).encode(), "d") == changed
