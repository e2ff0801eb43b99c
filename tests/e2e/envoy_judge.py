"""A real Envoy that judges: the filters of many policy sets in one process, and what it answers to a request.

    async with judging(directory, [filters, ...], trust=[bundle, ...]) as judge:
        answer = await judge.request(0, get("/orders"), Caller(certificate=svid("web")))
        assert (answer.status, answer.denied_by) == (403, "none")
        assert await judge.opaque(0, Caller(certificate=svid("web")))

The header `x-set` chooses the policy set of a request (`judge.request` writes it), the source port of a PROXY header
that of an opaque connection. The PROXY header also says to which address and port the caller connected, as the
redirection of a pod does; the caller's own address is a real one on loopback. Requests are answered by Envoy itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from callers import PROBE, Caller, connect
from envoy_sidecar import Envoy, running
from mesh import Message, Stream, authority, svid

from certs.bundle import TrustBundle
from certs.testing import write_set

Json = dict[str, Any]

MODES: Final[Mapping[str, Json]] = {
    "none": {"normalize_path": False, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "base": {"normalize_path": True, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "merge_slashes": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    },
    "decode_and_merge_slashes": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}
"""What istiod sets for each `pathNormalization` of a mesh."""

_TYPE: Final = "type.googleapis.com/envoy.extensions."
_HTTP_RBAC: Final = "filters.http.rbac.v3.RBAC"
_RBAC_METADATA: Final = "%DYNAMIC_METADATA(envoy.filters.http.rbac:{})%"
_ORDER: Final = ("AUDIT", "DENY", "ALLOW")
_OBSERVED: Final = "observed_"
_SAID: Final = {
    "x-details": "%RESPONSE_CODE_DETAILS%",
    "x-path": "%REQ(:PATH)%",
    "x-forwarded-certificate": "%REQ(X-FORWARDED-CLIENT-CERT)%",
    "x-claim-seen": "%REQ(X-CLAIM)%",
    "x-payload-seen": "%REQ(X-PAYLOAD)%",
    "x-audited": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
    "x-allowed-by": _RBAC_METADATA.format(f"{_OBSERVED}shadow_effective_policy_id"),
    "x-dry-run-deny": _RBAC_METADATA.format("istio_dry_run_deny_shadow_engine_result"),
    "x-dry-run-deny-by": _RBAC_METADATA.format("istio_dry_run_deny_shadow_effective_policy_id"),
    "x-dry-run-allow": _RBAC_METADATA.format("istio_dry_run_allow_shadow_engine_result"),
}
"""Headers that Envoy adds to every answer, its own denials too."""
_FIRST_SET_PORT: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class PolicyFilters:
    """The RBAC settings of one policy set by action, on HTTP and on TCP."""

    http: Mapping[str, Json]
    tcp: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What Envoy said about a request.

    `denied_by` is the rule of a 403 ("none" when no ALLOW rule matched), `allowed_by` the first ALLOW rule that
    matches, `path` what it would forward; `audited` says that an AUDIT rule matched. `dry_run_denied_by` names what
    dry-run policies would have denied, "none" where none would have allowed; "" is nothing. `claim` and `payload` are
    the headers x-claim and x-payload as they would be forwarded.
    """

    status: int
    denied_by: str = ""
    allowed_by: str = ""
    path: str = ""
    claim: str = ""
    payload: str = ""
    forwarded_certificate: str = ""
    audited: bool = False
    dry_run_denied_by: str = ""


