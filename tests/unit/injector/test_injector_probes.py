"""Probes and hooks rewritten: the sidecar performs what the kubelet would have done."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from injector.probes import ProbeError, rewrite

PORTS = [{"name": "web", "containerPort": 8080}, {"name": "bad", "containerPort": 70000}]


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "app", "ports": PORTS, **fields}


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ({"httpGet": {"port": "web"}}, {"http_get": {"port": 8080, "path": "/"}}),
        ({"httpGet": {"port": "80", "path": "/z"}}, {"http_get": {"port": 80, "path": "/z"}}),
        ({"httpGet": {"port": 1, "scheme": "https"}}, {"http_get": {"port": 1, "path": "/", "scheme": "HTTPS"}}),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "A", "value": "b"}, 5]}},
            {"http_get": {"port": 1, "path": "/", "headers": [{"name": "A", "value": "b"}]}},
        ),
        ({"tcpSocket": {"port": 65535}}, {"tcp_socket": {"port": 65535}}),
        ({"grpc": {"port": 9}}, {"grpc": {"port": 9}}),
        ({"grpc": {"port": 9, "service": "s"}}, {"grpc": {"port": 9, "service": "s"}}),
    ],
)
@pytest.mark.parametrize(
    ("field", "word"), [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")]
)
def test_a_probe_asks_us_and_we_ask_the_application(field: str, word: str, action: Any, asked: Any) -> None:
    before = container(**{field: {"periodSeconds": 5, **action, "timeoutSeconds": 3}})
    kept = copy.deepcopy(before)
    made = rewrite(before)
    path = f"/app-health/app/{word}"
    assert made.probes == ({"path": path, **asked, "timeout": "3s"},)
    assert list(made.container[field].items()) == [  # type: ignore[attr-defined]
        ("periodSeconds", 5),
        ("httpGet", {"path": path, "port": 15020}),
        ("timeoutSeconds", 3),
    ]
    assert before == kept
    assert made.before == {field: kept[field]}


@pytest.mark.parametrize("seconds", [None, 0, -1, "3", True])
def test_a_timeout_that_is_none_is_one_second(seconds: object) -> None:
    [asked] = rewrite(container(livenessProbe={"grpc": {"port": 9}, "timeoutSeconds": seconds})).probes
    assert asked["timeout"] == "1s"


def test_a_timeout_is_no_longer_than_the_sidecar_takes() -> None:
    [asked] = rewrite(container(livenessProbe={"grpc": {"port": 9}, "timeoutSeconds": 2**31 - 1})).probes
    assert asked["timeout"] == "1h"


@pytest.mark.parametrize("port", [0, 70000, -1, True, None, 8.5, "0", "99999", "9" * 5000, "", [], {}, "bad"])
@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
def test_a_port_that_is_none_is_refused_with_the_field(kind: str, port: object) -> None:
    with pytest.raises(ProbeError, match=rf"^livenessProbe.{kind} of container app asks the port ") as caught:
        rewrite(container(livenessProbe={kind: {"port": port}}))
    assert len(str(caught.value)) < 300


def test_a_name_that_another_container_declares_is_refused() -> None:
    with pytest.raises(ProbeError, match="which the container does not declare"):
        rewrite(container(livenessProbe={"tcpSocket": {"port": "other"}}))


@pytest.mark.parametrize(
    "probe", [{"exec": {"command": ["x"]}}, {}, None, "x", [], {"httpGet": None}, {"httpGet": "x"}]
)
def test_what_asks_nothing_over_the_network_stays(probe: object) -> None:
    made = rewrite(container(livenessProbe=probe, lifecycle=probe))
    assert (made.container, made.probes, made.before) == (container(livenessProbe=probe, lifecycle=probe), (), None)


@pytest.mark.parametrize("action", [{"port": 80, "host": "db"}, {"port": 15020}])
def test_a_probe_of_another_host_or_of_the_sidecar_stays_and_is_named(action: dict[str, object]) -> None:
    made = rewrite(container(livenessProbe={"httpGet": action}))
    assert made.before is None
    [warning] = made.warnings
    assert "stays as it is" in warning


def test_hooks_over_http_are_rewritten_and_those_over_tcp_are_named() -> None:
    lifecycle = {"postStart": {"httpGet": {"port": "web"}}, "preStop": {"tcpSocket": {"port": 1}}}
    made = rewrite(container(lifecycle=lifecycle))
    assert made.container["lifecycle"] == {
        "postStart": {"httpGet": {"path": "/app-health/app/poststartz", "port": 15020}},
        "preStop": {"tcpSocket": {"port": 1}},
    }
    assert [probe["timeout"] for probe in made.probes] == ["30s"]
    assert made.before == {"lifecycle": lifecycle}
    assert "never does" in made.warnings[0]
