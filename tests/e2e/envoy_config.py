"""Envoy's configuration as istiod writes it for a sidecar: the parts that meet on the wire of the mesh.

Inbound, one port of unknown protocol under STRICT: the ALPN names that a client *offers* choose between the HTTP chain
and the opaque one; the names that the server *answers* with are others (h2 and http/1.1), so that they say which HTTP
is spoken. Outbound, one listener and one cluster: the cluster offers the names of the mesh, the SNI names port and
host, and the server's identity must be exactly the expected one.

Left out is what has no part in the wire: discovery (xDS, SDS), capture, telemetry filters, and retries, so that one
request is one connection. Istio's Envoy chooses the ALPN names of HTTP by a filter of its own that this build does not
have; the cluster of an HTTP service names what that filter would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

TRUST_DOMAIN: Final = "cluster.local"
HOST: Final = "orders.shop.svc.cluster.local"
SERVER_NAME: Final = f"outbound_.8080_._.{HOST}"

OFFER_HTTP: Final = ("istio-http/1.1", "istio", "http/1.1")
OFFER_TCP: Final = ("istio-peer-exchange", "istio")
ANSWER_HTTP: Final = ("h2", "http/1.1")
ANSWER_TCP: Final = ("istio-peer-exchange", "h2", "http/1.1")

_TYPE: Final = "type.googleapis.com/envoy."
_CIPHERS_12: Final = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
]
_HTTP_CHAIN: Final = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
_TCP_CHAIN: Final = ["istio-peer-exchange", "istio"]
_LOG: Final = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "downstream_transport_failure_reason": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "filter_chain": "%FILTER_CHAIN_NAME%",
    "downstream_tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "upstream_tls_version": "%UPSTREAM_TLS_VERSION%",
    "source_principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "destination_principal": "%UPSTREAM_PEER_URI_SAN%",
}


# --- inbound ---------------------------------------------------------------------------------------------------------


def inbound(
    *,
    app: int,
    identity: Path,
    trust: Path,
    log: Path,
    allowed: Sequence[str],
    path: str,
    answer_http: Sequence[str],
    answer_tcp: Sequence[str],
) -> Json:
    """A sidecar before the application on port `app`.

    `allowed` are the principals that may call: over HTTP the `path` alone, opaquely everything. `identity` holds
    tls.crt and tls.key, `trust` is a PEM file of roots, `log` the access log.
    """
    cluster = "inbound|8080||"
    http_filters = [
        _typed(
            "envoy.filters.http.rbac",
            "extensions.filters.http.rbac.v3.RBAC",
            {"rules": _rules(allowed, [{"or_rules": {"rules": [{"url_path": {"path": {"exact": path}}}]}}])},
        ),
        _router(),
    ]
    network_filters = [
        _typed(
            "envoy.filters.network.rbac",
            "extensions.filters.network.rbac.v3.RBAC",
            {"rules": _rules(allowed, [{"any": True}]), "stat_prefix": "tcp."},
        ),
        _tcp_proxy(cluster, log),
    ]
    manager = _manager(
        "inbound_0.0.0.0_8080",
        cluster,
        http_filters,
        log,
        {
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        },
    )

    def chain(name: str, offered: list[str], filters: list[Json], answer: Sequence[str]) -> Json:
        tls = {
            "require_client_certificate": True,
            "common_tls_context": _tls(identity, trust, {"prefix": f"spiffe://{TRUST_DOMAIN}/"}, answer),
        }
        return {
            "name": name,
            "filter_chain_match": {"transport_protocol": "tls", "application_protocols": offered},
            "filters": filters,
            "transport_socket": _transport("DownstreamTlsContext", tls),
        }

    listener = _listener("virtualInbound", log) | {
        "traffic_direction": "INBOUND",
        "listener_filters": [
            _typed(
                "envoy.filters.listener.tls_inspector",
                "extensions.filters.listener.tls_inspector.v3.TlsInspector",
                {},
            )
        ],
        "filter_chains": [
            chain("http", _HTTP_CHAIN, [manager], answer_http),
            chain("tcp", _TCP_CHAIN, network_filters, answer_tcp),
        ],
    }
    return _bootstrap(listener, _cluster(cluster, app))


def _rules(principals: Sequence[str], permissions: list[Json]) -> Json:
    """One AuthorizationPolicy with the action ALLOW and one rule, as Istio compiles it."""
    who = [{"authenticated": {"principal_name": {"exact": principal}}} for principal in principals]
    rule = {
        "permissions": [{"and_rules": {"rules": permissions}}],
        "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": who}}]}}],
    }
    return {"action": "ALLOW", "policies": {"ns[demo]-policy[orders]-rule[0]": rule}}


# --- outbound --------------------------------------------------------------------------------------------------------


def outbound(
    *,
    endpoint: int,
    identity: Path,
    trust: Path,
    log: Path,
    expected: str,
    http: bool,
    offer: Sequence[str],
    forward_client_cert: str,
) -> Json:
    """A sidecar of a caller of one service, which answers on port `endpoint` as the principal `expected`."""
    name = f"outbound|8080||{HOST}"
    entry = (
        _manager("outbound_0.0.0.0_8080", name, [_router()], log, {"forward_client_cert_details": forward_client_cert})
        if http
        else _tcp_proxy(name, log)
    )
    tls = {"sni": SERVER_NAME, "common_tls_context": _tls(identity, trust, {"exact": expected}, offer)}
    cluster = _cluster(name, endpoint, {"tlsMode": "istio"}) | {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": {"tlsMode": "istio"},
                "transport_socket": _transport("UpstreamTlsContext", tls),
            }
        ]
    }
    listener = _listener("outbound", log) | {"traffic_direction": "OUTBOUND", "filter_chains": [{"filters": [entry]}]}
    return _bootstrap(listener, cluster)


# --- what both have --------------------------------------------------------------------------------------------------


def _bootstrap(listener: Json, cluster: Json) -> Json:
    return {
        "node": {"id": "sidecar", "cluster": "demo"},
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _listener(name: str, log: Path) -> Json:
    """A listener on a port of the kernel's choice, with a record of each connection beside those of the requests."""
    return {"name": name, "address": _address(0), "access_log": [_access_log(log.with_name("connections.log"))]}


