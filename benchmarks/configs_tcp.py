"""Writes the two hops of contenders that pass bytes on without reading them: mutual TLS between them. Pure.

What each is told is what the HTTP hops are told: TLS 1.3, both ends verified, nothing resumed, one thread or worker.
"""

from __future__ import annotations

from typing import Final

from benchmarks.configs import CALLED, CALLED_ID, CALLER_ID, Hop, nginx_tls

STREAM_MODULE: Final = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""Where Debian puts nginx's module for TCP (package libnginx-mod-stream)."""


def nginx_tcp(hop: Hop, *, as_root: bool) -> dict[str, str]:
    """Write a hop of nginx's stream module, without a log."""
    proxied = "" if hop.inbound else "        proxy_ssl on;\n"
    text = f"""\
load_module {STREAM_MODULE};
daemon off;
{"user root;" if as_root else ""}
worker_processes 1;
pid {hop.directory}/nginx.pid;
error_log {hop.directory}/error.log warn;
events {{ worker_connections 4096; }}
stream {{
    tcp_nodelay on;
    server {{
{nginx_tls(hop)}
{proxied}        proxy_pass 127.0.0.1:{hop.next};
    }}
}}
"""
    return {"nginx.conf": text}


def haproxy_tcp(hop: Hop) -> dict[str, str]:
    """Write a haproxy hop in TCP mode, without a log; it wants `identity.pem`, chain and key joined."""
    tls = f"ssl crt {hop.directory / 'identity.pem'} ca-file {hop.identity / 'ca.crt'} verify required"
    bind = f" {tls} ssl-min-ver TLSv1.3 no-tls-tickets" if hop.inbound else ""
    server = "" if hop.inbound else f" {tls} verifyhost {CALLED} sni str({CALLED}) ssl-min-ver TLSv1.3"
    text = f"""\
global
    nbthread 1
    maxconn 4096
    tune.ssl.cachesize 0
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend entry
    bind 127.0.0.1:{hop.listen}{bind}
    default_backend next_hop
backend next_hop
    server next 127.0.0.1:{hop.next}{server}
"""
    return {"haproxy.cfg": text}


def stunnel(hop: Hop) -> dict[str, str]:
    """Write a stunnel hop: a thread for each connection, no log."""
    text = f"""\
foreground = yes
pid =
debug = warning
syslog = no
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[hop]
client = {"no" if hop.inbound else "yes"}
accept = 127.0.0.1:{hop.listen}
connect = 127.0.0.1:{hop.next}
cert = {hop.identity / "tls.crt"}
key = {hop.identity / "tls.key"}
CAfile = {hop.identity / "ca.crt"}
verifyChain = yes
{"requireCert = yes" if hop.inbound else f"checkHost = {CALLED}"}
sslVersionMin = TLSv1.3
sessionResume = no
"""
    return {"stunnel.conf": text}


def ghostunnel_command(program: str, hop: Hop) -> list[str]:
    """Write the command line of a ghostunnel hop, which needs no file; it verifies the peer's SPIFFE identity."""
    tls = [
        f"--cert={hop.identity / 'tls.crt'}",
        f"--key={hop.identity / 'tls.key'}",
        f"--cacert={hop.identity / 'ca.crt'}",
        f"--listen=127.0.0.1:{hop.listen}",
        f"--target=127.0.0.1:{hop.next}",
        "--quiet=all",
    ]
    if hop.inbound:
        return [program, "server", *tls, f"--allow-uri={CALLER_ID}"]
    return [program, "client", *tls, f"--override-server-name={CALLED}", f"--verify-uri={CALLED_ID}"]
