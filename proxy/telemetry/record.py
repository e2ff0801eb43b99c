"""The result of a request or of an opaque connection, recorded exactly once.

A record is begun when there is something to tell and finished by whoever ends it, cancellation and process exit
included; a second `finish` does nothing. It becomes one JSON line with the keys of Istio's access log (so existing
pipelines read it) and ours: who spoke to whom, what was decided, by which rule, why, in which generation, and where
the microseconds went.

What is the same for every record of a connection is written once (`Scope`), and so is what is the same as in the
request before (`proxy.telemetry.parts`). The counters that a request adds to are found once, too, and again only when a
request of the connection ends in another way than the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.telemetry.decisions_log import DecisionLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import Peer
from proxy.telemetry.parts import Parts, parts_of, quote, written
from proxy.telemetry.series import ConnectionSeries, Metered, RequestSeries, Tally
from proxy.types import Asked, Denial, Permit

_clock = time.perf_counter_ns


class Scope:
    """What all records of one connection share: direction, addresses, the name of the next hop, identities."""

    __slots__ = (
        "_caller",
        "_decision",
        "_edge",
        "_inbound",
        "_meter",
        "_metered",
        "_ordinary",
        "_parts",
        "_reason",
        "_second",
        "_second_text",
        "_series",
        "_server",
        "_shared",
        "_stages",
        "_status",
        "_tally",
        "decisions",
        "destination",
        "direction",
        "local",
        "metrics",
        "opaque",
        "remote",
        "sink",
        "sni",
        "source",
        "upstream_cluster",
    )

    def __init__(
        self,
        *,
        direction: str,
        metrics: Metrics,
        sink: Callable[[str], None] | None,
        local: str,
        remote: str,
        upstream_cluster: str,
        decisions: DecisionLog | None = None,
    ) -> None:
        """`direction` is "inbound" or "outbound"; `sink` takes the finished lines, `decisions` what they decided.

        Without a `sink` no line is written, and everything else goes on: counts, decisions, each record's one end.
        """
        self.direction = direction
        self.decisions = decisions
        self.metrics = metrics
        self.sink = sink
        self.source = self.destination = self.sni = "null"
        self.local = quote(local)
        self.remote = quote(remote)
        self.upstream_cluster = quote(upstream_cluster)
        self._edge = metrics.naming.edge(direction, upstream_cluster)
        self._stages = metrics.stages[direction]
        self._inbound = direction == "inbound"
        self._caller: SpiffeId | None = None
        self._server: SpiffeId | None = None
        self._status = -1
        self._reason = Reason.OK
        self._decision = ""
        self._tally: Tally
        self._series: RequestSeries
        self.opaque = False
        self._meter: ConnectionSeries | None = None
        self._metered: Metered | None = None
        self._shared = ""
        self._ordinary: tuple[object, ...] = ()
        self._parts: Parts
        self._second = -1
        self._second_text = ""

    def source_is(self, spiffe_id: SpiffeId, sni: str = "") -> None:
        """Note who calls: a verified identity, and the server name that it asked for."""
        self._caller = spiffe_id
        self._status = -1
        self.source = quote(str(spiffe_id))
        self.sni = _or_null(sni)
        self._forget()

    def asks_for(self, server_name: str) -> None:
        """Note the server name that a caller without identity asked for, "" for none."""
        self.sni = _or_null(server_name)
        self._forget()

    def source_claims(self, presented: str) -> None:
        """Note the name that a refused caller presented, marked as not verified."""
        if presented:
            self.source = quote(f"unverified {presented}")
            self._forget()

    def destination_is(self, spiffe_id: SpiffeId) -> None:
        """Note who is called; outbound that may change from request to request, and seldom does."""
        if spiffe_id is not self._server:
            self._server = spiffe_id
            self._status = -1
            self.destination = quote(str(spiffe_id))
            self._forget()

    def _forget(self) -> None:
        self._shared = ""
        self._ordinary = ()

    def count_request(self, record: Record, reason: Reason, ended: int) -> None:
        """Count a request that ended at `ended`, and how long its stages took."""
        status, decision = record.response_code, record.decision
        if status != self._status or reason is not self._reason or decision != self._decision:
            self._status, self._reason, self._decision = status, reason, decision
            self._ordinary = ()
            self._tally = self.metrics.tally(self.direction, status, decision, reason)
            self._series = self.metrics.label_sets.requests(
                self._edge, self._peer(decision), status=status, flags=reason.consequence.flags
            )
        self._add(record, ended)

    def _add(self, record: Record, ended: int) -> None:
        self._tally.value += 1
        begun, received, sent = record.started_ns, record.bytes_received, record.bytes_sent
        self._series.add(ended - begun, received, sent)
        judged, reached, responded = record.policy_ns, record.upstream_reached_ns, record.upstream_responded_ns
        if reached and responded and self._inbound:
            self._stages.add(judged - begun, reached - judged, responded - reached)
        else:
            self.count_stages(record)

    def count_ordinary(self, record: Record, reason: Reason, ended: int) -> Parts:
        """Count a request that was answered by the next hop; give what its line has in common with the one before.

        Writing that anew costs 1.1 µs.
        """
        ordinary = (
            record.method,
            record.protocol,
            record.response_code,
            reason,
            record.decision,
            record.rule,
            record.generation,
            record.upstream_host,
            record.authority,
            record.user_agent,
            record.forwarded_for,
        )
        if ordinary == self._ordinary:
            self._add(record, ended)
        else:
            self.count_request(record, reason, ended)
            self._ordinary = ordinary
            self._parts = parts_of(record, reason, "")
        return self._parts

    def count_stages(self, record: Record) -> None:
        """Count how long the decision, the connection to the next hop and its answer took, as far as it went.

        Outbound there is no decision before the server has proved who it is, which is part of connecting to it.
        """
        stages, begun = self._stages, record.started_ns
        judged, reached, responded = record.policy_ns, record.upstream_reached_ns, record.upstream_responded_ns
        if judged and self._inbound:
            stages.policy.add(judged - (record.handshaken_ns or record.detected_ns or begun))
            begun = judged
        if reached:
            stages.upstream_connection.add(reached - begun)
            if responded:
                stages.upstream_response.add(responded - reached)

    def open_connection(self, decision: str, wire: Metered) -> None:
        """Count an opaque connection that stands; its bytes are read off `wire` whenever somebody looks."""
        peer = self._peer(decision)
        self._meter, self._metered = self.metrics.label_sets.connections(self._edge, peer, flags="-"), wire
        self._meter.open(wire)

    def close_connection(self, decision: str, reason: Reason) -> None:
        """Count the end of an opaque connection, and first its beginning if it was refused or led nowhere."""
        label_sets, edge, meter = self.metrics.label_sets, self._edge, self._meter
        peer = self._peer(decision) if meter is None else meter.peer
        if meter is None:
            label_sets.connections(edge, peer, flags="-").opened += 1
        elif self._metered is not None:
            meter.settle(self._metered)
            self._meter = self._metered = None
        label_sets.connections(edge, peer, flags=reason.consequence.flags).closed += 1
        self.metrics.opaque_ended(reason)

    def _peer(self, decision: str) -> Peer:
        """Say who is at the other end; outbound nobody is known to be before a server has proved who it is."""
        if self._inbound:
            return self._caller
        return self._server if decision == "allow" else None

    def shared(self) -> str:
        """Write the members that are the same in every record of the connection, whoever is called."""
        if not self._shared:
            self._shared = (
                f'"direction": "{self.direction}", "upstream_cluster": {self.upstream_cluster}, '
                f'"downstream_local_address": {self.local}, "downstream_remote_address": {self.remote}, '
                f'"requested_server_name": {self.sni}, "route_name": {self.upstream_cluster}, '
                f'"source_principal": {self.source}'
            )
        return self._shared

    def timestamp(self, at: float) -> str:
        """Write a time in RFC 3339, UTC, with milliseconds; the text of its second is kept (0.8 µs)."""
        whole = int(at)
        if whole != self._second:
            self._second = whole
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{self._second_text}.{int((at - whole) * 1000):03d}Z"


def _or_null(text: str) -> str:
    return quote(text) if text else "null"


class Record:
    """One request, or one connection whose content is opaque or was never reached."""

    __slots__ = (
        "asked",
        "authority",
        "bytes_received",
        "bytes_sent",
        "decision",
        "detail",
        "detected_ns",
        "explanation",
        "finished",
        "forwarded_for",
        "generation",
        "handshaken_ns",
        "method",
        "nearest_miss",
        "path",
        "policy_ns",
        "protocol",
        "request_id",
        "requests",
        "response_code",
        "response_details",
        "retries",
        "rule",
        "scope",
        "started_at",
        "started_ns",
        "trace_lines",
        "upstream_host",
        "upstream_local",
        "upstream_reached_ns",
        "upstream_responded_ns",
        "user_agent",
    )

    def __init__(self, scope: Scope, *, protocol: str, method: str = "", path: str = "") -> None:
        """Begin now. Without a `method` it is the record of a connection."""
        self.scope = scope
        self.started_at = time.time()
        self.started_ns = _clock()
        self.protocol = protocol
        self.method = method
        self.path = path
        self.authority = self.request_id = self.user_agent = self.forwarded_for = ""
        self.bytes_received = self.bytes_sent = 0
        self.response_code = 0
        self.response_details = ""
        self.decision = "none"
        self.rule = self.explanation = self.nearest_miss = self.detail = ""
        self.generation = 0
        self.asked: Asked | None = None
        self.trace_lines = b""
        self.retries = 0
        self.requests = 0
        self.upstream_host = self.upstream_local = ""
        self.detected_ns = self.handshaken_ns = self.policy_ns = 0
        self.upstream_reached_ns = self.upstream_responded_ns = 0
        self.finished = False

    def detected(self) -> None:
        """Note that it is known how the connection opens, on a port that takes plaintext too."""
        self.detected_ns = _clock()

    def handshaken(self) -> None:
        """Note the end of the TLS handshake."""
        self.handshaken_ns = _clock()

    def judged(self, verdict: Permit | Denial) -> None:
        """Note what policy said and how long it took since the record began."""
        self.policy_ns = _clock()
        self.rule = verdict.rule
        self.generation = verdict.generation
        if isinstance(verdict, Denial):
            self.decision = "deny"
            self.response_details = verdict.details
            self.explanation = verdict.explanation
            self.nearest_miss = verdict.nearest_miss
            self.asked = verdict.asked
        else:
            self.decision = "allow"
            if verdict.peer is not None and self.scope.direction == "outbound":
                self.scope.destination_is(verdict.peer.spiffe_id)
        if verdict.audited:
            self.explanation = (self.explanation + " " if self.explanation else "") + (
                "audited by " + ", ".join(verdict.audited)
            )

    def reached(self, host: str, local: str) -> None:
        """Note the upstream connection that the request goes out on."""
        self.upstream_reached_ns = _clock()
        self.upstream_host = host
        self.upstream_local = local

    def is_opaque(self) -> None:
        """Note that nobody looks into the connection: it is counted itself, not requests in it."""
        self.scope.opaque = True

    def carries(self, wire: Metered) -> None:
        """Note that an opaque connection stands; `wire` is its downstream side."""
        self.scope.open_connection(self.decision, wire)
        self.scope.count_stages(self)

    def responded(self, status: int) -> None:
        """Note the head of the answer."""
        self.upstream_responded_ns = _clock()
        self.response_code = status

    def finish(self, reason: Reason, detail: str = "") -> None:
        """Count the record and write it, once."""
        if self.finished:
            return
        self.finished = True
        scope = self.scope
        sink, ended = scope.sink, _clock()
        parts: Parts | None = None
        if not self.method:
            scope.metrics.connection_ended(scope.direction, self.decision, reason)
            if scope.opaque or (self.protocol == "TCP" and self.decision == "deny"):
                scope.close_connection(self.decision, reason)
        elif (
            sink is None
            or detail
            or self.explanation
            or self.response_details
            or self.nearest_miss
            or self.retries
            or self.asked is not None
            or not self.upstream_responded_ns
        ):
            scope.count_request(self, reason, ended)
            scope.metrics.retries += self.retries
        else:
            parts = scope.count_ordinary(self, reason, ended)
        if sink is not None:
            sink(written(self, parts or parts_of(self, reason, detail), ended))
        if scope.decisions is not None:
            scope.decisions.add(self, reason, detail)
