"""What is dialled to try the rules: captured by them, met by nobody else, or the reason why there is no such thing."""

from __future__ import annotations

from typing import Any

import pytest

from injector.capture.rules import Family, Rules
from injector.capture.trial import NoTrial, inbound, outbound
from injector.ports import ALL, Ports

EVERY = ("0.0.0.0/0", "::/0")


def rules(**values: Any) -> Rules:
    read = {key: Ports.parse(value) if isinstance(value, str) else value for key, value in values.items()}
    return Rules(**read)


@pytest.mark.parametrize(
    ("values", "family", "dialled"),
    [
        ({"include_outbound_ip_ranges": EVERY}, Family.IPV4, ("192.0.2.1", 80)),
        ({"include_outbound_ip_ranges": EVERY}, Family.IPV6, ("2001:db8::1", 80)),
        (
            {"include_outbound_ip_ranges": EVERY, "exclude_outbound_ip_ranges": ("192.0.2.0/24",)},
            Family.IPV4,
            ("198.51.100.1", 80),
        ),
        ({"include_outbound_ip_ranges": ("203.0.113.0/24",)}, Family.IPV4, ("203.0.113.1", 80)),
        ({"include_outbound_ip_ranges": EVERY, "exclude_outbound_ports": "80"}, Family.IPV4, ("192.0.2.1", 443)),
        ({"include_outbound_ip_ranges": EVERY, "exclude_outbound_ports": "1-8079"}, Family.IPV4, ("192.0.2.1", 8080)),
        ({"include_outbound_ports": "53,9000-9001"}, Family.IPV6, ("2001:db8::1", 9000)),
    ],
)
def test_a_call_that_is_captured_is_found(values: dict[str, Any], family: Family, dialled: tuple[str, int]) -> None:
    assert outbound(rules(**values), family) == dialled


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"include_outbound_ip_ranges": ("10.0.0.0/8",)},
        {"include_outbound_ports": "53"},
        {"include_outbound_ports": "15001,15006,15000,15020"},
        {"include_outbound_ip_ranges": EVERY, "exclude_outbound_ports": "*"},
        {"include_outbound_ip_ranges": EVERY, "exclude_outbound_ip_ranges": EVERY},
        {"include_outbound_ports": "4000", "outbound_port": 4000},
    ],
)
def test_where_no_call_can_be_tried_the_reason_is_given(values: dict[str, Any]) -> None:
    for family in Family:
        with pytest.raises(NoTrial, match="no address for tests"):
            outbound(rules(**values), family)


@pytest.mark.parametrize(
    ("values", "port"),
    [
        ({"include_inbound_ports": ALL}, 80),
        ({"include_inbound_ports": ALL, "exclude_inbound_ports": "80"}, 443),
        ({"include_inbound_ports": "8080-8090", "exclude_inbound_ports": "8080"}, 8081),
        ({"include_inbound_ports": "15000-15030"}, 15002),
        ({"include_inbound_ports": "4000-4001", "inbound_port": 4000}, 4001),
    ],
)
def test_a_caller_that_is_captured_is_found(values: dict[str, Any], port: int) -> None:
    assert inbound(rules(**values)) == port


@pytest.mark.parametrize("values", [{}, {"include_inbound_ports": "80", "exclude_inbound_ports": "*"}])
def test_where_no_caller_is_captured_the_reason_is_given(values: dict[str, Any]) -> None:
    with pytest.raises(NoTrial, match="no inbound port is captured"):
        inbound(rules(**values))
