"""The configuration file: what it means, and what is said about every mistake in it."""

from __future__ import annotations

import dataclasses

import pytest

from certs.spiffe import SpiffeId
from proxy.config import Address, Config, ListenConfig, UnixSocket, load_config
from proxy.config_values import HealthConfig
from proxy.errors import ConfigError
from proxy.types import Protocol

MINIMAL = """\
workload: {namespace: demo, service_account: orders}
identity: {files: {directory: /keys}}
policy: {directory: /policy}
"""
ORDERS = "{name: orders, endpoints: ['10.0.0.7:15443'], identities: ['spiffe://cluster.local/ns/demo/sa/orders']}"
FULL = """\
workload: {namespace: demo, service_account: orders, name: orders-7d9f, labels: {app: orders}}
trust_domain: example.org
trust_domain_aliases: [old.example.org]
identity:
  files: {directory: /var/run/secrets/remora}
inbound:
  mode: ports
  ports:
    - {listen: "[::]:15443", port: 8080, app: "127.0.0.1:8080", protocol: http}
    - {listen: "0.0.0.0:15444", port: 3306, app: "db.local:3306", protocol: tcp, speaks_first: client}
    - {listen: "0.0.0.0:15445", port: 3307, protocol: tcp}
outbound:
  listeners:
    - {listen: "127.0.0.1:9001", service: orders}
  services:
    - name: orders
      hosts: [orders, Orders.demo, "10.96.0.12"]
      endpoints: ["10.0.0.7:15443", "[2001:DB8::1]:15443", "orders.demo:15443"]
      protocol: http
      timeout: 500ms
      tls: mutual
      identities: ["spiffe://example.org/ns/demo/sa/orders", "spiffe://other.org/ns/demo/sa/orders"]
    - name: plain
      endpoints: ["10.0.0.8:80"]
      tls: none
  unknown: reject
policy:
  directory: /etc/remora/policy
  default: allow-authenticated
  path_normalization: merge_slashes
  root_namespace: mesh
  trusted_proxies: 1
  jwks_allow_loopback: true
  revoked: close
admin: {listen: "127.0.0.1:15000"}
health: {listen: "[::]:15020"}
telemetry: {access_log: off}
limits: {handshakes: 5, head_bytes: 8KiB, drain_timeout: 1m, service_timeout: 2}
runtime: {loop: asyncio, workers: 1, watch_interval: 0.25}
"""


