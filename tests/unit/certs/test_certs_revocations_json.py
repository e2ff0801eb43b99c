"""A revocation list is read back as it was written, or refused whole with the file that it stands in."""

from __future__ import annotations

import datetime
import json

import pytest

from certs.revocations import Kind, Reason, Revocation, RevocationError, Revocations
from certs.revocations_json import revocations_from_json, revocations_to_json

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
ORDERS = "spiffe://cluster.local/ns/demo/sa/orders"
KEY = "ab" * 32


def entry(kind: Kind, value: str, key: str | None = None) -> Revocation:
    end = NOW + HOUR if kind is Kind.SERIAL else None
    return Revocation(kind=kind, value=value, when=NOW, reason=Reason.SUPERSEDED, who="alice", not_after=end, key=key)


def test_a_list_is_read_back_as_it_was() -> None:
    revoked = Revocations().add(entry(Kind.SERIAL, "1f", key=KEY)).add(entry(Kind.IDENTITY, ORDERS))
    revoked = revoked.lift(Kind.IDENTITY, ORDERS, NOW, issuer_end=NOW + HOUR).add(entry(Kind.KEY, KEY))
    assert revocations_from_json(revocations_to_json(revoked), "revocations.json") == revoked


GOOD: dict[str, object] = json.loads(revocations_to_json(Revocations().add(entry(Kind.SERIAL, "1f"))))
GOOD_ENTRY: dict[str, object] = GOOD["entries"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"version": 1, "version": 1}', "twice"),
        (b'{"version": 1, "sequence": NaN, "entries": []}', "no JSON number"),
        (b"[]", "no object"),
        (b'{"version": 1, "sequence": 1}', "'entries' is missing"),
        ({**GOOD, "more": 1}, "'more' is not known"),
        ({**GOOD, "version": 2}, "another release"),
        ({**GOOD, "version": True}, "another release"),
        ({**GOOD, "sequence": -1}, "no whole number"),
        ({**GOOD, "sequence": True}, "no whole number"),
        ({**GOOD, "entries": {}}, "no list"),
        ({**GOOD, "entries": [GOOD_ENTRY, GOOD_ENTRY]}, "twice"),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "kind": "name"}]}, "entry 1"),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "reason": "certificateHold"}]}, "entry 1"),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "who": 7}]}, "no text"),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "when": None}]}, '"when" is missing'),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "when": 10**30}]}, "seconds since the epoch"),
        ({**GOOD, "entries": [{**GOOD_ENTRY, "value": "0"}]}, "no serial number"),
    ],
)
def test_what_is_no_list_is_refused_with_the_file(document: bytes | dict[str, object], says: str) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(RevocationError, match=says) as caught:
        revocations_from_json(data, "revocations.json")
    assert str(caught.value).startswith("revocations.json: ")
