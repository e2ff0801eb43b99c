"""What the authority says is read: where a rotation stands, which roots there are, who was given what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from demo_samples import LAYOUT, spiffe

from certs.testing import MemoryAuthority
from demo import authority
from demo.layout import Layout

STATUS = f"""\
authority of cluster.local
bundle sequence 2 with 2 roots; intermediate 2174771777c8 signs under root 1124532c190b
root d9ac8bf7b4b0 is published; it waits 3 s for refreshes
2 sidecars have not confirmed sequence 2: {spiffe("orders")}#orders-7c9, {spiffe("web")}#web-12
root ends 2036-11-23T00:00:00Z: 1124532c190b
intermediate ends 2027-11-26T00:00:00Z: 2174771777c8
revocation list 0 with 0 entries
"""


def test_a_status_is_told_for_as_far_as_it_speaks_of_the_rotation() -> None:
    assert authority.standing(STATUS) == [
        "bundle sequence 2 with 2 roots; intermediate 2174771777c8 signs under root 1124532c190b",
        "root d9ac8bf7b4b0 is published; it waits 3 s for refreshes",
        "2 sidecars have not confirmed sequence 2: ns/shop/sa/orders, ns/shop/sa/web",
    ]


def test_what_it_issued_to_itself_is_left_out_and_so_is_half_a_line(tmp_path: Path) -> None:
    layout = Layout(directory=tmp_path, base=21_000)
    own = {"event": "issued", "identity": "spiffe://cluster.local/own", "remote_address": "-"}
    first = {"event": "issued", "identity": spiffe("web"), "remote_address": "127.0.0.1:4"}
    refused = {"event": "refused", "identity": spiffe("web"), "remote_address": "127.0.0.1:5"}
    layout.audit_log.write_text("".join(json.dumps(line) + "\n" for line in (own, first, refused, first)) + '{"ev')
    lines = authority.audit_lines(layout)
    assert lines == [first, refused, first]
    assert authority.issued(lines) == {spiffe("web"): 2}


def test_an_audit_line_is_told_without_what_is_null() -> None:
    assert authority.told({"event": "issued", "reason": None, "serial": "5f"}) == '{"event": "issued", "serial": "5f"}'


def test_roots_are_told_as_the_authority_tells_them(tmp_path: Path) -> None:
    layout = Layout(directory=tmp_path, base=21_000)
    mesh = MemoryAuthority()
    layout.bundle.write_bytes(mesh.bundle.to_pem())
    assert authority.roots(layout) == [hashlib.sha256(mesh.root.public_bytes(Encoding.DER)).hexdigest()[:12]]


def test_it_serves_where_the_sidecars_ask() -> None:
    words = authority.serve_words(LAYOUT, "10s")
    assert words[words.index("--listen") + 1] == f"127.0.0.1:{LAYOUT.port('authority')}"
    assert LAYOUT.url("authority", scheme="https") in LAYOUT.sidecar_configuration("web")
