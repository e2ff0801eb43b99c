"""Istio's metrics: counted by records, and written as text exactly as prometheus-client writes them."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.policy import outbound
from proxy.telemetry.collector import MetricsCollector
from proxy.telemetry.label_sets import LabelSets
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import Edge, End, Naming
from proxy.telemetry.record import Record, Scope
from proxy.types import Denial, Generation, PeerIdentity, Permit

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")
LEDGER = SpiffeId.parse("spiffe://cluster.local/ns/books/sa/ledger")
OWN = End(workload="orders", namespace="demo", principal="spiffe://cluster.local/ns/demo/sa/orders")
NAMING = Naming(
    Edge(reporter="destination", own=OWN, service="unknown", service_name="orders", service_namespace="demo"),
    {
        "ledger": Edge(
            reporter="source", own=OWN, service="ledger.books", service_name="ledger", service_namespace="books"
        )
    },
)
DENIED = Denial(reason=Reason.DENIED_BY_POLICY, rule="none", generation=Generation(1), explanation="no")


class Wire:
    def __init__(self, read: int = 0, written: int = 0) -> None:
        self.bytes_read, self.bytes_written = read, written


def parsed(text: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def of(metrics: Metrics, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of one name, by some of their labels."""
    return {
        tuple(dict(all_labels)[label] for label in labels): value
        for (found, all_labels), value in parsed(metrics.exposition()).items()
        if found == name
    }


def scope(metrics: Metrics, direction: str = "inbound", caller: SpiffeId | None = WEB) -> Scope:
    cluster = "inbound|8080" if direction == "inbound" else "outbound|ledger"
    made = Scope(
        direction=direction, metrics=metrics, sink=lambda line: None, local="a", remote="b", upstream_cluster=cluster
    )
    if caller is not None:
        made.source_is(caller)
    return made


def server(spiffe_id: SpiffeId) -> Permit:
    peer = PeerIdentity(spiffe_id=spiffe_id, not_after=4e9, serial="01", fingerprint="00")
    return outbound("ledger", peer, Generation(1))


def request(at: Scope, status: int, reason: Reason = Reason.OK, verdict: Permit | Denial | None = None) -> Record:
    record = Record(at, protocol="HTTP/1.1", method="GET", path="/")
    if verdict is not None:
        record.judged(verdict)
    record.response_code = status
    record.bytes_received, record.bytes_sent = 10, 2_000
    record.finish(reason)
    return record


def test_requests_of_a_connection_are_counted_by_how_each_ended() -> None:
    metrics = Metrics(NAMING)
    at = scope(metrics)
    allowed = outbound("x", None, Generation(1))
    for status, reason, verdict in (
        (200, Reason.OK, allowed),
        (200, Reason.OK, allowed),
        (404, Reason.OK, allowed),
        (403, Reason.DENIED_BY_POLICY, DENIED),
        (200, Reason.OK, allowed),
        (200, Reason.DOWNSTREAM_RESET, allowed),
        (400, Reason.HEADER_INVALID, None),
    ):
        request(at, status, reason, verdict)
    assert of(metrics, "istio_requests_total", "response_code", "response_flags") == {
        ("200", "-"): 3,
        ("404", "-"): 1,
        ("403", "-"): 1,
        ("200", "DC"): 1,
        ("400", "DPE"): 1,
    }
    assert of(metrics, "istio_requests_total", "source_principal", "destination_principal", "request_protocol") == {
        (str(WEB), OWN.principal, "http"): 1
    }
    assert of(metrics, "istio_response_bytes_sum", "response_code", "response_flags")["200", "-"] == 6_000
    assert (
        sum(of(metrics, "istio_request_duration_milliseconds_count", "response_code", "response_flags").values()) == 7
    )
    ours = of(metrics, "remora_requests_total", "response_code", "decision", "reason")
    assert ours["200", "allow", "ok"] == 3
    assert ours["403", "deny", "denied_by_policy"] == 1
    assert sum(ours.values()) == 7


def test_outbound_each_request_names_the_server_that_it_went_to() -> None:
    metrics = Metrics(NAMING)
    at = scope(metrics, "outbound", SpiffeId.parse(OWN.principal))
    request(at, 200, verdict=server(LEDGER))
    request(at, 200, verdict=server(WEB))
    request(at, 200, verdict=server(LEDGER))
    request(at, 503, Reason.UPSTREAM_CONNECT_FAILED)
    found = of(metrics, "istio_requests_total", "destination_principal", "destination_workload_namespace")
    assert found == {(str(LEDGER), "books"): 2, (str(WEB), "shop"): 1, ("unknown", "unknown"): 1}
    assert set(of(metrics, "istio_requests_total", "reporter", "destination_service", "source_principal")) == {
        ("source", "ledger.books", OWN.principal)
    }