def load(text: str) -> Config:
    return load_config(text.encode(), "remora.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [str(fault) for fault in caught.value.faults]


def test_every_section_is_read() -> None:
    config = load(FULL)
    assert dataclasses.asdict(config.workload) == {
        "namespace": "demo",
        "service_account": "orders",
        "name": "orders-7d9f",
        "labels": {"app": "orders"},
        "directory": "",
    }
    assert (config.trust_domain, config.trust_domain_aliases) == ("example.org", ("old.example.org",))
    assert config.identity.directory == "/var/run/secrets/remora"
    first, second, third = config.inbound
    assert (first.listen, first.port, first.app) == (
        Address(host="::", port=15443),
        8080,
        Address(host="127.0.0.1", port=8080),
    )
    assert (first.protocol, second.protocol) == (Protocol.HTTP, Protocol.TCP)
    assert second.app == Address(host="db.local", port=3306)
    assert (first.speaks_first, second.speaks_first, third.speaks_first) == ("client", "client", "server")
    [listener] = config.outbound.listeners
    assert (str(listener.listen), listener.service) == ("127.0.0.1:9001", "orders")
    orders = config.outbound.services["orders"]
    assert orders.hosts == ("orders", "orders.demo", "10.96.0.12")
    assert [str(endpoint) for endpoint in orders.endpoints] == [
        "10.0.0.7:15443",
        "[2001:db8::1]:15443",
        "orders.demo:15443",
    ]
    assert (orders.protocol, orders.timeout, orders.mutual) == (Protocol.HTTP, 0.5, True)
    assert orders.identities == {
        SpiffeId.parse("spiffe://example.org/ns/demo/sa/orders"),
        SpiffeId.parse("spiffe://other.org/ns/demo/sa/orders"),
    }
    plain = config.outbound.services["plain"]
    assert (plain.mutual, plain.identities, plain.protocol, plain.hosts) == (
        False,
        frozenset(),
        Protocol.AUTO,
        ("plain",),
    )
    assert plain.timeout == 2.0, "the default of a service's timeout is the limit that stands in the file"
    assert dataclasses.asdict(config.policy) == {
        "directory": "/etc/remora/policy",
        "default": "allow-authenticated",
        "path_normalization": "merge_slashes",
        "root_namespace": "mesh",
        "trusted_proxies": 1,
        "jwks_allow_loopback": True,
        "revoked": "close",
    }
    assert config.admin == ListenConfig(listen=Address(host="127.0.0.1", port=15000))
    assert config.health == HealthConfig(listen=Address(host="::", port=15020))
    assert config.telemetry.access_log == "off"
    assert (config.limits.handshakes, config.limits.head_bytes, config.limits.drain_timeout) == (5, 8192, 60.0)
    assert (config.runtime.loop, config.runtime.workers, config.runtime.watch_interval) == ("asyncio", 1, 0.25)


def test_what_is_not_said_has_the_documented_default() -> None:
    config = load(MINIMAL)
    assert config.workload.name == "orders"
    assert (config.trust_domain, config.trust_domain_aliases) == ("cluster.local", ())
    assert (config.inbound, config.outbound.listeners, config.outbound.services) == ((), (), {})
    assert (config.policy.default, config.policy.path_normalization) == ("deny", "base")
    assert config.policy.root_namespace == "istio-system"
    assert (config.admin, config.health, config.telemetry.access_log) == (None, None, "stdout")
    assert (config.runtime.loop, config.runtime.workers, config.runtime.watch_interval) == ("uvloop", 1, 0.5)


def test_an_inbound_port_without_app_leads_to_the_same_port_of_loopback() -> None:
    [port] = load(MINIMAL + "inbound: {ports: [{listen: '[::]:15443', port: 8080}]}").inbound
    assert (port.app, port.protocol) == (Address(host="127.0.0.1", port=8080), Protocol.AUTO)


def test_json_is_read_too() -> None:
    text = (
        '{"workload": {"namespace": "a", "service_account": "b"}, "identity": {"files": {"directory": "/k"}},'
        ' "policy": {"directory": "/p"}}'
    )
    assert load(text).workload.namespace == "a"


def test_admin_may_be_a_unix_socket() -> None:
    for written in ("unix:/run/admin.sock", "/run/admin.sock"):
        assert load(MINIMAL + f"admin: {{listen: '{written}'}}").admin == ListenConfig(
            listen=UnixSocket(path="/run/admin.sock")
        )


@pytest.mark.parametrize("path", ["off", "stdout", "/var/log/access.json", "./access.json"])
def test_the_access_log_goes_where_it_is_told(path: str) -> None:
    assert load(MINIMAL + f"telemetry: {{access_log: {path}}}").telemetry.access_log == path


def test_kernel_chosen_ports_never_collide() -> None:
    config = load(
        MINIMAL
        + f"""\
inbound: {{ports: [{{listen: "127.0.0.1:0", port: 80, app: "127.0.0.1:8080"}}]}}
outbound: {{listeners: [{{listen: "127.0.0.1:0", service: orders}}], services: [{ORDERS}]}}
admin: {{listen: "127.0.0.1:0"}}
"""
    )
    assert config.inbound[0].listen.port == 0


NOT_BUILT = [
    ("inbound: {ports: [{listen: '[::]:1', port: 2, protocol: http2}]}", "`inbound.ports[0].protocol: http2`"),
    ("inbound: {ports: [{listen: '[::]:1', port: 2, protocol: grpc}]}", "`inbound.ports[0].protocol: grpc`"),
    ("inbound: {ports: [{listen: '[::]:1', port: 2, app_protocol: http1}]}", "`inbound.ports[0].app_protocol`"),
    ("outbound: {services: [{name: a, endpoints: ['h:1'], tls: none, protocol: grpc}]}", "services[0].protocol: grpc`"),
]


@pytest.mark.parametrize(("text", "message"), NOT_BUILT)
def test_what_is_not_built_is_refused_by_name(text: str, message: str) -> None:
    section = text.partition(":")[0]
    base = "".join(line + "\n" for line in MINIMAL.splitlines() if not line.startswith(section + ":"))
    found = faults(base + text)
    assert any(message in fault and "is not supported yet" in fault for fault in found), found


CAPTURE = """\
inbound:
  mode: capture
  listen: "[::]:15006"
  ports: [{port: 8080, protocol: http}, {port: 5432, app: "127.0.0.1:5433", protocol: tcp}]
outbound:
  unknown: passthrough
  listeners: [{listen: "127.0.0.1:15001", capture: true}, {listen: "[::1]:15001", capture: true}]
  services: [{name: orders, addresses: ["10.96.0.12:80", "[fd00::12]:80"], tls: none}]
"""


def test_with_capture_ports_have_no_listener_and_lead_where_the_peer_has_dialled_unless_they_say_otherwise() -> None:
    config = load(MINIMAL + CAPTURE)
    assert str(config.inbound_capture) == "[::]:15006"
    assert [(port.port, port.listen, port.app and str(port.app)) for port in config.inbound] == [
        (8080, None, None),
        (5432, None, "127.0.0.1:5433"),
    ]
    assert [(listener.captures, listener.service) for listener in config.outbound.listeners] == [(True, "")] * 2
    assert config.outbound.unknown == "passthrough"


def test_a_service_without_endpoints_is_dialled_at_the_addresses_that_mean_it() -> None:
    orders = load(MINIMAL + CAPTURE).outbound.services["orders"]
    assert [str(endpoint) for endpoint in orders.endpoints] == ["10.96.0.12:80", "[fd00::12]:80"]


def test_without_a_word_nothing_is_captured_and_unknown_calls_are_refused() -> None:
    config = load(MINIMAL)
    assert config.inbound_capture is None
    assert config.outbound.unknown == "reject"


CAPTURE_FAULTS = [
    ("inbound: {mode: capture}", "`inbound` lacks the key `listen`"),
    ("inbound: {listen: '[::]:15006'}", "`inbound.mode` is ports"),
    ("inbound: {mode: capture, listen: '127.0.0.1:15006'}", "`inbound.listen` is 127.0.0.1:15006"),
    (
        "inbound: {mode: capture, listen: '[::]:15006', ports: [{listen: '[::]:1', port: 2}]}",
        "`inbound.ports[0].listen`: with capture",
    ),
    (
        "inbound: {mode: capture, listen: '[::]:15006', ports: [{port: 2}, {port: 2}]}",
        "`inbound.ports[1]`: port 2 stands twice",
    ),
    (
        "inbound: {mode: capture, listen: '[::]:15006', ports: [{port: 2, app: '127.0.0.1:15006'}]}",
        "`inbound.ports[0].app` leads back to `inbound.listen`",
    ),
    (
        "outbound: {listeners: [{listen: '0.0.0.0:15001', capture: true}]}",
        "`outbound.listeners[0]`: captured calls arrive on loopback",
    ),
    (
        "outbound: {listeners: [{listen: '127.0.0.1:1', capture: true, service: a}], services: "
        "[{name: a, endpoints: ['h:1'], tls: none}]}",
        "the address that is dialled says the service",
    ),
    ("outbound: {listeners: [{listen: '127.0.0.1:1', capture: false}]}", "lacks the key `service`"),
    ("outbound: {unknown: maybe}", "`outbound.unknown` must be one of reject, passthrough"),
    (
        "outbound: {services: [{name: a, addresses: ['10.0.0.1:1'], tls: none}, "
        "{name: b, addresses: ['10.0.0.1:1'], tls: none}]}",
        "`outbound.services[1].addresses`: 10.0.0.1:1 is an address of a already",
    ),
]


@pytest.mark.parametrize(("text", "message"), CAPTURE_FAULTS)
def test_what_cannot_be_captured_so_is_told(text: str, message: str) -> None:
    assert any(message in fault for fault in faults(MINIMAL + text)), faults(MINIMAL + text)


SERVICE = "outbound: {{services: [{}]}}"
WRONG = [
    ("identiy: {}", '4:1: unknown key "identiy" in `the file`; did you mean `identity`?'),
    ("trust_domain: Example.org", "4:15: `trust_domain`: the trust domain 'Example.org' has capitals"),
    ("trust_domain_aliases: [cluster.local]", "4:24: `trust_domain_aliases[0]`: cluster.local is named already"),
    ("trust_domain_aliases: [a, a]", "4:27: `trust_domain_aliases[1]`: a is named already"),
    ("inbound: {ports: [{listen: 'localhost:80', port: 80}]}", "'localhost' is a name, and listening needs an IP"),
    ("inbound: {ports: [{listen: '[::]:1', port: 0}]}", "4:44: `inbound.ports[0].port` must be between 1 and 65535"),
    ("inbound: {ports: [{port: 1}]}", "4:19: `inbound.ports[0]` lacks the key `listen`"),
    (
        "inbound: {ports: [{listen: '[::]:1', port: 5}, {listen: '[::]:2', port: 5}]}",
        "4:48: `inbound.ports[1]`: port 5 stands twice",
    ),
    (
        "inbound: {ports: [{listen: '[::]:1', port: 5}, {listen: '127.0.0.1:1', port: 6}]}",
        "`inbound.ports[1].listen` listens on 127.0.0.1:1, which `inbound.ports[0].listen` has taken",
    ),
    (
        "inbound: {ports: [{listen: '0.0.0.0:1', port: 5}]}\nhealth: {listen: '127.0.0.1:1'}",
        "`inbound.ports[0].listen` listens on 0.0.0.0:1, which `health.listen` has taken",
    ),
    (
        "inbound: {ports: [{listen: '[::]:8080', port: 8080, app: '127.0.0.1:8080'}]}",
        "`inbound.ports[0].app` leads back to `inbound.ports[0].listen` ([::]:8080)",
    ),
    (
        "inbound: {ports: [{listen: '[::]:1', port: 80, app: '127.0.0.1:15000'}]}\nadmin: {listen: '127.0.0.1:15000'}",
        "`inbound.ports[0].app` leads back to `admin.listen` (127.0.0.1:15000)",
    ),
    (
        "outbound: {listeners: [{listen: '127.0.0.1:1', service: oders}], services: [" + ORDERS + "]}",
        "4:24: `outbound.listeners[0].service`: no service is named oders; did you mean `orders`?",
    ),
    ("outbound: {listeners: [{listen: '127.0.0.1:1', service: a}]}", "is named a; add it under outbound.services"),
    ("outbound: {listeners: [{listen: '127.0.0.1:1'}]}", "4:24: `outbound.listeners[0]` lacks the key `service`"),
    (SERVICE.format(f"{ORDERS}, {ORDERS}"), "`outbound.services[1]`: a service named orders stands twice"),
    (
        SERVICE.format(
            "{name: a, hosts: [x], endpoints: ['h:1'], tls: none}, {name: b, hosts: [X], endpoints: ['h:2'], tls: none}"
        ),
        "`outbound.services[1].hosts`: x is a host of a already",
    ),
    (
        SERVICE.format("{name: a, endpoints: ['h:1']}"),
        "`outbound.services[0]` is mutual and names no identities",
    ),
    (
        SERVICE.format("{name: a, endpoints: ['h:1'], tls: none, identities: ['spiffe://a/b']}"),
        "`outbound.services[0].identities` cannot be checked with tls: none",
    ),
    (
        SERVICE.format("{name: a, endpoints: ['h:1'], identities: ['spiffe://a']}"),
        "`outbound.services[0].identities[0]`: spiffe://a names a trust domain and no workload",
    ),
    (
        SERVICE.format("{name: a, endpoints: ['h:1'], identities: ['https://a/b']}"),
        "`outbound.services[0].identities[0]`: 'https://a/b' is no SPIFFE ID",
    ),
    (SERVICE.format("{name: a, tls: none}"), "`outbound.services[0]` lacks the key `endpoints`"),
    (SERVICE.format("{name: a, tls: none, endpoints: []}"), "`outbound.services[0].endpoints` is empty"),
    (SERVICE.format("{name: a, tls: none, endpoints: ['h:1', 'H:1']}"), "endpoints[1]`: h:1 stands twice"),
    (SERVICE.format("{name: a, tls: none, endpoints: ['h:1'], timeout: 0}"), "timeout` must be between 0.001s"),
    (SERVICE.format("{name: a, tls: off, endpoints: ['h:1']}"), "tls` must be one of mutual, none"),
    (
        "outbound: {listeners: [{listen: '127.0.0.1:9', service: a}], "
        "services: [{name: a, tls: none, endpoints: ['127.0.0.1:9']}]}",
        "`outbound.services[0].endpoints[0]` leads back to `outbound.listeners[0].listen` (127.0.0.1:9)",
    ),
    ("policy: {directory: /p}", '4:1: the key "policy" stands twice'),
    ("admin: {listen: '0.0.0.0:15000'}", "4:17: `admin.listen` is 0.0.0.0:15000, which others can reach"),
    ("admin: {listen: '[::]:15000'}", "others can reach"),
    ("admin: {}", "4:8: `admin` lacks the key `listen`"),
    ("health: {listen: 'unix:/run/h.sock'}", "4:18: `health.listen`:"),
    ("telemetry: {access_log: sdtout}", "4:25: `telemetry.access_log`: 'sdtout' is neither stdout, off nor a path"),
    ("telemetry: {access_log: no}", "`telemetry.access_log` must be text, not the boolean no"),
    ("runtime: {loop: twisted}", "4:17: `runtime.loop` must be one of uvloop, asyncio"),
    ("runtime: {workers: 0}", "`runtime.workers` must be between 1 and 64"),
    ("runtime: {watch_interval: 0.01}", "`runtime.watch_interval` must be between 0.05s and 60s, not 0.01s"),
    ("limits: {handshake: 1}", '4:10: unknown key "handshake" in `limits`; did you mean `handshakes`?'),
    ("limits: {handshakes: 0}", "4:22: `limits.handshakes` must be between 1 and 100000, not 0"),
    ("limits: {handshakes: 1.5}", "`limits.handshakes` must be an integer, not the number 1.5"),
    ("limits: {head_timeout: 1d}", "4:24: `limits.head_timeout`: '1d' is no duration"),
    ("limits: {head_bytes: 512}", "`limits.head_bytes` must be between 1KiB and 1MiB, not 512"),
    ("limits: {head_bytes: 1KB}", "`limits.head_bytes`: '1KB' is no number of bytes"),
    ("limits: {buffer_low_water: 64KiB}", "`limits.buffer_low_water` (64KiB) must be less than `limits.buffer_high"),
    ("limits: {buffer_high_water: 2MiB}", "`limits.buffer_high_water` (2MiB) must be less than `limits.buffer_limit`"),
    ("inbound:", "4:9: `inbound` has no value"),
    ("inbound: []", "4:10: `inbound` must be a mapping, not a list"),
    ("inbound: {ports: {}}", "4:18: `inbound.ports` must be a list, not a mapping"),
    ("inbound: {ports: [7]}", "4:19: `inbound.ports[0]` must be a mapping, not the number 7"),
    ("--- {}", "second document"),
    ("a: [", "5:1: not YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    found = faults(MINIMAL + text)
    assert any(message in fault for fault in found), found
    assert all(fault.startswith("remora.yaml:") for fault in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "remora.yaml: the file is empty"),
        ("# nothing\n", "remora.yaml: the file is empty"),
        ("7", "remora.yaml:1:1: `the file` must be a mapping, not the number 7"),
        ("{}", "remora.yaml:1:1: `the file` lacks the key `workload`"),
        ("workload: {namespace: a}", "`workload` lacks the key `service_account`"),
        ("workload: {namespace: a/b, service_account: c}", "`workload` makes no SPIFFE ID: the namespace"),
        ("identity: {}", "`identity` names no source"),
        ("identity: {files: {}}", "`identity.files` lacks the key `directory`"),
        ("policy: {directory: ''}", "`policy.directory` is empty text"),
        ("policy: {directory: /p, default: allow}", "`policy.default` must be one of deny, allow-authenticated,"),
        ("policy: {directory: /p, path_normalization: all}", "`policy.path_normalization` must be one of none, base,"),
    ],
)
def test_what_must_be_there_is_asked_for(text: str, message: str) -> None:
    found = faults(text)
    assert any(message in fault for fault in found), found


def test_all_faults_come_at_once_in_the_order_of_the_file() -> None:
    found = faults(
        "runtime: {loop: x}\nlimits: {handshakes: 0}\nworkload: {namespace: 7}\nadmin: {listen: '1.1.1.1:1'}"
    )
    places = [tuple(map(int, fault.split(":")[1:3])) for fault in found]
    assert places == sorted(places)
    assert {line for line, _ in places} == {1, 2, 3, 4}
    assert len(found) >= 7


def test_a_config_cannot_be_changed() -> None:
    config = load(MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.policy.default = "allow-all"  # type: ignore[misc]
