"""The sidecar's container, its capture step and its volumes: what a setting changes, least privilege in any case."""

from __future__ import annotations

from typing import Any

import pytest

from injector import names, sidecar
from injector.ports import Ports
from injector.settings import Settings


def proxy(**settings: Any) -> Any:
    return sidecar.proxy(Settings(**settings))


def flags(**settings: Any) -> dict[str, str]:
    container: Any = sidecar.capture(Settings(**settings))
    arguments = container["args"][2:]
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


@pytest.mark.parametrize("native", [True, False])
def test_neither_container_may_more_than_it_needs(native: bool) -> None:
    settings = Settings(native_sidecar=native)
    for container, user in ((sidecar.proxy(settings), 1337), (sidecar.capture(settings), 0)):
        context: Any = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["privileged"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (context["runAsUser"], context["runAsGroup"]) == (user, user)
        assert context["runAsNonRoot"] is (user != 0)
    assert "add" not in proxy(native_sidecar=native)["securityContext"]["capabilities"]
    mounts: Any = proxy(native_sidecar=native)["volumeMounts"]
    assert all(mount["readOnly"] for mount in mounts)
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in sidecar.volumes(settings)}


def test_a_native_sidecar_stays_and_is_waited_for_by_its_startup_probe() -> None:
    made = proxy()
    assert made["restartPolicy"] == "Always"
    assert made["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 15020}
    assert "postStart" not in made["lifecycle"]


@pytest.mark.parametrize("hold", [True, False])
def test_a_plain_sidecar_holds_the_application_by_its_hook(hold: bool) -> None:
    made = proxy(native_sidecar=False, hold_application=hold)
    assert not {"restartPolicy", "startupProbe"} & set(made)
    assert ("postStart" in made["lifecycle"]) is hold
    if hold:
        assert made["lifecycle"]["postStart"]["exec"]["command"] == ["remora", "proxy", "wait", "--timeout", "300s"]


def test_a_setting_changes_what_it_says_and_nothing_else() -> None:
    assert proxy(image="r/x:1")["image"] == "r/x:1"
    assert proxy(image_pull_policy="Never")["imagePullPolicy"] == "Never"
    assert "imagePullPolicy" not in proxy()
    assert proxy(log_level="debug")["args"] == [
        *("proxy", "run", "--config", "/etc/remora/pod/config.yaml", "--log-level", "debug")
    ]
    assert proxy(drain_timeout=90.0)["lifecycle"]["preStop"]["exec"]["command"][-1] == "90s"


@pytest.mark.parametrize(
    ("settings", "resources"),
    [
        ({}, {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}),
        (
            {"cpu_limit": "2", "memory_limit": ""},
            {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2"}},
        ),
        ({"cpu_request": "", "memory_request": "", "memory_limit": ""}, {}),
    ],
)
def test_resources_are_written_where_they_are_set(settings: dict[str, str], resources: object) -> None:
    assert proxy(**settings)["resources"] == resources


def test_the_capture_step_is_told_what_is_set() -> None:
    assert flags() == {
        "--inbound-port": "15006",
        "--outbound-port": "15001",
        "--uid": "1337",
        "--gid": "1337",
        "--include-inbound-ports": "*",
        "--exclude-inbound-ports": "15020",
        "--include-outbound-ip-ranges": "0.0.0.0/0,::/0",
    }
    found = flags(
        include_inbound_ports=Ports.parse("80"),
        exclude_inbound_ports=Ports.parse("22,15021"),
        include_outbound_ports=Ports.parse("443"),
        exclude_outbound_ports=Ports.parse("25"),
        include_outbound_ip_ranges=("10.0.0.0/8",),
        exclude_outbound_ip_ranges=("10.1.0.0/16", "fd00::/8"),
        exclude_interfaces=("eth1", "net0"),
    )
    assert found["--include-inbound-ports"] == "80"
    assert found["--exclude-inbound-ports"] == "22,15020-15021"
    assert found["--include-outbound-ports"] == "443"
    assert found["--exclude-outbound-ports"] == "25"
    assert found["--include-outbound-ip-ranges"] == "10.0.0.0/8"
    assert found["--exclude-outbound-ip-ranges"] == "10.1.0.0/16,fd00::/8"
    assert found["--exclude-interfaces"] == "eth1,net0"


def test_volumes_name_what_is_set() -> None:
    found: dict[str, Any] = {
        str(volume["name"]): volume
        for volume in sidecar.volumes(
            Settings(
                policy_config_map="p",
                services_config_map="s",
                token_audience="a",
                token_lifetime=600.0,
            )
        )
    }
    [source] = found[names.VOLUME_TOKEN]["projected"]["sources"]
    assert source["serviceAccountToken"] == {"audience": "a", "expirationSeconds": 600, "path": "token"}
    assert found[names.VOLUME_POLICY]["configMap"] == {"name": "p", "optional": True}
    assert found[names.VOLUME_SERVICES]["configMap"] == {"name": "s", "optional": True}
    items = {each["path"]: each["fieldRef"]["fieldPath"] for each in found[names.VOLUME_POD]["downwardAPI"]["items"]}
    assert items["config.yaml"] == "metadata.annotations['remora.io/sidecar-config']"
    assert items["bundle.pem"] == "metadata.annotations['remora.io/trust-bundle']"
    assert items["namespace"] == "metadata.namespace"