def test_a_request_that_reached_no_server_names_none_though_the_one_before_did() -> None:
    metrics = Metrics(NAMING)
    at = scope(metrics, "outbound", SpiffeId.parse(OWN.principal))
    request(at, 503, Reason.UPSTREAM_RESET, server(LEDGER))
    request(at, 503, Reason.UPSTREAM_RESET)
    found = of(metrics, "istio_requests_total", "destination_principal")
    assert found == {(str(LEDGER),): 1, ("unknown",): 1}
    assert of(metrics, "remora_requests_total", "decision") == {("allow",): 1, ("none",): 1}


def test_a_peer_that_becomes_known_is_counted_as_itself() -> None:
    metrics = Metrics(NAMING)
    at = scope(metrics, caller=None)
    request(at, 200)
    at.source_is(WEB)
    request(at, 200)
    found = of(metrics, "istio_requests_total", "source_principal", "connection_security_policy")
    assert found == {("unknown", "none"): 1, (str(WEB), "mutual_tls"): 1}


def test_an_opaque_connection_is_counted_while_it_is_open() -> None:
    metrics = Metrics(NAMING)
    record, wire = Record(scope(metrics), protocol="TCP"), Wire()
    record.judged(outbound("x", None, Generation(1)))
    record.is_opaque()
    assert of(metrics, "istio_tcp_connections_opened_total") == {}
    record.reached("a", "b")
    record.carries(wire)
    wire.bytes_read, wire.bytes_written = 100, 7
    labels = ("source_principal", "response_flags", "request_protocol")
    assert of(metrics, "istio_tcp_connections_opened_total", *labels) == {(str(WEB), "-", "tcp"): 1}
    assert of(metrics, "istio_tcp_received_bytes_total", *labels) == {(str(WEB), "-", "tcp"): 100}
    assert of(metrics, "istio_tcp_sent_bytes_total", *labels) == {(str(WEB), "-", "tcp"): 7}
    assert of(metrics, "istio_tcp_connections_closed_total") == {}
    wire.bytes_read = 150
    record.finish(Reason.DOWNSTREAM_RESET)
    record.finish(Reason.OK)
    assert of(metrics, "istio_tcp_received_bytes_total", *labels) == {(str(WEB), "-", "tcp"): 150}
    assert of(metrics, "istio_tcp_connections_opened_total", *labels) == {(str(WEB), "-", "tcp"): 1}
    assert of(metrics, "istio_tcp_connections_closed_total", *labels) == {(str(WEB), "DC", "tcp"): 1}
    assert of(metrics, "istio_requests_total") == {}


def test_an_opaque_connection_that_is_judged_again_and_denied_ends_where_it_began() -> None:
    metrics = Metrics(NAMING)
    record = Record(scope(metrics, "outbound", SpiffeId.parse(OWN.principal)), protocol="TCP")
    record.is_opaque()
    record.judged(server(LEDGER))
    record.carries(Wire(1, 1))
    record.judged(DENIED)
    record.finish(Reason.DENIED_BY_POLICY)
    for name in ("istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"):
        assert of(metrics, name, "destination_principal") == {(str(LEDGER),): 1}


def test_an_opaque_connection_that_leads_nowhere_begins_and_ends() -> None:
    metrics = Metrics(NAMING)
    record = Record(scope(metrics), protocol="TCP")
    record.is_opaque()
    record.finish(Reason.UPSTREAM_CONNECT_FAILED)
    assert of(metrics, "istio_tcp_connections_opened_total", "response_flags") == {("-",): 1}
    assert of(metrics, "istio_tcp_connections_closed_total", "response_flags") == {("UF",): 1}


def test_a_denied_connection_counts_and_one_that_proved_nothing_does_not() -> None:
    metrics = Metrics(NAMING)
    denied = Record(scope(metrics), protocol="TCP")
    denied.judged(DENIED)
    denied.finish(Reason.DENIED_BY_POLICY)
    Record(scope(metrics, caller=None), protocol="TCP").finish(Reason.NOT_TLS)
    Record(scope(metrics), protocol="HTTP/1.1").finish(Reason.OK)
    assert of(metrics, "istio_tcp_connections_closed_total", "source_principal") == {(str(WEB),): 1}


def test_the_buffer_limit_of_an_opaque_connection_is_a_limit_reached() -> None:
    metrics = Metrics(NAMING)
    record = Record(scope(metrics), protocol="TCP")
    record.is_opaque()
    record.carries(Wire())
    record.finish(Reason.BUFFER_LIMIT)
    assert of(metrics, "remora_limits_reached_total", "reason") == {("buffer_limit",): 1}


def stage_sums(metrics: Metrics, direction: str) -> dict[str, tuple[float, float]]:
    counts = of(metrics, "remora_stage_duration_seconds_count", "direction", "stage")
    sums = of(metrics, "remora_stage_duration_seconds_sum", "direction", "stage")
    return {
        stage: (count, round(sums[key, stage] * 1e6))
        for (key, stage), count in counts.items()
        if key == direction and count
    }