class Judge:
    """A running Envoy with the filters of all policy sets."""

    def __init__(self, envoy: Envoy) -> None:
        self.envoy = envoy
        self._streams: dict[tuple[str, Caller], Stream] = {}

    async def request(self, number: int, head: bytes, caller: Caller, *, mode: str = "base") -> Verdict:
        """Send a request without a body under the policy set `number`."""
        line, _, rest = head.partition(b"\r\n")
        data = b"%b\r\nx-set: %d\r\n%b" % (line, number, rest)
        key = (mode, caller)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = connect(self.envoy.ports[f"http-{mode}"], caller, 40_000)
        await stream.send(data)
        answer = await stream.final(to=head.split(b" ", 1)[0])
        if answer.get("connection") == b"close":
            self._streams.pop(key).close()
        return _verdict(answer)

    async def opaque(self, number: int, caller: Caller) -> bool:
        """Open a connection, send a byte under the policy set `number`, and say whether it was let through."""
        stream = connect(self.envoy.ports["tcp"], caller, _FIRST_SET_PORT + number)
        try:
            await stream.send(PROBE)
            return await stream.exactly(len(PROBE)) == PROBE
        except (ConnectionError, EOFError):
            return False
        finally:
            stream.close()

    def close(self) -> None:
        """Close every connection."""
        for stream in self._streams.values():
            stream.close()


def _verdict(answer: Message) -> Verdict:
    said = {name: (answer.get(name) or b"").decode("latin-1") for name in _SAID}
    said = {name: "" if text == "-" else text for name, text in said.items()}
    details = said["x-details"].partition("rbac_access_denied_matched_policy[")[2]
    dry_run = said["x-dry-run-deny-by"] if said["x-dry-run-deny"] == "denied" else ""
    if not dry_run and said["x-dry-run-allow"] == "denied":
        dry_run = "none"
    return Verdict(
        status=answer.status,
        denied_by=details.removesuffix("]") if answer.status == 403 else "",
        allowed_by=said["x-allowed-by"] if answer.status == 200 else "",
        path=said["x-path"],
        claim=said["x-claim-seen"],
        payload=said["x-payload-seen"],
        forwarded_certificate=said["x-forwarded-certificate"],
        audited=said["x-audited"] == "true",
        dry_run_denied_by=dry_run,
    )


@contextlib.asynccontextmanager
async def judging(
    directory: Path,
    sets: Sequence[PolicyFilters],
    *,
    trust: Sequence[TrustBundle] | None = None,
    modes: Sequence[str] = ("base",),
    jwt: Json | None = None,
    certificates: Sequence[Json] = ({"prefix": "spiffe://"},),
    trusted_hops: int = 0,
) -> AsyncIterator[Judge]:
    """Run Envoy in `directory` with policy sets, in order.

    `trust` are the roots that it believes, ours by default; `modes` the path normalisations that can be asked for;
    `jwt` the settings of jwt_authn before all policies; `certificates` the matchers for the URIs of callers, none to
    take any certificate; `trusted_hops` how many addresses of x-forwarded-for stand behind the one that counts.
    """
    _publish(directory, [authority().bundle] if trust is None else trust)
    tls = _transport(directory, certificates)
    listeners = [_http_listener(mode, sets, jwt, tls, trusted_hops) for mode in modes]
    listeners.append(_tcp_listener(sets, tls))
    configuration = {
        "node": {"id": "judge", "cluster": "demo"},
        "admin": {"address": _address(0)},
        "layered_runtime": {"layers": [{"name": "istio", "static_layer": _RUNTIME}]},
        "static_resources": {"listeners": listeners},
    }
    async with running(directory, configuration) as envoy:
        judge = Judge(envoy)
        try:
            yield judge
        finally:
            judge.close()


def _publish(directory: Path, trust: Sequence[TrustBundle]) -> None:
    directory.mkdir()
    write_set(svid("orders"), authority().bundles, directory / "identity")
    (directory / "roots.pem").write_bytes(b"".join(bundle.to_pem() for bundle in trust))


# --- configuration ---------------------------------------------------------------------------------------------------


