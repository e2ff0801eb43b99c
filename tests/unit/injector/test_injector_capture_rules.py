"""What is captured, from the arguments of the capture step: each read, each bad one refused by its name."""

from __future__ import annotations

import pytest

from injector import sidecar
from injector.capture.rules import ARGUMENTS, Family, Rules, RulesError, networks, read_rules
from injector.ports import ALL, NONE, Ports
from injector.settings import Settings


def test_the_capture_step_of_a_pod_is_told_nothing_that_the_command_does_not_know() -> None:
    every = Settings(
        include_outbound_ports=Ports.parse("443"),
        exclude_outbound_ports=Ports.parse("25"),
        exclude_outbound_ip_ranges=("10.0.0.0/8", "fd00::/8"),
        exclude_interfaces=("eth1",),
    )
    arguments = sidecar.capture(every)["args"]
    assert isinstance(arguments, list)
    given = {flag.removeprefix("--"): value for flag, value in zip(arguments[2::2], arguments[3::2], strict=True)}
    assert set(given) == set(ARGUMENTS)
    assert read_rules(given) == Rules(
        include_inbound_ports=ALL,
        exclude_inbound_ports=Ports.parse("15020"),
        include_outbound_ports=Ports.parse("443"),
        exclude_outbound_ports=Ports.parse("25"),
        include_outbound_ip_ranges=("0.0.0.0/0", "::/0"),
        exclude_outbound_ip_ranges=("10.0.0.0/8", "fd00::/8"),
        exclude_interfaces=("eth1",),
    )


def test_without_arguments_nothing_is_captured() -> None:
    rules = read_rules({})
    assert rules == Rules()
    assert (rules.inbound_port, rules.outbound_port, rules.uid, rules.gid) == (15006, 15001, 1337, 1337)
    assert (rules.include_inbound_ports, rules.included(Family.IPV4), rules.included(Family.IPV6)) == (NONE, (), ())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"inbound-port": "0"}, "--inbound-port: '0'"),
        ({"inbound-port": "80,81"}, "--inbound-port: '80,81' is no port: write one number from 1 to 65535"),
        ({"inbound-port": "80-81"}, "--inbound-port: '80-81' is no port"),
        ({"inbound-port": ""}, "--inbound-port: '' is no port"),
        ({"outbound-port": "*"}, "--outbound-port: '*' is no port"),
        ({"outbound-port": "15006"}, "--inbound-port and --outbound-port are both 15006"),
        ({"uid": "0"}, "--uid: '0' is no id of a sidecar: write one from 1 to 4294967294, by convention 1337"),
        ({"uid": "4294967295"}, "--uid: '4294967295' is no id"),
        ({"gid": "-1"}, "--gid: '-1' is no id"),
        ({"gid": "٣"}, "--gid: '٣' is no id"),
        ({"gid": "9" * 5000}, "--gid: '99999999999999999999' is no id"),
        ({"include-inbound-ports": "http"}, "--include-inbound-ports: "),
        ({"exclude-outbound-ports": "70000"}, "--exclude-outbound-ports: "),
        ({"include-outbound-ip-ranges": "10.0.0.1/8"}, "--include-outbound-ip-ranges: '10.0.0.1/8': write networks"),
        ({"exclude-interfaces": "eth0;x"}, "--exclude-interfaces: 'eth0;x': write names of interfaces"),
    ],
)
def test_a_bad_argument_is_refused_by_its_name(arguments: dict[str, str], told: str) -> None:
    with pytest.raises(RulesError) as caught:
        read_rules(arguments)
    assert str(caught.value).startswith(told)


def test_the_largest_ids_and_equal_ones_are_taken() -> None:
    rules = read_rules({"uid": "4294967294", "gid": "1"})
    assert (rules.uid, rules.gid) == (4294967294, 1)


@pytest.mark.parametrize(
    ("written", "family", "found"),
    [
        (("10.0.0.0/8", "10.1.0.0/16", "9.0.0.0/8"), Family.IPV4, ("9.0.0.0/8", "10.0.0.0/8")),
        (("10.0.0.0/9", "10.128.0.0/9", "fd00::/8"), Family.IPV4, ("10.0.0.0/8",)),
        (("::/1", "8000::/1", "1.0.0.0/8"), Family.IPV6, ("::/0",)),
        ((), Family.IPV6, ()),
    ],
)
def test_networks_of_a_family_stand_apart_from_each_other(
    written: tuple[str, ...], family: Family, found: tuple[str, ...]
) -> None:
    assert networks(written, family) == found


def test_what_rules_say_differently_in_each_family() -> None:
    assert [(each.loopback, each.pass_source, each.everything) for each in Family] == [
        ("127.0.0.0/8", "127.0.0.6", "0.0.0.0/0"),
        ("::1/128", "::6", "::/0"),
    ]
