"""Protocols by Istio's names of ports: a word, or a word and a hyphen; `appProtocol` speaks first."""

from __future__ import annotations

import pytest

from injector.protocols import protocol_of


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("http", "http"),
        ("http-web", "http"),
        ("grpc-web", "http"),
        ("grpc-web-ui", "http"),
        ("grpc", "tcp"),
        ("grpc-api", "tcp"),
        ("http2", "tcp"),
        ("http2-x", "tcp"),
        ("https-x", "tcp"),
        ("tls", "tcp"),
        ("mysql-main", "tcp"),
        ("mongo", "tcp"),
        ("redis", "tcp"),
        ("tcp", "tcp"),
        ("tcp-x", "tcp"),
        ("httpweb", "auto"),
        ("http3", "auto"),
        ("web-http", "auto"),
        ("", "auto"),
    ],
)
def test_a_name_says_the_protocol(name: str, protocol: str) -> None:
    assert protocol_of(name) == protocol


@pytest.mark.parametrize(
    ("app_protocol", "protocol"),
    [
        ("http", "http"),
        ("HTTP", "http"),
        ("kubernetes.io/h2c", "tcp"),
        ("kubernetes.io/ws", "http"),
        ("kubernetes.io/wss", "tcp"),
        ("ws", "http"),
        ("wss", "tcp"),
        ("redis", "tcp"),
        ("http-web", "auto"),
        ("example.org/own", "auto"),
    ],
)
def test_the_app_protocol_beats_the_name(app_protocol: str, protocol: str) -> None:
    for name in ("http-x", "tcp-x", ""):
        assert protocol_of(name, app_protocol) == protocol
