"""Whatever a configuration file holds, reading it gives a Config or faults with places, and nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import Config, load_config
from proxy.config_text import TextError, Use, parse_address, parse_listen
from proxy.errors import ConfigError, Fault

FULL = b"""\
workload: {namespace: demo, service_account: orders, name: orders-7d9f, labels: {app: orders}}
trust_domain_aliases: [old.example.org]
identity: {files: {directory: /keys}}
inbound:
  ports:
    - {listen: "[::]:15443", port: 8080, app: "127.0.0.1:8080", protocol: http}
outbound:
  listeners: [{listen: "127.0.0.1:9001", service: orders}]
  services:
    - {name: orders, hosts: [orders], endpoints: ["10.0.0.7:15443"], timeout: 15s,
       identities: ["spiffe://cluster.local/ns/demo/sa/orders"]}
policy: {directory: /policy, default: deny}
admin: {listen: "127.0.0.1:15000"}
health: {listen: "[::]:15020"}
telemetry: {access_log: off}
limits: {head_bytes: 8KiB, drain_timeout: 1m}
runtime: {watch_interval: 0.5}
"""
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70_000)
    | st.floats()
    | st.sampled_from(["[::]:1", "127.0.0.1:0", "a:1", "spiffe://a/b", "http", "grpc", "none", "1s", "off", ""])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["listen", "port", "ports", "services", "listeners", "name", "tls", "mode", "files", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
SECTIONS = (
    "workload",
    "identity",
    "inbound",
    "outbound",
    "policy",
    "admin",
    "health",
    "telemetry",
    "limits",
    "runtime",
)


def check(data: bytes) -> None:
    faults: list[Fault] = []
    try:
        config = load_config(data, "remora.yaml")
    except ConfigError as error:
        faults = error.faults
    else:
        assert isinstance(config, Config)
        return
    assert faults
    assert faults == sorted(faults)
    for fault in faults:
        assert fault.file == "remora.yaml"
        assert str(fault).isprintable(), "what a file holds must not reach a terminal as it is"


def written(value: object) -> str:
    """Write a value as YAML in flow style, text always in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08X}" for char in value) + '"'
    return (
        {None: "null", True: "true", False: "false"}.get(value, repr(value))
        if isinstance(value, bool | None)
        else repr(value)
    )


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=6))
def test_any_tree_of_values(tree: dict[str, object]) -> None:
    check(("{" + ", ".join(f"{key}: {written(value)}" for key, value in tree.items()) + "}").encode("utf-8", "replace"))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(0, len(FULL)), st.integers(0, 12), st.binary(max_size=6))
def test_a_good_file_with_a_piece_changed(start: int, length: int, piece: bytes) -> None:
    check(FULL[:start] + piece + FULL[start + length :])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(alphabet="0123456789.:[]/%abunix\0 -_é", max_size=24), st.sampled_from(Use))
def test_an_address_that_is_read_is_written_and_read_the_same(text: str, use: Use) -> None:
    for read in (lambda text: parse_address(text, use), parse_listen):
        try:
            value = read(text)
        except TextError:
            continue
        assert read(str(value)) == value
