"""Every contender gets the same two hops: mutual TLS between them, a JSON line per request, the same policy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import configs
from benchmarks.configs import CALLED_ID, CALLER_ID, Hop
from benchmarks.envoy import envoy, envoy_command
from certs.spiffe import SpiffeId, TrustDomain
from proxy.config import load_config
from proxy.policy.load import load
from proxy.policy.model import PolicyDefault, PolicySettings, Workload
from proxy.types import ConnectionAttributes, Denial, Generation, PeerIdentity, Permit, RequestAttributes


def hop(inbound: bool) -> Hop:
    return Hop(
        inbound=inbound,
        listen=15443 if inbound else 9001,
        next=8080 if inbound else 15443,
        health=15020,
        directory=Path("/bench: 1/hop"),
        identity=Path("/bench: 1/identity"),
    )


INBOUND, OUTBOUND = hop(True), hop(False)


def test_a_sidecar_reads_its_configuration() -> None:
    inbound = load_config(configs.remora(INBOUND)["remora.yaml"].encode(), "remora.yaml")
    outbound = load_config(configs.remora(OUTBOUND)["remora.yaml"].encode(), "remora.yaml")
    assert [(port.listen.port, port.app.port) for port in inbound.inbound] == [(15443, 8080)]
    [service] = outbound.outbound.services.values()
    assert service.mutual
    assert service.identities == {SpiffeId.parse(CALLED_ID)}
    assert [endpoint.port for endpoint in service.endpoints] == [15443]
    assert {config.telemetry.access_log for config in (inbound, outbound)} == {"/bench: 1/hop/access.log"}


def test_a_lone_sidecar_has_a_port_and_a_service_and_the_limits_that_were_asked_for() -> None:
    files = configs.sidecar(
        Path("/bench: 1/lone"),
        Path("/bench: 1/identity"),
        account=configs.CALLED,
        health=15020,
        inbound=(15443, 8080),
        outbound=(9001, 15444),
        limits={"pool_connections": 10_000, "mesh_idle_timeout": "1h"},
    )
    config = load_config(files[configs.CONFIG_FILE].encode(), configs.CONFIG_FILE)
    assert len(config.inbound) == len(config.outbound.listeners) == 1
    assert (config.limits.pool_connections, config.limits.mesh_idle_timeout) == (10_000, 3_600.0)
    assert files["policy/policies.yaml"] == configs.POLICY


@pytest.mark.parametrize(
    ("caller", "path", "allowed"),
    [
        (CALLER_ID, "/orders/42", True),
        (CALLER_ID, configs.DENIED_PREFIX + "/round-1", False),
        (CALLED_ID, "/orders/42", False),
    ],
)
def test_the_policy_lets_the_load_through_and_denies_the_probe(caller: str, path: str, allowed: bool) -> None:
    snapshot = load(
        {"policies.yaml": configs.POLICY.encode()},
        workload=Workload(
            namespace=configs.NAMESPACE,
            service_account=configs.CALLED,
            name="",
            labels={},
            trust_domain=TrustDomain(configs.TRUST_DOMAIN),
        ),
        settings=PolicySettings(default=PolicyDefault.DENY),
        generation=Generation(1),
    )
    peer = PeerIdentity(spiffe_id=SpiffeId.parse(caller), not_after=4e9, serial="01", fingerprint="00" * 32)
    connection = ConnectionAttributes(
        peer=peer, source_ip="127.0.0.1", destination_ip="127.0.0.1", destination_port=8080
    )
    verdict = snapshot.request(connection, RequestAttributes(method="GET", path=path, host="orders", headers=()))
    assert isinstance(verdict, Permit if allowed else Denial)


def test_nginx_verifies_both_ends_and_keeps_connections() -> None:
    inbound, outbound = (configs.nginx(item, log=True, as_root=False)["nginx.conf"] for item in (INBOUND, OUTBOUND))
    assert "ssl_verify_client on;" in inbound
    assert "proxy_pass http://next_hop;" in inbound
    assert "proxy_ssl_verify on;" in outbound
    assert "proxy_pass https://next_hop;" in outbound
    for text in (inbound, outbound):
        assert text.count("{") == text.count("}")
        assert "TLSv1.3;" in text
        assert "keepalive 128;" in text
        assert text.count(f"keepalive_requests {configs.KEPT_REQUESTS};") == 2
        assert "user root;" not in text


def test_nginx_logs_json_or_nothing() -> None:
    logged = configs.nginx(INBOUND, log=True, as_root=True)["nginx.conf"]
    [line] = re.findall(r"log_format mesh escape=json '(.*)';", logged)
    assert json.loads(line)["response_code"] == "$status"
    assert f"access_log {INBOUND.log} mesh buffer=64k flush=1s;" in logged
    assert "user root;" in logged
    bare = configs.nginx(INBOUND, log=False, as_root=True)["nginx.conf"]
    assert re.findall(r"access_log .*;", bare) == ["access_log off;"]


def test_the_application_returns_a_body_and_logs_nothing() -> None:
    text = configs.application(8080, Path("/app"), as_root=False)
    assert "listen 127.0.0.1:8080;" in text
    assert json.dumps(configs.BODY) in text
    assert "access_log off;" in text


def test_haproxy_verifies_both_ends_and_logs_json() -> None:
    inbound, outbound = (configs.haproxy(item)["haproxy.cfg"] for item in (INBOUND, OUTBOUND))
    [bind] = re.findall(r"^    bind .*$", inbound, re.M)
    assert "verify required" in bind
    assert "ssl-min-ver TLSv1.3" in bind
    [server] = re.findall(r"^    server .*$", outbound, re.M)
    assert "verify required verifyhost orders" in server
    [line] = re.findall(r'^    log-format "(.*)"$', outbound, re.M)
    assert json.loads(line.replace('\\"', '"'))["response_code"] == "%ST"


def listener_and_cluster(item: Hop) -> tuple[dict[str, Any], dict[str, Any]]:
    resources = json.loads(envoy(item)["envoy.json"])["static_resources"]
    return resources["listeners"][0]["filter_chains"][0], resources["clusters"][0]


def test_envoy_verifies_identities_at_both_ends() -> None:
    listener, plain_cluster = listener_and_cluster(INBOUND)
    plain_listener, cluster = listener_and_cluster(OUTBOUND)
    assert "transport_socket" not in plain_cluster
    assert "transport_socket" not in plain_listener
    server, client = (part["transport_socket"]["typed_config"] for part in (listener, cluster))
    assert server["require_client_certificate"] is True
    for end, peer in ((server, CALLER_ID), (client, CALLED_ID)):
        [matcher] = end["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
        assert matcher == {"san_type": "URI", "matcher": {"exact": peer}}


def test_envoy_judges_inbound_and_logs_json_in_both_hops() -> None:
    for item, names in ((INBOUND, ["rbac-deny", "rbac-allow"]), (OUTBOUND, [])):
        listener, _ = listener_and_cluster(item)
        manager = listener["filters"][0]["typed_config"]
        assert [part["name"] for part in manager["http_filters"]] == [*names, "envoy.filters.http.router"]
        [log] = manager["access_log"]
        assert log["typed_config"]["path"] == str(item.log)
        assert "response_code" in log["typed_config"]["log_format"]["json_format"]


def test_envoy_runs_one_worker() -> None:
    command = envoy_command("/usr/bin/envoy", INBOUND)
    assert command[command.index("--concurrency") + 1] == "1"
    assert command[command.index("--config-path") + 1] == str(INBOUND.directory / "envoy.json")
