"""Writes the configuration of every contender: the same two hops, as text.

    load generator --HTTP/1.1--> outbound hop ==mutual TLS==> inbound hop --HTTP/1.1--> application

Everything here is pure: ports and directories in, files out. Each writer returns the files of one hop by name; its
caller puts them into that hop's directory and starts the program there.

What is equal: two processes, mutual TLS 1.3 between them with P-256 certificates of one authority, no resumption that
matters (connections are kept), keep-alive on all three legs, one thread or worker, and, where a log is on, one JSON
line per request in each hop, buffered where the program can.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TRUST_DOMAIN: Final = "bench.example"
NAMESPACE: Final = "bench"
CALLER: Final = "web"
CALLED: Final = "orders"
CALLER_ID: Final = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{CALLER}"
CALLED_ID: Final = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{CALLED}"
DENIED_PREFIX: Final = "/admin"
"""Paths below it are denied by the policy of contenders that judge."""
BODY: Final = "the order is on its way, thank you for asking\n"
LOG_FILE: Final = "access.log"
CONFIG_FILE: Final = "remora.yaml"
KEPT_REQUESTS: Final = 1_000_000_000
"""nginx closes a connection after 1,000 requests by default; then its handshakes would be measured, ours not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One hop: which way it faces, where it listens, where it goes, its own directory and that of its identity.

    `identity` holds tls.crt, tls.key and ca.crt. `health` is a port for a readiness page, used by those that have one.
    """

    inbound: bool
    listen: int
    next: int
    health: int
    directory: Path
    identity: Path

    @property
    def log(self) -> Path:
        """Where this hop writes its access log."""
        return self.directory / LOG_FILE


# --- the application ------------------------------------------------------------------------------------------------


def application(port: int, directory: Path, *, as_root: bool, payloads: Sequence[int] = ()) -> str:
    """Write the application behind the hops: nginx that returns a small static body and logs nothing.

    Of each size in `payloads` it gives as many bytes at /orders/<size>, from a file `payload-<size>` in `directory`.
    """
    places = "".join(
        f"        location = /orders/{size} {{ alias {directory}/payload-{size}; }}\n"
        if size
        else '        location = /orders/0 { return 200 ""; }\n'
        for size in payloads
    )
    return _nginx(
        directory,
        as_root,
        f"""\
    access_log off;
    sendfile on;
    open_file_cache max=16;
    server {{
        listen 127.0.0.1:{port};
{places}        location / {{ default_type text/plain; return 200 {json.dumps(BODY)}; }}
    }}
""",
    )


# --- remora ---------------------------------------------------------------------------------------------------------

POLICY: Final = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: callers, namespace: {NAMESPACE}}}
spec:
  action: ALLOW
  rules:
  - from: [{{source: {{principals: ["{CALLER_ID.removeprefix("spiffe://")}"]}}}}]
    to: [{{operation: {{methods: ["GET", "POST"]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: no-admin, namespace: {NAMESPACE}}}
spec:
  action: DENY
  rules:
  - to: [{{operation: {{paths: ["{DENIED_PREFIX}/*"]}}}}]
"""


def remora(hop: Hop) -> dict[str, str]:
    """Write a sidecar: policy and the JSON access log are on, as they are by default."""
    legs = (hop.listen, hop.next)
    return sidecar(
        hop.directory,
        hop.identity,
        account=CALLED if hop.inbound else CALLER,
        health=hop.health,
        inbound=legs if hop.inbound else None,
        outbound=None if hop.inbound else legs,
    )


def sidecar(
    directory: Path,
    identity: Path,
    *,
    account: str,
    health: int,
    inbound: tuple[int, int] | None = None,
    outbound: tuple[int, int] | None = None,
    policy: str = POLICY,
    limits: Mapping[str, object] | None = None,
    protocol: str = "http",
    mutual: bool = True,
    default: str = "deny",
    log: bool = True,
    workers: int = 1,
) -> dict[str, str]:
    """Write a sidecar with one port, one service or both: each the port it listens on, and the next one.

    `limits` are those that differ from their defaults, `default` is what happens where no rule speaks. Without
    `mutual`, the service is called in plaintext; whether the port takes plaintext is for `policy` to say.
    """
    config: dict[str, Any] = {
        "workload": {"namespace": NAMESPACE, "service_account": account},
        "trust_domain": TRUST_DOMAIN,
        "identity": {"files": {"directory": str(identity)}},
        "policy": {"directory": str(directory / "policy"), "default": default},
        "health": {"listen": f"127.0.0.1:{health}"},
        "telemetry": {"access_log": str(directory / LOG_FILE) if log else "off"},
    }
    if inbound is not None:
        listen, app = inbound
        port = {"listen": f"127.0.0.1:{listen}", "port": 8080, "app": f"127.0.0.1:{app}", "protocol": protocol}
        config["inbound"] = {"ports": [port]}
    if outbound is not None:
        listen, endpoint = outbound
        config["outbound"] = {
            "listeners": [{"listen": f"127.0.0.1:{listen}", "service": CALLED}],
            "services": [
                {
                    "name": CALLED,
                    "endpoints": [f"127.0.0.1:{endpoint}"],
                    "protocol": protocol,
                    **({"identities": [CALLED_ID]} if mutual else {"tls": "none"}),
                }
            ],
        }
    if workers != 1:
        config["runtime"] = {"workers": workers}
    if limits:
        config["limits"] = dict(limits)
    # JSON is YAML, and json.dumps quotes whatever a temporary directory is called.
    return {CONFIG_FILE: json.dumps(config, indent=2) + "\n", "policy/policies.yaml": policy}


def sidecar_command(directory: Path) -> list[str]:
    """Write the command line of a sidecar whose files are in `directory`."""
    return [sys.executable, "-m", "remora", "proxy", "run", "--config", str(directory / CONFIG_FILE)]


