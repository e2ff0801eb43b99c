"""The authority of the mesh, from its operator's side: each order is a command that a person could type.

    remora authority init --directory authority ...      the root, the intermediate, their keys, sealed
    remora authority serve --directory authority ...     a process of its own (mesh.py starts it)
    remora authority token create, rotate, revoke, ...   reach that process by a socket in its directory

Its pace is a laboratory's. A root is used three seconds after it was published, and not three times five minutes;
certificates live ten seconds while the tour lasts, so that an old root can go while somebody looks, and two minutes
afterwards; nobody would do that where it counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cryptography.hazmat.primitives import hashes

from certs.bundle import parse_bundle
from certs.files import replace_file, write_private_file
from certs.spiffe import parse_trust_domain
from demo.command import run_remora
from demo.layout import AUTHORITY, AUTHORITY_AUDIT, TRUST_DOMAIN, Layout, identity_of

BRIEF: Final = "10s"
"""How long a certificate lives in the tour: the last one of the old root has to end before that root may go."""
LONGER: Final = "2m"
"""And when somebody stays: renewals twice a minute, and a rotation by hand that ends in two minutes."""

_PACE: Final = ("--refresh-hint", "1s", "--hints", "3", "--window", "60s", "--margin", "1s")
_RATE: Final = "5:100"
"""Of one identity; what is usual (one in five seconds) is for certificates that live a day."""
_DIGITS: Final = 12
"""As many of a root's fingerprint as `remora authority status` writes."""


def found(layout: Layout) -> None:
    """Make the authority. Raises MeshError."""
    order(layout, "init", "--trust-domain", TRUST_DOMAIN, *_PACE)


def serve_words(layout: Layout, lifetime: str) -> list[str]:
    """Give the words after `remora` that serve it, with certificates of this lifetime."""
    return [
        *("authority", "serve", "--directory", AUTHORITY),
        *("--listen", f"127.0.0.1:{layout.port('authority')}"),
        *("--health-listen", f"127.0.0.1:{layout.port('authority_health')}"),
        *("--audit-log", AUTHORITY_AUDIT, "--lifetime", lifetime, "--own-lifetime", lifetime),
        *("--identity-rate", _RATE),
    ]


def order(layout: Layout, command: str, *words: str) -> str:
    """Have a command of `remora authority` carried out; give what it says. Raises MeshError."""
    return run_remora(layout.directory, ["authority", *command.split(), "--directory", AUTHORITY, *words])


def admit(layout: Layout, names: Iterable[str]) -> None:
    """Mount a join token for each of these workloads. In a cluster it is their ServiceAccount's token that admits them.

    Raises MeshError.
    """

    def make(name: str) -> tuple[str, str]:
        return name, order(layout, "token create", "--identity", identity_of(name))

    with ThreadPoolExecutor(max_workers=4) as pool:
        for name, token in pool.map(make, names):
            file = layout.token(name)
            file.unlink(missing_ok=True)
            write_private_file(file, token.encode())


def publish_bundle(layout: Layout) -> None:
    """Write the trust bundle where everybody finds it who has none yet. Raises MeshError."""
    replace_file(layout.bundle, order(layout, "export bundle", "--form", "pem").encode())


def roots(layout: Layout) -> list[str]:
    """Give the roots in the bundle file, each by the beginning of its SHA-256."""
    bundle = parse_bundle(parse_trust_domain(TRUST_DOMAIN), layout.bundle.read_bytes(), layout.bundle.name)
    return [root.fingerprint(hashes.SHA256()).hex()[:_DIGITS] for root in bundle.certificates]


def standing(said: str) -> list[str]:
    """Take out of what `status` or `rotate` says where the rotation stands: identities short, without instances.

    >>> standing("authority of td\\nbundle sequence 1 with 1 root\\nroot ends 2036-01-01\\nrevocation list 0")
    ['bundle sequence 1 with 1 root']
    """
    lines = []
    for line in said.splitlines():
        if line.startswith(("root ends ", "intermediate ends ")):
            break
        if not line.startswith("authority of "):
            words = [
                word.partition("#")[0] + ("," if word.endswith(",") and "#" in word else "") for word in line.split()
            ]
            lines.append(" ".join(words).replace(f"spiffe://{TRUST_DOMAIN}/", ""))
    return lines


def audit_lines(layout: Layout) -> list[dict[str, Any]]:
    """Read the audit log, whole lines only; without what the authority issued to itself."""
    whole = layout.audit_log.read_bytes().rpartition(b"\n")[0]
    lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
    return [line for line in lines if line["remote_address"] != "-"]


def issued(lines: Iterable[dict[str, Any]]) -> Counter[str]:
    """Count the certificates that were issued -> to whom."""
    return Counter(line["identity"] for line in lines if line["event"] == "issued")


def told(line: dict[str, Any]) -> str:
    """Write an audit line as it stands in the log, without the members that are null in it."""
    return json.dumps({name: value for name, value in line.items() if value is not None})
