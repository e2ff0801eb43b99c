"""Where everything is: the ports, and configuration files that the sidecar takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_samples import LAYOUT, spiffe

from demo.layout import PORTS, WORKLOADS, Layout, identity_of
from proxy.config import load_config
from proxy.config_values import IdentityAuthority


def test_a_port_tells_whose_it_is() -> None:
    assert [LAYOUT.port(f"{name}_app") for name in WORKLOADS] == [21_010, 21_020, 21_030]
    assert LAYOUT.url("orders_health", "/metrics") == "http://127.0.0.1:21022/metrics"
    assert len(set(PORTS.values())) == len(PORTS)


def test_an_unknown_port_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        LAYOUT.port("web_to_nobody")


def test_the_configurations_join_the_workloads() -> None:
    configs = {name: load_config(LAYOUT.sidecar_configuration(name).encode(), name) for name in WORKLOADS}
    for name, config in configs.items():
        assert config.workload.service_account == name
        assert config.workload.labels == {"app": name}
        assert [port.app.port for port in config.inbound] == [LAYOUT.port(f"{name}_app")]
        assert config.policy.default == "deny"
        assert isinstance(config.identity, IdentityAuthority)
        assert config.identity.url == LAYOUT.url("authority", scheme="https")
        for service in config.outbound.services.values():
            assert [endpoint.port for endpoint in service.endpoints] == [LAYOUT.port(f"{service.name}_mesh")]
            assert [str(identity) for identity in service.identities] == [identity_of(service.name)]
    listeners = {
        (name, item.service): item.listen.port for name in WORKLOADS for item in configs[name].outbound.listeners
    }
    assert listeners == {
        ("web", "orders"): LAYOUT.port("web_to_orders"),
        ("web", "ledger"): LAYOUT.port("web_to_ledger"),
        ("orders", "ledger"): LAYOUT.port("orders_to_ledger"),
    }


@pytest.mark.parametrize("name", ['with "quotes" and: colons', "with $dollars and #hashes", "ünïcode \\ and\ttabs"])
def test_a_directory_may_have_any_name(name: str) -> None:
    layout = Layout(directory=Path("/tmp") / name, base=21_000)
    config = load_config(layout.sidecar_configuration("web").encode(), "web")
    assert isinstance(config.identity, IdentityAuthority)
    assert config.identity.token_file == str(layout.token("web"))
    assert config.identity.bundle_file == str(layout.bundle)
    assert config.telemetry.access_log == str(layout.access_log("web"))


def test_the_applications_are_told_where_their_sidecar_listens() -> None:
    assert LAYOUT.application_arguments("ledger") == ["ledger", "--listen", "21030"]
    assert LAYOUT.application_arguments("orders") == ["orders", "--listen", "21020", "--ledger", "21024"]
    assert LAYOUT.application_arguments("web")[3:] == ["--orders", "21014", "--ledger", "21015"]


def test_paths_are_short_for_a_reader_who_knows_the_directory() -> None:
    assert LAYOUT.short("see /somewhere/mesh/policies/orders.yaml:3 and /elsewhere") == (
        "see policies/orders.yaml:3 and /elsewhere"
    )
    assert identity_of("web") == spiffe("web")
