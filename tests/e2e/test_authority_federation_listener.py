"""Other trust domains get the bundle at a listener of its own: by TLS 1.2 and 1.3, as nobody, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authority_process import ASK, OWN, AuthorityProcess, eventually
from bundle_endpoint import until, web_certificate
from cryptography import x509
from handshake_peers import TIMEOUT, Peer
from mesh import Mesh, get
from mesh import authority as mesh_authority
from OpenSSL import SSL

from certs.authority import Svid
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.svid import spiffe_id_of
from certs.testing import MemoryAuthority, Shape
from proxy.authority.config import FEDERATION_HANDSHAKES
from proxy.config_values import FederatedDomain
from proxy.enrolment.federation import Federation
from proxy.https.config import SHARES

FOREIGN = "other.example"
DAY = datetime.timedelta(days=1)


@functools.cache
def webs() -> MemoryAuthority:
    """Who issues certificates of the web here."""
    return MemoryAuthority("web.example")


class Publisher(AuthorityProcess):
    """An authority whose bundle other trust domains poll; `web` names the files of its certificate of the web."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.web = base / "web"
        self.web.mkdir()
        self.web_roots = base / "web-roots.pem"
        self.web_roots.write_bytes(webs().bundle.to_pem())
        self.federation_port = 0

    def show(self, svid: Svid, key: Svid | None = None) -> None:
        """Write a pair, the certificate first; with `key` that of another."""
        for name, content in (("tls.crt", svid.chain_pem()), ("tls.key", (key or svid).key_pem())):
            (self.web / name).write_bytes(content)
            (self.web / name).chmod(0o600)

    def words(self, profile: str) -> list[str]:
        """The arguments of a profile."""
        words = ["--federation-listen", "127.0.0.1:0", "--federation-profile", profile]
        if profile == "https_web":
            words += ["--federation-certificate", str(self.web / "tls.crt")]
            words += ["--federation-key", str(self.web / "tls.key")]
        return words

    def publish(self, profile: str, *words: str, loop: str = "uvloop") -> None:
        """Begin to serve."""
        if profile == "https_web" and not (self.web / "tls.crt").exists():
            self.show(web_certificate(webs()))
        self.start(*self.words(profile), *words, loop=loop)
        self.federation_port = int(re.findall(r"health \d+, federation (\d+)", self.log_file.read_text())[-1])

    def context(self, profile: str = "https_web") -> ssl.SSLContext:
        """What a caller verifies by: the name `localhost`, or our bundle."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = profile == "https_web"
        context.load_verify_locations(self.web_roots if profile == "https_web" else self.bundle_file)
        return context

    def get(
        self,
        path: str = "/v1/bundle",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask at the federation port: status, headers, body."""
        connection = http.client.HTTPSConnection(
            "localhost", self.federation_port, timeout=ASK, context=context or self.context()
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def shown(self, context: ssl.SSLContext | None = None) -> x509.Certificate:
        """The certificate that a connection sees now."""
        with (
            socket.create_connection(("127.0.0.1", self.federation_port), timeout=ASK) as raw,
            (context or self.context()).wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")

    def counted(self, metric: str) -> bool:
        """Whether a line stands in the metrics."""
        return metric in self.page("/metrics")[1].splitlines()


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    made = Publisher(tmp_path)
    try:
        made.init()
        yield made
    finally:
        made.stop()


PROFILES = ["https_web", "https_spiffe"]
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


# --- who polls -------------------------------------------------------------------------------------------------------


def described(publisher: Publisher, profile: str, path: str) -> FederatedDomain:
    domain, url = parse_trust_domain("cluster.local"), f"https://localhost:{publisher.federation_port}{path}"
    if profile == "https_web":
        return FederatedDomain(trust_domain=domain, url=url, profile=profile, ca_file=str(publisher.web_roots))
    return FederatedDomain(
        trust_domain=domain,
        url=url,
        profile=profile,
        identity=SpiffeId.parse(OWN),
        bundle_file=str(publisher.bundle_file),
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_our_own_poller_fetches_it_in_both_profiles(publisher: Publisher, profile: str, loop_name: str) -> None:
    publisher.publish(profile, loop=loop_name)
    bundle = publisher.order("export bundle")
    for path in ("/v1/bundle", ""):
        federation = Federation()
        with contextlib.closing(federation):
            federation.follow([described(publisher, profile, path)])
            until(lambda polled=federation: polled.standing()[0].polls == 1, "the first poll")
            federation.poll_now()
            until(lambda polled=federation: polled.standing()[0].polls == 2, "a poll that finds nothing new")
            [standing] = federation.standing()
            assert standing.fault == ""
            assert standing.relationship is not None
            assert standing.relationship.bundle is not None
            assert standing.relationship.bundle.sequence == 1
            fetched = json.loads(federation.files()["bundles/cluster.local.json"])
            assert fetched["keys"] == json.loads(bundle)["keys"]
    assert publisher.audit() == []


@pytest.mark.asyncio
async def test_a_sidecar_lets_a_foreign_caller_in_by_what_is_published(mesh: Mesh, tmp_path: Path) -> None:
    base = tmp_path / FOREIGN
    base.mkdir()
    foreign = Publisher(base)

    def begin() -> Svid:
        foreign.order("init", "--trust-domain", FOREIGN)
        foreign.bundle_file.write_text(foreign.order("export bundle", "--form", "pem"))
        foreign.publish("https_spiffe")
        token = foreign.order("token create", "--identity", f"spiffe://{FOREIGN}/ns/demo/sa/partner").strip()
        return foreign.enrol(token=token)

    try:
        partner = await asyncio.to_thread(begin)
        orders = await mesh.sidecar(
            "orders",
            app=await mesh.backend(),
            bundles={mesh_authority().trust_domain: mesh_authority().bundle},
            federation=[
                {
                    "trust_domain": FOREIGN,
                    "url": f"https://localhost:{foreign.federation_port}/v1/bundle",
                    "profile": "https_spiffe",
                    "identity": f"spiffe://{FOREIGN}/ns/remora-system/sa/remora-authority",
                    "bundle_file": str(foreign.bundle_file),
                }
            ],
        )

        async def is_served() -> bool:
            client = await mesh.client(orders, certificate=partner)
            with contextlib.suppress(OSError):
                await client.send(get("/"))
                return (await client.message()).status == 200
            return False

        deadline = asyncio.get_running_loop().time() + ASK
        while not await is_served():
            assert asyncio.get_running_loop().time() < deadline, "the foreign caller is not let in"
            await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(foreign.stop)


# --- the handshake ---------------------------------------------------------------------------------------------------


def messages(context: ssl.SSLContext, port: int, **offer: Any) -> set[str]:
    """Which handshake messages a server sends."""
    seen: set[str] = set()

    def note(_: object, direction: str, *facts: Any) -> None:
        if direction == "read":
            seen.add(facts[2].name)

    context._msg_callback = note  # type: ignore[attr-defined]  # the one way to see them under TLS 1.3
    with (
        socket.create_connection(("127.0.0.1", port), timeout=ASK) as raw,
        context.wrap_socket(raw, server_hostname="localhost", **offer),
    ):
        return seen


@pytest.mark.parametrize("profile", PROFILES)
def test_both_versions_are_spoken_and_nobody_is_asked_for_a_certificate(publisher: Publisher, profile: str) -> None:
    publisher.publish(profile)
    for count, version in enumerate(VERSIONS.values(), start=1):
        context = publisher.context(profile)
        context.minimum_version = context.maximum_version = version
        assert "CERTIFICATE_REQUEST" not in messages(context, publisher.federation_port)
        status, headers, body = publisher.get(context=context)
        assert (status, headers["content-type"], json.loads(body)["spiffe_sequence"]) == (200, "application/json", 1)
        counted = f'remora_authority_handshakes_total{{listener="federation",reason="ok"}} {2.0 * count}'
        eventually(functools.partial(publisher.counted, counted), counted)
    # On the signing port the one is asked for, and the other is not spoken: so the callers here would have noticed.
    assert "CERTIFICATE_REQUEST" in messages(publisher.context("https_spiffe"), publisher.port)
    context = publisher.context("https_spiffe")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        messages(context, publisher.port)


def only_tls11(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_1_VERSION)


def without_aead(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")


def only_h2(context: SSL.Context) -> None:
    context.set_alpn_protos([b"h2"])


async def alert_for(port: int, configure: Callable[[SSL.Context], None]) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.setblocking(False)
        return await Peer(sock, configure=configure).alert()


@pytest.mark.asyncio
async def test_older_versions_and_suites_are_refused(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    try:
        await asyncio.to_thread(publisher.init)
        await asyncio.to_thread(publisher.publish, "https_web")
        for configure, alert, reason in (
            (only_tls11, "protocol_version", "tls_version_unsupported"),
            (without_aead, "handshake_failure", "tls_no_common_parameters"),
            (only_h2, "no_application_protocol", "alpn_unknown"),
        ):
            assert await alert_for(publisher.federation_port, configure) == alert
            line = f'remora_authority_handshakes_total{{listener="federation",reason="{reason}"}} 1.0'
            await asyncio.to_thread(eventually, functools.partial(publisher.counted, line), line)
        assert "this port serves http/1.1;" in publisher.log_file.read_text()
    finally:
        await asyncio.to_thread(publisher.stop)


def test_a_certificate_with_an_rsa_key_is_served_in_both_versions(publisher: Publisher) -> None:
    publisher.show(webs().shaped(Shape(dns_names=(b"localhost",), key="rsa-2048")))
    publisher.publish("https_web")
    for version in VERSIONS.values():
        context = publisher.context()
        context.maximum_version = version
        assert publisher.get(context=context)[0] == 200


# --- what is served --------------------------------------------------------------------------------------------------


def test_it_is_the_bundle_alone(publisher: Publisher, loop_name: str) -> None:
    publisher.publish("https_web", loop=loop_name)
    status, headers, body = publisher.get()
    assert (status, body.decode()) == (200, publisher.order("export bundle"))
    assert "location" not in headers
    assert "date" in headers
    tag = headers["etag"]
    assert publisher.get("/")[1]["etag"] == tag
    status, headers, body = publisher.get(headers={"If-None-Match": tag})
    assert (status, headers["etag"], body) == (304, tag, b"")
    assert publisher.get(headers={"If-None-Match": '"other"'})[0] == 200
    assert publisher.get(method="HEAD")[::2] == (200, b"")

    request = b'{"csr": ""}'
    statuses = [
        publisher.get("/v1/sign", method="POST", body=b"")[0],
        publisher.get("/v1/sign")[0],
        publisher.get("/v1/crl")[0],
        publisher.get("/metrics")[0],
        publisher.get("/v1/sign", method="POST", body=request)[0],
        publisher.get("/v1/bundle", method="POST", body=b"")[0],
        publisher.get("/v1/bundle", method="DELETE")[0],
        publisher.get("//v1/bundle/../bundle")[0],
    ]
    assert statuses == [404, 404, 404, 404, 413, 405, 405, 404]
    assert publisher.audit() == [], "nothing here is a request for a certificate"
    # Nobody confirms a bundle here, whoever he says that he is.
    assert publisher.get("/v1/bundle?confirms=1&instance=orders-0")[0] == 200
    assert "0 of 0 known sidecars" in publisher.order("status")


def test_policy_decides_here_too(publisher: Publisher) -> None:
    policies = publisher.base / "policies"
    policies.mkdir()
    (policies / "bundle.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        "metadata: {name: optional, namespace: remora-system}\nspec: {mtls: {mode: PERMISSIVE}}\n---\n"
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: bundle, namespace: remora-system}\n"
        "spec: {rules: [{to: [{operation: {paths: [/v1/bundle]}}]}]}\n"
    )
    publisher.publish("https_web", "--policy", str(policies))
    assert publisher.get("/v1/bundle")[0] == 200
    status, _, body = publisher.get("/")
    assert (status, json.loads(body)["reason"]) == (403, "policy_denied")


def test_a_crowd_here_is_none_at_the_signing_port(publisher: Publisher) -> None:
    publisher.publish("https_web")
    share = FEDERATION_HANDSHAKES // SHARES
    with contextlib.ExitStack() as stack:
        for _ in range(share):
            stack.enter_context(socket.create_connection(("127.0.0.1", publisher.federation_port), timeout=ASK))
        late = stack.enter_context(socket.create_connection(("127.0.0.1", publisher.federation_port), timeout=ASK))
        assert late.recv(1) == b"", "one too many"
        assert publisher.counted("remora_authority_connections_turned_away_total 1.0")
        assert publisher.sign(token=publisher.token()).status == 200
    eventually(
        lambda: publisher.counted(
            f'remora_authority_handshakes_total{{listener="federation",reason="handshake_peer_closed"}} {share}.0'
        ),
        "they have gone",
    )
    assert publisher.get()[0] == 200


# --- the certificate -------------------------------------------------------------------------------------------------


def test_a_pair_that_is_replaced_is_shown_without_a_restart(publisher: Publisher) -> None:
    publisher.publish("https_web")
    first = publisher.shown()
    fine = 'remora_authority_files_rejected{kind="federation certificate"} 0.0'
    broken = fine.replace("0.0", "1.0")
    assert publisher.counted(fine)
    with contextlib.closing(
        http.client.HTTPSConnection("localhost", publisher.federation_port, timeout=ASK, context=publisher.context())
    ) as standing:
        standing.request("GET", "/v1/bundle")
        assert standing.getresponse().read()

        other = webs().shaped(Shape(dns_names=(b"localhost",), key="another"))
        publisher.show(other, key=web_certificate(webs()))
        eventually(lambda: publisher.counted(broken), "the bad pair is counted")
        assert publisher.shown() == first
        told = f"{publisher.web / 'tls.key'}: it is not the key of the first certificate"
        assert f"federation certificate rejected, the last valid one stays in force: {told}" in (
            publisher.log_file.read_text()
        )
        status = publisher.order("status")
        assert f"rejected: federation certificate: {told}" in status
        assert "federation: https_web as localhost, until" in status
        assert publisher.page("/readyz") == (200, "ready\n"), "who needs a signature does not wait for it"

        publisher.show(other)
        eventually(lambda: publisher.shown() == other.leaf, "the new certificate is shown")
        eventually(lambda: publisher.counted(fine), "and nothing is rejected")
        assert "rejected:" not in publisher.order("status")
        standing.request("GET", "/v1/bundle")
        assert standing.getresponse().status == 200

        gone = publisher.web / "tls.crt"
        gone.unlink()
        eventually(lambda: publisher.counted(broken), "a file that is missing is counted")
        assert publisher.shown() == other.leaf
        publisher.show(other)
        eventually(lambda: publisher.counted(fine), "it is again what is in force")


def test_an_svid_is_shown_as_it_is_renewed(publisher: Publisher) -> None:
    publisher.publish("https_spiffe")
    context = publisher.context("https_spiffe")
    first = publisher.shown(context)
    assert str(spiffe_id_of(first)) == OWN
    publisher.order("rotate intermediate")
    eventually(lambda: publisher.shown(context) != first, "the one by the new intermediate is shown")
    assert str(spiffe_id_of(publisher.shown(context))) == OWN
    assert f"federation: https_spiffe as {OWN}, until" in publisher.order("status")


def test_what_cannot_be_shown_is_said_at_the_start(publisher: Publisher) -> None:
    good, other = web_certificate(webs()), webs().shaped(Shape(dns_names=(b"localhost",), key="another"))

    def refused() -> str:
        words = ["serve", "--directory", str(publisher.directory), "--listen", "127.0.0.1:0"]
        done = publisher.run(*words, "--audit-log", str(publisher.audit_file), *publisher.words("https_web"))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "PRIVATE" not in done.stderr
        return done.stderr

    publisher.show(good, key=other)
    assert f"{publisher.web / 'tls.key'}: it is not the key of the first certificate" in refused()
    publisher.show(webs().svid("mesh", "bundles"))
    assert f"{publisher.web / 'tls.crt'}: it names no host" in refused()
    (publisher.web / "tls.key").unlink()
    assert f"{publisher.web / 'tls.key'}: it cannot be read (No such file or directory)" in refused()


def test_an_ended_certificate_keeps_nobody_from_a_signature(publisher: Publisher) -> None:
    yesterday = webs().now - DAY
    publisher.show(webs().shaped(Shape(dns_names=(b"localhost",), not_before=yesterday - DAY, not_after=yesterday)))
    publisher.publish("https_web")
    assert "other trust domains will refuse it: it ended at" in publisher.log_file.read_text()
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        publisher.get()
    assert publisher.sign(token=publisher.token()).status == 200
    assert "which nobody believes: it ended at" in publisher.order("status")
    publisher.show(web_certificate(webs()))
    eventually(lambda: "which nobody believes" not in publisher.order("status"), "the new one is shown")
    assert publisher.get()[0] == 200


# --- other programs --------------------------------------------------------------------------------------------------


@pytest.mark.debian
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_gets_the_bundle(publisher: Publisher, profile: str, version: str) -> None:
    publisher.publish(profile)
    is_web = profile == "https_web"
    done = subprocess.run(
        [
            "openssl", "s_client", version, "-connect", f"127.0.0.1:{publisher.federation_port}",
            "-CAfile", str(publisher.web_roots if is_web else publisher.bundle_file),
            "-verify_return_error", "-servername", "localhost", "-ign_eof",
            *(["-verify_hostname", "localhost"] if is_web else []),
        ],
        input="GET /v1/bundle HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No client certificate CA names sent" in done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout
    assert "HTTP/1.1 200 OK" in done.stdout
    assert '"spiffe_sequence": 1' in done.stdout