def _cluster(name: str, port: int, metadata: Mapping[str, str] | None = None) -> Json:
    endpoint: Json = {"endpoint": {"address": _address(port)}}
    if metadata is not None:
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": dict(metadata)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _manager(stat_prefix: str, cluster: str, filters: list[Json], log: Path, more: Json) -> Json:
    route = {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    settings = {
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "route_config": {
            "name": cluster,
            "virtual_hosts": [{"name": cluster, "domains": ["*"], "routes": [route]}],
            "validate_clusters": False,
        },
        "http_filters": filters,
        "access_log": [_access_log(log)],
        "server_name": "istio-envoy",
        "use_remote_address": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    }
    kind = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return _typed("envoy.filters.network.http_connection_manager", kind, settings | more)


def _router() -> Json:
    return _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router", {})


def _tcp_proxy(cluster: str, log: Path) -> Json:
    settings = {"stat_prefix": cluster, "cluster": cluster, "access_log": [_access_log(log)]}
    return _typed("envoy.filters.network.tcp_proxy", "extensions.filters.network.tcp_proxy.v3.TcpProxy", settings)


def _tls(identity: Path, trust: Path, uri: Json, alpn: Sequence[str]) -> Json:
    return {
        "alpn_protocols": list(alpn),
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": _CIPHERS_12,
        },
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity / "tls.crt")},
                "private_key": {"filename": str(identity / "tls.key")},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(trust)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": uri}],
        },
    }


def _transport(context: str, settings: Json) -> Json:
    return _typed("envoy.transport_sockets.tls", f"extensions.transport_sockets.tls.v3.{context}", settings)


def _access_log(path: Path) -> Json:
    return _typed(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        {"path": str(path), "log_format": {"json_format": _LOG}},
    )


def _typed(name: str, kind: str, settings: Json) -> Json:
    return {"name": name, "typed_config": {"@type": _TYPE + kind, **settings}}


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