def _http_listener(mode: str, sets: Sequence[PolicyFilters], jwt: Json | None, tls: Json, trusted_hops: int) -> Json:
    filters = [] if jwt is None else [_typed("envoy.filters.http.jwt_authn", _JWT, jwt)]
    filters += [_typed(f"rbac.{name}", _HTTP_RBAC, {}) for name in ("observed", *_ORDER)]
    filters.append(_typed("envoy.filters.http.router", "filters.http.router.v3.Router", {}))
    said = [{"header": {"key": key, "value": text}} for key, text in _SAID.items()]
    routes = [
        {
            "match": {"prefix": "/", "headers": [{"name": "x-set", "string_match": {"exact": str(number)}}]},
            "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
            "typed_per_filter_config": _per_route(each.http),
        }
        for number, each in enumerate(sets)
    ]
    manager = _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        {
            "stat_prefix": mode,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "local_reply_config": {"mappers": [{"filter": _EVERY_STATUS, "headers_to_add": said}]},
            "http_filters": filters,
            "server_name": "istio-envoy",
            "use_remote_address": False,
            "xff_num_trusted_hops": trusted_hops,
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            **MODES[mode],
        },
    )
    chains = [
        {"filter_chain_match": {"transport_protocol": "tls"}, "filters": [manager], "transport_socket": tls},
        {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [manager]},
    ]
    return _listener(f"http-{mode}", chains)


def _per_route(by_action: Mapping[str, Json]) -> Json:
    kind = _TYPE + "filters.http.rbac.v3.RBACPerRoute"
    found = {f"rbac.{action}": {"@type": kind, "rbac": settings} for action, settings in by_action.items()}
    rules = by_action.get("ALLOW", {}).get("rules")
    if rules is not None:
        observed = {"shadow_rules": rules, "shadow_rules_stat_prefix": _OBSERVED}
        found["rbac.observed"] = {"@type": kind, "rbac": observed}
    return found


def _tcp_listener(sets: Sequence[PolicyFilters], tls: Json) -> Json:
    chains: list[Json] = []
    for number, each in enumerate(sets):
        filters = [
            _typed(f"rbac.{action}", "filters.network.rbac.v3.RBAC", {**each.tcp[action], "stat_prefix": "tcp."})
            for action in _ORDER
            if action in each.tcp
        ]
        filters.append(_typed("envoy.filters.network.echo", "filters.network.echo.v3.Echo", {}))
        ports = [_FIRST_SET_PORT + number]
        chains += [
            {
                "name": f"tls-{number}",
                "filter_chain_match": {"transport_protocol": "tls", "source_ports": ports},
                "filters": filters,
                "transport_socket": tls,
            },
            {
                "name": f"plain-{number}",
                "filter_chain_match": {"transport_protocol": "raw_buffer", "source_ports": ports},
                "filters": filters,
            },
        ]
    return _listener("tcp", chains)


def _listener(name: str, chains: Sequence[Json]) -> Json:
    inspectors = {
        "envoy.filters.listener.proxy_protocol": "filters.listener.proxy_protocol.v3.ProxyProtocol",
        "envoy.filters.listener.tls_inspector": "filters.listener.tls_inspector.v3.TlsInspector",
    }
    return {
        "name": name,
        "address": _address(0),
        "listener_filters": [_typed(each, kind, {}) for each, kind in inspectors.items()],
        "filter_chains": list(chains),
    }


def _transport(directory: Path, certificates: Sequence[Json]) -> Json:
    validation: Json = {"trusted_ca": {"filename": str(directory / "roots.pem")}}
    if certificates:
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": each} for each in certificates]
    identity = directory / "identity"
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity / "tls.crt")},
                "private_key": {"filename": str(identity / "tls.key")},
            }
        ],
        "validation_context": validation,
    }
    return _typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        {"require_client_certificate": True, "common_tls_context": common},
    )


_RUNTIME: Final[Json] = {"envoy.reloadable_features.http_reject_path_with_fragment": False}
"""What istiod's bootstrap switches off: Envoy alone answers a fragment with 400, in a mesh it removes it."""
_EVERY_STATUS: Final[Json] = {
    "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 100, "runtime_key": "every.status"}}}
}
_JWT: Final = "filters.http.jwt_authn.v3.JwtAuthentication"


def _typed(name: str, kind: str, settings: Mapping[str, Any]) -> Json:
    return {"name": name, "typed_config": {"@type": _TYPE + kind, **settings}}


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
