"""A small authority over HTTPS for tests of the client: certs.signing and certs.crl behind a server in threads.

    lab = stack.enter_context(Lab(tmp_path / "authority"))
    orders = await enrolled(mesh, lab, "orders", app=backend)
    lab.revoke(serial); orders.app.mounts.enrolment.poll_now()

It is the interface of the authority and none of its care: no policy, no rates, no audit. `asked` is what it was asked,
and what it shows or gives can be changed while it runs.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import socketserver
import ssl
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mesh import Mesh, Sidecar, authority

from certs.authority import Authority
from certs.bundle import TrustBundle
from certs.bundle_feed import answer
from certs.caller import Caller, How
from certs.crl import CRL_LIFETIME, build_crl
from certs.keys import generate_key, write_key
from certs.refusals import Refusal, Refused
from certs.requests import read_sign_request
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.signing import AuthorityState, Lifetimes, sign
from certs.spiffe import SpiffeId
from certs.svid import spiffe_id_of

AUTHORITY_ID = "spiffe://cluster.local/ns/remora-system/sa/remora-authority"
DAY = datetime.timedelta(hours=24)
BRIEF = datetime.timedelta(seconds=62)
"""So short that a certificate is renewed 2 s after it came: it is back-dated by 60 s, and half of 122 s is 61."""


@dataclass
class Ask:
    """One request: who the connection was, None for nobody, and what was sent."""

    method: str
    path: str
    peer: str | None
    members: dict[str, Any] = field(default_factory=dict)


class Lab:
    """The authority. A context manager: it listens from the beginning and ends with the block."""

    def __init__(self, directory: Path, *, issuer: Authority | None = None, lifetime: datetime.timedelta = DAY) -> None:
        directory.mkdir()
        self.directory = directory
        self.issuer = issuer or authority().authority
        self.lifetime = lifetime
        self.crl_lifetime = CRL_LIFETIME
        self.ahead = datetime.timedelta(0)
        """How far its clock is ahead."""
        self.tells_date = True
        self.is_away = False
        self.has_crl = True
        self.tokens: dict[str, str] = {}
        self.used: set[str] = set()
        """Tokens that were used up; those that begin with `remora-join` are, once redeemed."""
        self.asked: list[Ask] = []
        self.faults: list[BaseException] = []
        self.bundle = TrustBundle(
            trust_domain=self.issuer.trust_domain, certificates=(self.issuer.root,), sequence=1, refresh_hint=300
        )
        self.revocations = Revocations(sequence=1)
        self._context = self.shown(AUTHORITY_ID)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="lab authority")

    def __enter__(self) -> Lab:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.faults == []

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead

    @property
    def signed(self) -> list[Ask]:
        """The requests for certificates."""
        return [ask for ask in self.asked if ask.method == "POST"]

    @property
    def polled(self) -> list[Ask]:
        """The requests for the bundle."""
        return [ask for ask in self.asked if ask.path.startswith("/v1/bundle")]

    # --- what it is and gives ---

    def shown(
        self, spiffe_id: str, issuer: Authority | None = None, age: datetime.timedelta = datetime.timedelta()
    ) -> ssl.SSLContext:
        """Make what it shows of itself; its certificate is as old as `age`."""
        issuer, key, issued = issuer or self.issuer, generate_key(), datetime.datetime.now(datetime.UTC) - age
        chain = issuer.issue(SpiffeId.parse(spiffe_id), key.public_key(), issued, DAY + age)
        file = self.directory / "shown.pem"
        file.write_bytes(write_key(key) + b"".join(one.public_bytes(Encoding.PEM) for one in chain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(file)
        context.load_verify_locations(cadata=self.issuer.root.public_bytes(Encoding.PEM).decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def show(
        self, spiffe_id: str, issuer: Authority | None = None, age: datetime.timedelta = datetime.timedelta()
    ) -> None:
        """Show another certificate from now on."""
        self._context = self.shown(spiffe_id, issuer, age)

    def publish(self, *roots: x509.Certificate) -> None:
        """Publish another bundle."""
        before = self.bundle
        self.bundle = TrustBundle(
            trust_domain=before.trust_domain,
            certificates=roots,
            sequence=(before.sequence or 0) + 1,
            refresh_hint=before.refresh_hint,
        )

    def revoke(self, kind: Kind, value: str) -> None:
        """Enter a revocation."""
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        entry = Revocation(
            kind=kind,
            value=value,
            when=now,
            reason=Reason.KEY_COMPROMISE,
            who="a test",
            not_after=now + DAY if kind is Kind.SERIAL else None,
        )
        self.revocations = self.revocations.add(entry)

    def crl(self) -> bytes:
        """The list, signed now."""
        issuer = self.issuer
        now = datetime.datetime.now(datetime.UTC)
        crl = build_crl(self.revocations, issuer.intermediate, issuer.intermediate_key, now, self.crl_lifetime)
        return crl.public_bytes(Encoding.DER)

    # --- what sidecars are told of it ---

    def section(self, account: str, *, token: str = "", **more: Any) -> dict[str, Any]:
        """The section `identity` of a sidecar's configuration; its token and bundle file are written."""
        token = token or f"token-of-{account}"
        self.tokens[token] = f"spiffe://cluster.local/ns/demo/sa/{account}"
        token_file, bundle_file = self.token_file(account), self.directory / "bundle.pem"
        token_file.write_text(token + "\n")
        bundle_file.write_bytes(self.bundle.to_pem())
        asks = {
            "url": f"https://127.0.0.1:{self.port}",
            "token_file": str(token_file),
            "bundle_file": str(bundle_file),
            "timeout": "3s",
        }
        return {"authority": asks | more}

    def token_file(self, account: str) -> Path:
        return self.directory / f"{account}.token"

    # --- answers ---

    def sign(self, body: bytes, leaf: x509.Certificate | None) -> tuple[int, dict[str, Any]]:
        """Answer a request for a certificate."""
        members = json.loads(body)
        peer = None if leaf is None else spiffe_id_of(leaf)
        self.asked.append(Ask("POST", "/v1/sign", None if peer is None else str(peer), members))
        try:
            request = read_sign_request(body)
            caller = self._caller(request.token, peer)
            state = AuthorityState(
                authority=self.issuer,
                lifetimes=Lifetimes(
                    usual=self.lifetime, minimum=datetime.timedelta(minutes=1), maximum=max(self.lifetime, DAY)
                ),
                revoked_keys=self.revocations.refused_keys,
                revoked_identities=self.revocations.blocked,
            )
            issued = sign(request, caller, state, self.now)
        except Refused as refused:
            return refused.reason.status, {"reason": refused.reason.word, "message": str(refused)}
        return 200, {
            "chain": issued.chain_pem().decode("ascii"),
            "serial": issued.serial,
            "spiffe_id": str(issued.spiffe_id),
            "not_before": issued.not_before.isoformat(),
            "not_after": issued.not_after.isoformat(),
            "bundle": json.loads(self.bundle.to_jwks()),
            "crl": b64encode(self.crl()).decode("ascii") if self.has_crl else None,
        }

    def _caller(self, token: str | None, peer: SpiffeId | None) -> Caller:
        if token is None:
            if peer is None:
                raise Refused(Refusal.CALLER_UNKNOWN, "send a token")
            return Caller(spiffe_id=peer, how=How.CERTIFICATE, peer=peer)
        if token not in self.tokens:
            raise Refused(Refusal.TOKEN_REFUSED, "the token is nobody's; mount a fresh one")
        if token in self.used:
            raise Refused(Refusal.JOIN_TOKEN_USED, "the join token was used already")
        if token.startswith("remora-join"):
            self.used.add(token)
        return Caller(spiffe_id=SpiffeId.parse(self.tokens[token]), how=How.SERVICE_ACCOUNT_TOKEN, peer=peer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.lab.is_away:
            return
        request.settimeout(5)
        # A client that refuses us, or comes without TLS, is what some tests are about.
        with contextlib.suppress(OSError), self.lab._context.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        failure = sys.exc_info()[1]
        if failure is not None and not isinstance(failure, OSError):
            self.lab.faults.append(failure)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        lab = self.server.lab
        body = self.rfile.read(int(self.headers["content-length"]))
        der = self.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        status, document = lab.sign(body, x509.load_der_x509_certificate(der) if der else None)
        self._answer(status, "application/json", json.dumps(document).encode())

    def do_GET(self) -> None:
        lab = self.server.lab
        der = self.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        peer = str(spiffe_id_of(x509.load_der_x509_certificate(der))) if der else None
        lab.asked.append(Ask("GET", self.path, peer))
        if self.path.startswith("/v1/bundle"):
            published = answer(lab.bundle)
            if self.headers.get("if-none-match") == published.etag:
                self._answer(304, published.content_type, b"", etag=published.etag)
            else:
                self._answer(200, published.content_type, published.body, etag=published.etag)
        elif self.path == "/v1/crl" and lab.has_crl:
            self._answer(200, "application/pkix-crl", lab.crl())
        else:
            self._answer(404, "text/plain", b"no such page\n")

    def _answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        lab = self.server.lab
        self.send_response_only(status)
        if lab.tells_date:
            self.send_header("Date", format_datetime(lab.now.replace(microsecond=0), usegmt=True))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard error is the test's."""


async def enrolled(mesh: Mesh, lab: Lab, account: str, **options: Any) -> Sidecar:
    """Start a sidecar that gets its identity from the lab."""
    more = options.pop("asks", {})
    token = options.pop("token", "")
    return await mesh.sidecar(account, publish=False, identity=lab.section(account, token=token, **more), **options)