# --- nginx ----------------------------------------------------------------------------------------------------------

_LOG_KEYS: Final = {
    "start_time": "$time_iso8601",
    "method": "$request_method",
    "path": "$request_uri",
    "protocol": "$server_protocol",
    "response_code": "$status",
    "bytes_received": "$request_length",
    "bytes_sent": "$body_bytes_sent",
    "duration": "$request_time",
    "upstream_service_time": "$upstream_response_time",
    "x_forwarded_for": "$http_x_forwarded_for",
    "user_agent": "$http_user_agent",
    "request_id": "$request_id",
    "authority": "$http_host",
    "upstream_host": "$upstream_addr",
    "downstream_local_address": "$server_addr:$server_port",
    "downstream_remote_address": "$remote_addr:$remote_port",
    "requested_server_name": "$ssl_server_name",
    "client_serial": "$ssl_client_serial",
    "client_verify": "$ssl_client_verify",
}


def nginx_tls(hop: Hop, *, workers: int = 1) -> str:
    """Write where an nginx hop listens, and its mutual TLS: towards the caller inbound, towards the next hop outbound.

    HTTP and TCP take the same lines (modules `http` and `stream`), so that their work is equal. Several `workers` have
    a socket each, as Remora's and Envoy's have; with one for all, whoever wakes first would take most connections.
    """
    shared = " reuseport" if workers > 1 else ""
    certificate, key, roots = (hop.identity / name for name in ("tls.crt", "tls.key", "ca.crt"))
    if hop.inbound:
        return f"""\
        listen 127.0.0.1:{hop.listen} ssl{shared};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {roots};
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_protocols TLSv1.3;
        ssl_session_tickets off;
        ssl_session_cache off;"""
    return f"""\
        listen 127.0.0.1:{hop.listen}{shared};
        proxy_ssl_certificate {certificate};
        proxy_ssl_certificate_key {key};
        proxy_ssl_trusted_certificate {roots};
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 3;
        proxy_ssl_name {CALLED};
        proxy_ssl_server_name on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_session_reuse off;"""


def nginx(hop: Hop, *, log: bool, as_root: bool, pooled: bool = True, workers: int = 1) -> dict[str, str]:
    """Write an nginx hop, with a JSON access log of the keys that it knows or with none.

    One that is not `pooled` makes a new connection to the next hop for every request.
    """
    keys = ", ".join(f'"{key}": "{variable}"' for key, variable in _LOG_KEYS.items())
    kept = f"        keepalive 128;\n        keepalive_requests {KEPT_REQUESTS};\n" if pooled else ""
    access_log = f"access_log {hop.log} mesh buffer=64k flush=1s;" if log else "access_log off;"
    scheme = "http" if hop.inbound else "https"
    return {
        "nginx.conf": _nginx(
            hop.directory,
            as_root,
            f"""\
    log_format mesh escape=json '{{{keys}}}';
    {access_log}
    upstream next_hop {{
        server 127.0.0.1:{hop.next};
{kept}    }}
    server {{
{nginx_tls(hop, workers=workers)}
        location / {{
            proxy_pass {scheme}://next_hop;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
""",
            workers,
        )
    }


def _nginx(directory: Path, as_root: bool, http: str, workers: int = 1) -> str:
    # As root a worker would become `nobody`, who may not read a private temporary directory.
    temporaries = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
{"user root;" if as_root else ""}
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
{temporaries}
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests {KEPT_REQUESTS};
{http}}}
"""


# --- haproxy --------------------------------------------------------------------------------------------------------


def haproxy(hop: Hop, *, pooled: bool = True) -> dict[str, str]:
    """Write a haproxy hop with a JSON log on its standard output; it wants `identity.pem`, chain and key joined."""
    fields = {
        "start_time": "%[date,ltime(%Y-%m-%dT%H:%M:%S)]",
        "method": "%HM",
        "path": "%HU",
        "protocol": "%HV",
        "response_code": "%ST",
        "termination": "%ts",
        "bytes_received": "%U",
        "bytes_sent": "%B",
        "duration": "%Ta",
        "upstream_service_time": "%Tr",
        "authority": "%[capture.req.hdr(0),json(utf8s)]",
        "user_agent": "%[capture.req.hdr(1),json(utf8s)]",
        "upstream_host": "%si:%sp",
        "upstream_cluster": "%b",
        "downstream_local_address": "%fi:%fp",
        "downstream_remote_address": "%ci:%cp",
        "requested_server_name": "%sslv",
        "request_id": "%ID",
    }
    log_format = "{" + ", ".join(f'\\"{key}\\": \\"{value}\\"' for key, value in fields.items()) + "}"
    pem, roots = hop.directory / "identity.pem", hop.identity / "ca.crt"
    tls = f"crt {pem} ca-file {roots} verify required"
    bind = f" ssl {tls} ssl-min-ver TLSv1.3 no-tls-tickets" if hop.inbound else ""
    server = "" if hop.inbound else f" ssl {tls} verifyhost {CALLED} sni str({CALLED}) ssl-min-ver TLSv1.3"
    return {
        "haproxy.cfg": f"""\
global
    nbthread 1
    maxconn 4096
    log stdout format raw local0
    tune.ssl.cachesize 0
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    http-reuse {"always" if pooled else "never"}
    unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt
    log-format "{log_format}"
frontend entry
    bind 127.0.0.1:{hop.listen}{bind}
    declare capture request len 64
    declare capture request len 64
    http-request capture req.hdr(host) id 0
    http-request capture req.hdr(user-agent) id 1
    default_backend next_hop
backend next_hop
    server next 127.0.0.1:{hop.next}{server}
"""
    }
