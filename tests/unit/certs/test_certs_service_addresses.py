"""Who shares the grants of an address: one IPv4 address, one network of 64 bits of IPv6."""

from __future__ import annotations

import datetime
from typing import Any, cast

import pytest

from certs.rates import Rate
from certs.service import Connection, Moment, Office, Service

MOMENT = Moment(now=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC), ticks=100.0)


class AuditOnly:
    """All that a request needs which is refused as soon as it was read."""

    def audit(self, line: str) -> None:
        """Keep nothing."""


def statuses(*addresses: str) -> list[int]:
    service = Service(cast(Office, AuditOnly()), replica="a", address_rate=Rate(per_second=1.0, burst=1))
    found = []
    for address in addresses:
        work: Any = service.sign(b"{}", Connection(remote_address=address), lambda caller: None, MOMENT)
        with pytest.raises(StopIteration) as ended:
            work.send(None)
        found.append(ended.value.value.status)
    return found


@pytest.mark.parametrize(
    "addresses",
    [
        ("192.0.2.7:1", "192.0.2.7:2"),
        ("[2001:db8::1]:1", "[2001:db8::1]:2"),
        ("[2001:db8::1]:1", "[2001:db8::ffff:ffff:ffff:ffff]:1"),
    ],
)
def test_these_are_one_caller(addresses: tuple[str, ...]) -> None:
    assert statuses(*addresses) == [400, 429]


@pytest.mark.parametrize(
    "addresses",
    [
        ("192.0.2.7:1", "192.0.2.8:1"),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"),
        ("[::1]:1", "127.0.0.1:1"),
    ],
)
def test_these_are_two(addresses: tuple[str, ...]) -> None:
    assert statuses(*addresses) == [400, 400]
