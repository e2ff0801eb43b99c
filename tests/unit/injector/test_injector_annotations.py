"""The table of annotations: each value read, each bad one refused with what is allowed, each key that means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from injector import names
from injector.annotations import ANNOTATIONS, BY_KEY, HINTS, AnnotationError, markdown_table, read_settings, value_text
from injector.ports import ALL, Ports
from injector.settings import Capture, Settings

REDIRECT_ONLY = {
    "include-inbound-ports",
    "exclude-inbound-ports",
    "include-outbound-ports",
    "exclude-outbound-ports",
    "include-outbound-ip-ranges",
    "exclude-outbound-ip-ranges",
    "exclude-interfaces",
    "unknown-outbound",
}


def annotated(**values: str) -> dict[str, object]:
    return {names.PREFIX + key.replace("_", "-"): value for key, value in values.items()}


def warnings(annotations: dict[str, object], defaults: Settings | None = None) -> list[str]:
    return read_settings(annotations, defaults or Settings())[1]


def faults(annotations: dict[str, object], defaults: Settings | None = None) -> tuple[str, ...]:
    with pytest.raises(AnnotationError) as caught:
        read_settings(annotations, defaults or Settings())
    return caught.value.messages


@pytest.mark.parametrize("row", ANNOTATIONS, ids=lambda row: row.key)
def test_a_default_as_written_in_the_table_is_read_as_itself(row: object) -> None:
    annotation = BY_KEY[row.key]  # type: ignore[attr-defined]
    text = value_text(annotation.default)
    if text:
        assert annotation.read(text) == annotation.default


def test_the_pod_wins_over_the_defaults_and_leaves_the_rest() -> None:
    defaults = Settings(log_level="error", workers=3)
    assert read_settings(annotated(log_level=" debug "), defaults)[0] == replace(defaults, log_level="debug")


def test_every_bad_value_is_said_at_once_with_key_value_and_what_is_allowed() -> None:
    found = faults(annotated(workers="0", capture="rules", log_level="inf"))
    assert found == (
        'the annotation remora.io/log-level is "inf": write one of debug, info, warning, error; did you mean info?',
        'the annotation remora.io/workers is "0": write an integer from 1 to 64',
        'the annotation remora.io/capture is "rules": write one of redirect, ports',
    )


@pytest.mark.parametrize("written", [True, 5, None, ["x"], {}])
def test_a_value_that_is_no_text_is_refused(written: object) -> None:
    [fault] = faults({"remora.io/rewrite-probes": written})
    assert "write it in quotes" in fault


def test_a_value_has_a_length() -> None:
    assert read_settings(annotated(opaque_ports="1" + "," * 4095), Settings())[0].opaque_ports == Ports.parse("1")
    [fault] = faults(annotated(opaque_ports="1" + "," * 4096))
    assert "at most 4096 bytes" in fault
    assert len(fault) < 300


@pytest.mark.parametrize(
    ("annotations", "defaults", "sentence"),
    [
        (
            annotated(cpu_limit="50m"),
            Settings(),
            "remora.io/cpu-limit 50m is below remora.io/cpu-request 100m: raise the limit "
            "(annotation remora.io/cpu-limit; the rest by the defaults)",
        ),
        (
            annotated(memory_request="1Gi"),
            Settings(memory_limit="1000M"),
            "remora.io/memory-limit 1000M is below remora.io/memory-request 1Gi: raise the limit "
            "(annotation remora.io/memory-request; the rest by the defaults)",
        ),
        ({}, Settings(cpu_limit="1m"), "(both by the defaults)"),
        (
            annotated(authority_identity="spiffe://a.b/ns/x/sa/y"),
            Settings(),
            "remora.io/authority-identity spiffe://a.b/ns/x/sa/y is of a.b, and remora.io/trust-domain is "
            "cluster.local: an authority is of the domain it signs for",
        ),
        (
            annotated(opaque_ports="80-90", inbound_ports="85=http"),
            Settings(),
            "port 85 is http by remora.io/inbound-ports and opaque by remora.io/opaque-ports: keep one",
        ),
    ],
)
def test_what_cannot_hold_together_is_refused_with_where_it_comes_from(
    annotations: dict[str, object], defaults: Settings, sentence: str
) -> None:
    [fault] = faults(annotations, defaults)
    assert sentence in fault


def test_a_limit_that_is_the_request_is_taken_in_whatever_unit() -> None:
    settings, _ = read_settings(annotated(memory_request="1Gi", memory_limit="1024Mi"), Settings())
    assert settings.memory_limit == "1024Mi"


def test_an_unknown_key_is_a_warning_with_the_nearest_one() -> None:
    [near] = warnings({"remora.io/log-levle": "debug"})
    assert near.endswith("is not known and does nothing: did you mean remora.io/log-level?")
    [far] = warnings({"remora.io/zzzzzzzz": "x"})
    assert far.endswith("`remora injector annotations` lists those that exist")
    assert warnings({"other.io/log-levle": "debug", "remora.io/inject": "true"}) == []


@pytest.mark.parametrize("key", [names.STATUS, names.CONFIG, names.TRUST_BUNDLE])
def test_an_annotation_of_the_injector_itself_is_named_on_a_pod_that_is_not_injected(key: str) -> None:
    assert any(key in warning for warning in warnings({key: "x"})) is (key != names.STATUS)
    assert warnings({key: "x", names.STATUS: "{}"}) == []


@pytest.mark.parametrize("key", sorted(REDIRECT_ONLY))
def test_what_speaks_of_rules_does_nothing_without_them(key: str) -> None:
    value = {"unknown-outbound": "passthrough", "exclude-interfaces": "eth1"}.get(key, "*")
    assert warnings({names.PREFIX + key: value}) == []
    [warning] = warnings({names.PREFIX + key: value, **annotated(capture="ports")})
    assert warning == f"remora.io/{key} does nothing with remora.io/capture ports, which captures nothing: remove it"


def test_nothing_else_speaks_of_rules() -> None:
    assert {row.key for row in ANNOTATIONS if row.is_for_redirect} == REDIRECT_ONLY


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("image-pull-policy", ["Always", "IfNotPresent", "Never"]),
        ("access-log", ["stdout", "off"]),
        ("log-level", ["debug", "info", "warning", "error"]),
        ("capture", ["redirect", "ports"]),
        ("unknown-outbound", ["reject", "passthrough"]),
        ("policy-default", ["deny", "allow-authenticated", "allow-all", "audit"]),
        ("drain-timeout", ["0s", "1h"]),
        ("token-lifetime", ["10m", "24h"]),
        ("certificate-lifetime", ["0s", "1m", "2160h"]),
    ],
)
def test_every_value_that_the_table_names_is_taken(key: str, texts: list[str]) -> None:
    for text in texts:
        assert value_text(getattr(read_settings({f"remora.io/{key}": text}, Settings())[0], BY_KEY[key].field)) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("drain-timeout", "61m"),
        ("token-lifetime", "599s"),
        ("token-lifetime", "1441m"),
        ("certificate-lifetime", "59s"),
    ],
)
def test_a_duration_out_of_bounds_is_refused(key: str, text: str) -> None:
    assert f'remora.io/{key} is "{text}": write ' in faults({f"remora.io/{key}": text})[0]


def test_http_and_opaque_at_different_ports_are_no_conflict() -> None:
    settings, _ = read_settings(annotated(opaque_ports="80", inbound_ports="81=http,80=tcp"), Settings())
    assert settings.inbound_ports == {81: "http", 80: "tcp"}


def test_what_speaks_of_listeners_does_nothing_with_rules() -> None:
    listeners = annotated(outbound_listeners="orders=9001")
    assert "outbound-listeners does nothing" in warnings(listeners)[0]
    assert warnings(listeners, Settings(capture=Capture.PORTS)) == []


def test_a_native_sidecar_need_not_be_waited_for() -> None:
    held = annotated(hold_application="false")
    assert "hold-application does nothing" in warnings(held)[0]
    assert warnings(held, Settings(native_sidecar=False)) == []


@pytest.mark.parametrize(("key", "ours"), HINTS.items())
def test_another_meshs_annotation_is_answered_with_ours(key: str, ours: str) -> None:
    assert warnings({key: "true"}) == [
        f"the annotation {key} is another mesh's and does nothing here: write remora.io/{ours}"
    ]
    assert ours == "inject" or ours in BY_KEY


def test_another_meshs_annotation_without_an_equal_is_named_and_its_status_is_not() -> None:
    assert warnings({"traffic.sidecar.istio.io/kubevirtInterfaces": "x"})[0].endswith("does nothing here")
    assert warnings({"config.linkerd.io/enable-gateway": "x"})[0].endswith("does nothing here")
    assert warnings({"sidecar.istio.io/status": "{}"}) == []


def test_the_table_for_people_has_every_key_once() -> None:
    lines = markdown_table().splitlines()
    keys = [line.split("`")[1] for line in lines[2:]]
    assert keys == ["remora.io/inject", *(row.full_key for row in ANNOTATIONS)]
    assert all(line.count(" | ") == 3 for line in lines[2:])


def test_values_are_written_as_annotations_have_them() -> None:
    assert value_text(ALL) == "*"
    assert value_text(("0.0.0.0/0", "::/0")) == "*"
    assert value_text(("10.0.0.0/8", "fd00::/8")) == "10.0.0.0/8,fd00::/8"
    assert value_text({85: "http", 90: "tcp"}) == "85=http,90=tcp"
    assert value_text(90.0) == "90s"
    assert (value_text(True), value_text(False)) == ("true", "false")
