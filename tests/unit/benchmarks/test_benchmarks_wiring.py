"""Every setup of ours is read by our own loaders, lets the load through, denies the probe; peers verify both ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import configs, configs_tcp, policies, wiring
from benchmarks.compiled import CompiledForm
from benchmarks.configs import CALLED_ID, CALLER_ID, Hop
from benchmarks.drive import path_of
from benchmarks.envoy import envoy, envoy_tcp
from benchmarks.matrix import COMPILED, REFERENCE, REMORA, Setup, setups, usual
from benchmarks.policies import DENIED_SOURCE
from benchmarks.probes import denied_path
from certs.spiffe import SpiffeId, TrustDomain
from proxy.config import load_config
from proxy.policy.load import load
from proxy.policy.model import PolicyDefault, PolicySettings, Workload
from proxy.types import ConnectionAttributes, Denial, Generation, PeerIdentity, Permit, RequestAttributes

FORM = CompiledForm(python="/second/bin/python", version="remora 0.1.0, byte path compiled by mypyc; CPython 3.11.2")
OURS = [setup for setup in setups() if setup.contender in REMORA and setup.sides == "both"]
TEMPLATE: dict[str, Any] = {"health": 15020, "directory": Path("/bench/hop"), "identity": Path("/bench/identity")}
INBOUND = Hop(inbound=True, listen=15443, next=8080, **TEMPLATE)
OUTBOUND = Hop(inbound=False, listen=9001, next=15443, **TEMPLATE)


@pytest.mark.parametrize("setup", OURS, ids=lambda setup: setup.name)
def test_a_sidecar_reads_what_is_written_for_it(setup: Setup) -> None:
    inbound, outbound = (
        load_config(wiring.wire(setup, hop, FORM).files[configs.CONFIG_FILE].encode(), configs.CONFIG_FILE)
        for hop in (INBOUND, OUTBOUND)
    )
    [service] = outbound.outbound.services.values()
    assert service.mutual is setup.tls
    protocol = setup.contender.removeprefix("remora-")
    assert [port.protocol.value for port in inbound.inbound] == [protocol] == [service.protocol.value]
    for config in (inbound, outbound):
        assert config.telemetry.access_log == ("/bench/hop/access.log" if setup.log else "off")
        assert config.policy.default == ("deny" if setup.rules else "allow-all")


@pytest.mark.parametrize("setup", [setup for setup in OURS if setup.log], ids=lambda setup: setup.name)
def test_its_policy_lets_the_load_through_and_denies_the_probe(setup: Setup) -> None:
    text = wiring.wire(setup, INBOUND, FORM).files["policy/policies.yaml"]
    snapshot = load(
        {"policies.yaml": text.encode()},
        workload=Workload(
            namespace=configs.NAMESPACE,
            service_account=configs.CALLED,
            name="",
            labels={},
            trust_domain=TrustDomain(configs.TRUST_DOMAIN),
        ),
        settings=PolicySettings(default=PolicyDefault.DENY if setup.rules else PolicyDefault.ALLOW_ALL),
        generation=Generation(1),
    )
    documents = [json.loads(part) for part in text.split("---\n") if part]
    written = sum(len(document["spec"].get("rules", ())) for document in documents)
    assert written == setup.rules
    peer = PeerIdentity(spiffe_id=SpiffeId.parse(CALLER_ID), not_after=4e9, serial="01", fingerprint="00" * 32)

    def ask(path: str, source: str) -> Permit | Denial:
        connection = ConnectionAttributes(
            peer=peer if setup.tls else None, source_ip=source, destination_ip="127.0.0.1", destination_port=8080
        )
        if setup.contender == "remora-tcp":
            return snapshot.connection(connection)
        return snapshot.request(connection, RequestAttributes(method="GET", path=path, host="orders", headers=()))

    assert isinstance(ask(path_of(REFERENCE), "127.0.0.1"), Permit)
    if setup.rules:
        probe = ask(denied_path(1), DENIED_SOURCE)
        assert isinstance(probe, Denial)


def test_what_is_not_pooled_keeps_no_connection_between_hops() -> None:
    pooled, fresh = (
        configs.nginx(OUTBOUND, log=False, as_root=False, pooled=kept)["nginx.conf"] for kept in (True, False)
    )
    assert "keepalive 128;" in pooled
    assert "keepalive 128;" not in fresh
    assert fresh.count("{") == fresh.count("}")
    assert "http-reuse never" in configs.haproxy(OUTBOUND, pooled=False)["haproxy.cfg"]


def test_the_application_has_every_payload() -> None:
    text = configs.application(8080, Path("/app"), as_root=False, payloads=[0, 1024])
    assert 'location = /orders/0 { return 200 ""; }' in text
    assert "location = /orders/1024 { alias /app/payload-1024; }" in text


def test_tunnels_verify_both_ends() -> None:
    inbound, outbound = (configs_tcp.nginx_tcp(hop, as_root=False)["nginx.conf"] for hop in (INBOUND, OUTBOUND))
    assert "ssl_verify_client on;" in inbound
    assert "proxy_ssl_verify on;" in outbound
    inbound, outbound = (configs_tcp.haproxy_tcp(hop)["haproxy.cfg"] for hop in (INBOUND, OUTBOUND))
    assert "verify required ssl-min-ver" in inbound
    assert "verify required verifyhost orders" in outbound
    inbound, outbound = (configs_tcp.stunnel(hop)["stunnel.conf"] for hop in (INBOUND, OUTBOUND))
    assert "requireCert = yes" in inbound
    assert "checkHost = orders" in outbound
    assert "verifyChain = yes" in inbound
    assert f"--allow-uri={CALLER_ID}" in configs_tcp.ghostunnel_command("ghostunnel", INBOUND)
    assert f"--verify-uri={CALLED_ID}" in configs_tcp.ghostunnel_command("ghostunnel", OUTBOUND)


def filters(files: dict[str, str]) -> list[dict[str, Any]]:
    listener = json.loads(files["envoy.json"])["static_resources"]["listeners"][0]
    found: list[dict[str, Any]] = listener["filter_chains"][0]["filters"]
    return found


@pytest.mark.parametrize("rules", [10, 1_000])
def test_envoy_judges_by_as_many_rules(rules: int) -> None:
    manager = filters(envoy(INBOUND, rules=rules))[0]["typed_config"]
    http = [item["typed_config"]["rules"] for item in manager["http_filters"][:-1]]
    tcp = [item["typed_config"]["rules"] for item in filters(envoy_tcp(INBOUND, rules=rules))[:-1]]
    for found in (http, tcp):
        assert [item["action"] for item in found] == ["DENY", "ALLOW"]
        assert sum(len(item["policies"]) for item in found) == rules
    assert CALLER_ID in json.dumps(list(tcp[1]["policies"].values())[-1])
    assert policies.prefixes(rules - 1)[-1] in json.dumps(list(http[1]["policies"].values())[-1])


def test_envoys_tcp_proxy_judges_inbound_only_and_logs_in_both_hops() -> None:
    assert [item["name"] for item in filters(envoy_tcp(INBOUND, rules=10))] == ["rbac-0", "rbac-1", "tcp"]
    [proxy] = filters(envoy_tcp(OUTBOUND, rules=10))
    [log] = proxy["typed_config"]["access_log"]
    assert log["typed_config"]["path"] == "/bench/hop/access.log"
    assert "%REQ(" not in json.dumps(log)


def test_a_helper_does_the_other_half_and_a_floor_does_none() -> None:
    assert wiring.forwarder(INBOUND)[-2:] == ["--accept-tls", "/bench/identity"]
    assert wiring.forwarder(OUTBOUND)[-2:] == ["--dial-tls", "/bench/identity"]
    assert wiring.forwarder(OUTBOUND, loop="asyncio", tls=False)[-2:] == ["--loop", "asyncio"]


@pytest.mark.parametrize(
    ("setup", "judges", "reads"),
    [
        (usual("remora-http"), True, True),
        (usual(COMPILED), True, True),
        (usual("remora-tcp"), True, False),
        (Setup(contender="remora-http", sides="client", rules=10), False, True),
        (usual("nginx-json"), False, True),
        (usual("envoy-tcp"), True, False),
        (usual("uvloop"), False, False),
    ],
)
def test_who_is_probed_and_who_writes_a_line_for_each_request(setup: Setup, judges: bool, reads: bool) -> None:
    assert (wiring.judges(setup), wiring.reads_http(setup)) == (judges, reads)


def test_nobody_else_is_wired() -> None:
    with pytest.raises(ValueError, match="nobody is called"):
        wiring.wire(Setup(contender="somebody"), INBOUND, FORM)


def test_the_compiled_form_has_the_same_files_and_another_interpreter() -> None:
    pure, compiled = (wiring.wire(usual(name), INBOUND, FORM) for name in ("remora-http", COMPILED))
    assert compiled.files == pure.files
    # Isolated, so that it imports what is installed there and not the sources that run here.
    assert compiled.command[:4] == ["/second/bin/python", "-I", "-m", "remora"]
    assert compiled.command[4:] == pure.command[3:]


def test_the_compiled_form_is_absent_for_the_reason_that_was_found() -> None:
    assert wiring.absence(COMPILED, FORM) == ""
    assert wiring.absence(COMPILED, CompiledForm(python="x", absent="it is not compiled")) == "it is not compiled"
