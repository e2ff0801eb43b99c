"""batch: a workload without a sidecar, which does by itself what a sidecar does for others.

It makes a key, asks the authority for a certificate with its join token, renews it at half of its lifetime with the
certificate that it has, and asks each second for the trust bundle, saying which one it holds. All of it by Python's own
TLS and nothing of the proxy: what the authority takes and gives is JSON over HTTPS.

Started by: python -m demo.batch --authority PORT --home DIRECTORY --bundle FILE
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import parse_bundle
from certs.files import publish
from certs.keys import generate_key, signing_hash, write_key
from certs.spiffe import parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE
from demo.callers import is_peer
from demo.layout import AUTHORITY_ID, IDENTITY, TOKEN, TRUST_DOMAIN

_SECONDS: Final = 5.0
_EVERY: Final = 1.0
_INSTANCE: Final = "batch"


class AskError(Exception):
    """The authority did not give what it was asked for; with its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What batch holds: a certificate that is to be renewed at `due` (seconds since the epoch), and the bundle."""

    chain: bytes
    key: bytes
    due: float
    bundle: dict[str, Any]


class Batch:
    """One workload that keeps itself enrolled; `step` each second."""

    def __init__(self, port: int, home: Path, bundle_file: Path) -> None:
        self._port = port
        self._home = home
        self._bundle_file = bundle_file
        self._held: Held | None = None

    def step(self, now: float) -> None:
        """Do what is due. Raises AskError, and OSError for files that cannot be read or written."""
        held = self._held
        if held is None:
            self._enrol(now, shows_certificate=False)
        elif now >= held.due:
            try:
                self._enrol(now, shows_certificate=True)
            except AskError:
                # Revoked, or ended while we slept: only a token helps, and somebody may have brought one.
                self._enrol(now, shows_certificate=False)
        else:
            self._poll(held)

    def _enrol(self, now: float, *, shows_certificate: bool) -> None:
        key = generate_key()
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, signing_hash(key))
        members: dict[str, object] = {"csr": request.public_bytes(Encoding.PEM).decode(), "instance": _INSTANCE}
        if not shows_certificate:
            members["token"] = (self._home / TOKEN).read_text().strip()
        if self._held is not None:
            members["bundle_sequence"] = self._held.bundle["spiffe_sequence"]
        answer = self._ask("POST", "/v1/sign", json.dumps(members), shows_certificate=shows_certificate)
        ends = datetime.datetime.fromisoformat(answer["not_after"]).timestamp()
        self._take(
            Held(
                chain=answer["chain"].encode(),
                key=write_key(key),
                due=now + (ends - now) / 2,
                bundle=answer["bundle"],
            )
        )

    def _poll(self, held: Held) -> None:
        path = f"/v1/bundle?confirms={held.bundle['spiffe_sequence']}&instance={_INSTANCE}"
        bundle = self._ask("GET", path, None, shows_certificate=True)
        if bundle != held.bundle:
            self._take(Held(chain=held.chain, key=held.key, due=held.due, bundle=bundle))

    def _take(self, held: Held) -> None:
        roots = parse_bundle(parse_trust_domain(TRUST_DOMAIN), json.dumps(held.bundle).encode(), "the bundle")
        files = {CERTIFICATE_FILE: held.chain, KEY_FILE: held.key, ROOTS_FILE: roots.to_pem()}
        publish(self._home / IDENTITY, files)
        self._held = held

    def _ask(self, method: str, path: str, body: str | None, *, shows_certificate: bool) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # it is known by its identity
        files = self._home / IDENTITY
        context.load_verify_locations(self._bundle_file if self._held is None else files / ROOTS_FILE)
        if shows_certificate:
            context.load_cert_chain(files / CERTIFICATE_FILE, files / KEY_FILE)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=_SECONDS, context=context)
        try:
            connection.connect()
            if not is_peer(connection.sock, AUTHORITY_ID):
                raise AskError(f"the server on port {self._port} is not {AUTHORITY_ID}")
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as failure:
            raise AskError(f"{method} {path.partition('?')[0]}: {failure}") from failure
        finally:
            connection.close()
        if response.status != 200:
            raise AskError(f"the authority answers {response.status}: {answer['reason']}: {answer['message']}")
        return answer


def main(argv: Sequence[str]) -> int:
    """Stay enrolled until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m demo.batch", description="A workload of the demo, no sidecar.")
    parser.add_argument("--authority", type=int, required=True, help="the port of 127.0.0.1 where it signs")
    parser.add_argument("--home", type=Path, required=True, help="where the token is and the identity goes")
    parser.add_argument("--bundle", type=Path, required=True, help="by which the authority is believed at first")
    options = parser.parse_args(argv)
    batch, said = Batch(options.authority, options.home, options.bundle), ""
    while True:
        try:
            batch.step(time.time())
            said = ""
        except (AskError, OSError) as failure:
            if str(failure) != said:
                said = str(failure)
                sys.stderr.write(f"batch: {said}\n")
        time.sleep(_EVERY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