def staged(at: Scope, *, method: str, judged: int, reached: int, responded: int, handshaken: int = 0) -> Record:
    """A record whose stages ended so many microseconds after its start, 0 for never."""
    record = Record(at, protocol="HTTP/1.1", method=method)
    start = record.started_ns
    record.handshaken_ns, record.policy_ns, record.upstream_reached_ns, record.upstream_responded_ns = (
        start + after * 1_000 if after else 0 for after in (handshaken, judged, reached, responded)
    )
    return record


def test_stages_of_requests() -> None:
    metrics = Metrics(NAMING)
    staged(scope(metrics), method="GET", judged=5, reached=105, responded=400).finish(Reason.OK)
    staged(scope(metrics), method="GET", judged=7, reached=0, responded=0).finish(Reason.DENIED_BY_POLICY)
    staged(scope(metrics), method="GET", judged=8, reached=10, responded=0).finish(Reason.UPSTREAM_RESET)
    assert stage_sums(metrics, "inbound") == {
        "policy": (3, 20),
        "upstream_connection": (2, 102),
        "upstream_response": (1, 295),
    }
    assert stage_sums(metrics, "outbound") == {}


def test_outbound_the_decision_is_part_of_the_connection() -> None:
    metrics = Metrics(NAMING)
    staged(scope(metrics, "outbound"), method="GET", judged=900, reached=901, responded=1_000).finish(Reason.OK)
    assert stage_sums(metrics, "outbound") == {"upstream_connection": (1, 901), "upstream_response": (1, 99)}


def test_stages_of_an_opaque_connection_count_when_it_stands() -> None:
    metrics = Metrics(NAMING)
    record = staged(scope(metrics), method="", handshaken=800, judged=803, reached=900, responded=0)
    record.protocol = "TCP"
    record.is_opaque()
    record.carries(Wire())
    expected = {"policy": (1, 3), "upstream_connection": (1, 97)}
    assert stage_sums(metrics, "inbound") == expected
    record.finish(Reason.OK)
    assert stage_sums(metrics, "inbound") == expected


def fill(metrics: Metrics, requests: Iterable[tuple[str, int, int, int, int]]) -> None:
    for name, status, nanoseconds, received, sent in requests:
        edge = NAMING.edge("inbound", "inbound|1")
        edge = Edge(
            reporter="source", own=edge.own, service=name, service_name=name, service_namespace=edge.service_namespace
        )
        metrics.label_sets.requests(edge, WEB, status=status, flags="-").add(nanoseconds, received, sent)
        metrics.label_sets.connections(edge, WEB, flags="-").open(Wire(received, sent))
        metrics.label_sets.connections(edge, WEB, flags="DC").closed += 1


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=5),
            st.integers(0, 999),
            st.integers(0, 10**14),
            st.integers(0, 10**14),
            st.integers(0, 10**14),
        ),
        max_size=6,
    )
)
def test_the_quick_text_says_what_prometheus_client_says(requests: list[tuple[str, int, int, int, int]]) -> None:
    metrics = Metrics(NAMING, LabelSets(limit=8))
    fill(metrics, requests)
    # The parser of prometheus-client splits lines at every kind of line end, the format only at the line feed.
    quick, slow = (_lines(text) for text in (metrics.exposition(), generate_latest(MetricsCollector(metrics))))
    assert quick == slow


def _lines(text: bytes) -> list[tuple[str, frozenset[str], float]]:
    found = []
    for line in text.decode().split("\n"):
        if line.startswith("#") or not line:
            found.append((line, frozenset[str](), 0.0))
            continue
        sample, _, value = line.rpartition(" ")
        name, _, labels = sample.partition("{")
        found.append((name, frozenset(_labels(labels.removesuffix("}"))), float(value)))
    return sorted(found, key=lambda sample: (sample[0], sorted(sample[1])))


def _labels(text: str) -> list[str]:
    """Split labels at the commas that stand outside quotes."""
    parts, quoted, escaped, begun = [], False, False, 0
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(text[begun:index])
            begun = index + 1
    return [*parts, text[begun:]]


def test_many_label_sets_come_in_parts_of_a_bounded_size() -> None:
    metrics = Metrics(NAMING)
    fill(metrics, ((f"s{number}", 200, 1, 1, 1) for number in range(100)))
    parts = list(metrics.exposition_parts())
    assert len(parts) > 50
    assert max(map(len, parts)) < 65_536
    assert b"".join(parts) == metrics.exposition()


def test_what_is_counted_while_it_is_written_leaves_each_histogram_whole() -> None:
    metrics = Metrics(NAMING)
    fill(metrics, ((f"s{number}", 200, 1, 1, 1) for number in range(30)))
    text = b""
    for turn, part in enumerate(metrics.exposition_parts()):
        text += part
        fill(metrics, [("s0", 200, 1, 1, 1), (f"new{turn}", 200, 1, 1, 1)])
    found = parsed(text)
    for (name, labels), value in found.items():
        if name == "istio_response_bytes_count":
            assert found["istio_response_bytes_bucket", labels | {("le", "+Inf")}] == value
