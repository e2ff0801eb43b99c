"""A real Envoy with its SPIFFE validator: it takes what the authority issues, and the bundles that it publishes.

Envoy shows a certificate of the authority, verifies by `envoy.tls.cert_validator.spiffe` with one bundle for each trust
domain, and answers by itself. The bundles come to it as PEM, or as a map of the very JWK Sets that are published.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envoy_config
import pytest
from authority_process import AuthorityProcess, eventually, identity
from envoy_sidecar import Envoy, running
from mesh import Mesh, get, service

from certs.authority import Svid
from certs.memory import Shape
from certs.testing import MemoryAuthority

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

ABROAD = MemoryAuthority("abroad.example")
FORMS = ("pem", "map")


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    made.init("--refresh-hint", "1s", "--hints", "1")
    made.start("--identity-rate", "50:50")
    try:
        yield made
    finally:
        made.stop()


def bundles(authority: AuthorityProcess, directory: Path, form: str) -> dict[str, Any]:
    """The validator's configuration, with what is published now."""
    if form == "map":
        home = json.loads(authority.ask("GET", "/v1/bundle").body)
        abroad = json.loads(ABROAD.bundle.to_jwks())
        file = directory / "bundles.json"
        file.write_text(json.dumps({"trust_domains": {"cluster.local": home, "abroad.example": abroad}}))
        return {"trust_bundles": {"filename": str(file)}}
    texts = {
        "cluster.local": authority.order("export bundle", "--form", "pem"),
        "abroad.example": ABROAD.bundle.to_pem(),
    }
    domains = []
    for name, text in texts.items():
        file = directory / f"{name}.pem"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        domains.append({"name": name, "trust_bundle": {"filename": str(file)}})
    return {"trust_domains": domains}


def context(authority: AuthorityProcess, directory: Path, shown: Svid, form: str) -> dict[str, Any]:
    """The TLS settings of both directions: what Envoy shows, and by what it verifies."""
    (directory / "tls.crt").write_bytes(shown.chain_pem())
    (directory / "tls.key").write_bytes(shown.key_pem())
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    validator = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {"@type": kind, **bundles(authority, directory, form)},
    }
    return {
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},  # as a client Envoy offers 1.2 at most by default
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(directory / "tls.crt")},
                "private_key": {"filename": str(directory / "tls.key")},
            }
        ],
        "validation_context": {"custom_validator_config": validator},
    }


def answering(authority: AuthorityProcess, directory: Path, shown: Svid, form: str) -> envoy_config.Json:
    """An Envoy that demands a certificate and answers 200."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "envoy"}}}
    manager = envoy_config._manager("in", "none", [envoy_config._router()], directory / "access.log", {})
    manager["typed_config"]["route_config"] = {
        "name": "all",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }
    tls = {"require_client_certificate": True, "common_tls_context": context(authority, directory, shown, form)}
    chain = {"filters": [manager], "transport_socket": envoy_config._transport("DownstreamTlsContext", tls)}
    listener = envoy_config._listener("in", directory / "access.log") | {"filter_chains": [chain]}
    return envoy_config._bootstrap(listener, envoy_config._cluster("none", 9))


def calling(authority: AuthorityProcess, directory: Path, shown: Svid, form: str, endpoint: int) -> envoy_config.Json:
    """An Envoy that leads requests to `endpoint` over mutual TLS."""
    manager = envoy_config._manager("out", "orders", [envoy_config._router()], directory / "access.log", {})
    tls = {"common_tls_context": context(authority, directory, shown, form) | {"alpn_protocols": ["istio-http/1.1"]}}
    cluster = envoy_config._cluster("orders", endpoint)
    cluster["transport_socket"] = envoy_config._transport("UpstreamTlsContext", tls)
    listener = envoy_config._listener("out", directory / "access.log") | {"filter_chains": [{"filters": [manager]}]}
    return envoy_config._bootstrap(listener, cluster)


def ask(authority: AuthorityProcess, envoy: Envoy, shown: Svid) -> int:
    """What Envoy answers to who shows a certificate; raises OSError where it refuses the handshake."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.load_verify_locations(cadata=authority.order("export bundle", "--form", "pem"))
    pair = authority.base / "caller.pem"
    pair.write_bytes(shown.chain_pem() + shown.key_pem())
    trust.load_cert_chain(pair)
    connection = http.client.HTTPSConnection("127.0.0.1", envoy.port, timeout=10, context=trust)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def refused(authority: AuthorityProcess, envoy: Envoy, shown: Svid) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(authority, envoy, shown)


def section(authority: AuthorityProcess, directory: Path, account: str) -> dict[str, Any]:
    token = directory / f"{account}.token"
    token.write_text(authority.token(account))
    url = f"https://127.0.0.1:{authority.port}"
    return {"authority": {"url": url, "token_file": str(token), "bundle_file": str(authority.bundle_file)}}


@pytest.mark.parametrize("form", FORMS)
async def test_envoy_takes_ours_and_each_domain_by_its_own_roots(
    authority: AuthorityProcess, tmp_path: Path, form: str
) -> None:
    orders, web = (authority.enrol(token=authority.token(name)) for name in ("orders", "web"))
    forged = ABROAD.shaped(Shape(uris=(identity("web").encode(),), key="forged"))
    directory = tmp_path / "envoy"
    directory.mkdir()
    async with running(directory, answering(authority, directory, orders, form)) as envoy:
        assert ask(authority, envoy, web) == 200
        assert ask(authority, envoy, ABROAD.svid("demo", "web")) == 200
        refused(authority, envoy, forged)
        refused(authority, envoy, ABROAD.stranger.svid("demo", "web"))


@pytest.mark.parametrize("form", FORMS)
async def test_envoy_takes_a_new_root_beside_the_old_one(
    authority: AuthorityProcess, tmp_path: Path, form: str
) -> None:
    first = authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")
    authority.order("rotate root")
    authority.ask("GET", "/v1/bundle?confirms=2&instance=orders-0", svid=first)
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used", 30.0)
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    second = authority.enrol(first, bundle_sequence=2, instance="orders-0")
    assert second.chain[1] != first.chain[1]
    directory = tmp_path / "envoy"
    directory.mkdir()
    async with running(directory, answering(authority, directory, second, form)) as envoy:
        assert ask(authority, envoy, first) == 200
        assert ask(authority, envoy, second) == 200


@pytest.mark.parametrize("form", FORMS)
async def test_a_sidecar_of_the_authority_speaks_to_envoy_and_envoy_to_it(
    authority: AuthorityProcess, mesh: Mesh, tmp_path: Path, form: str
) -> None:
    backend = await mesh.backend()
    orders = await mesh.process("orders", publish=False, identity=section(authority, tmp_path, "orders"), app=backend)
    directories = tmp_path / "before", tmp_path / "calling"
    for directory in directories:
        directory.mkdir()
    shown = authority.enrol(token=authority.token("ledger"))
    async with running(directories[0], answering(authority, directories[0], shown, form)) as envoy:
        target = service("ledger", envoy.port)
        web = await mesh.process("web", publish=False, identity=section(authority, tmp_path, "web"), services=[target])
        client = await mesh.plain_client(web)
        await client.send(get("/"))
        answer = await client.message()
        assert (answer.status, answer.body) == (200, b"envoy")

    caller = authority.enrol(token=authority.token("web"))
    out = calling(authority, directories[1], caller, form, orders.port)
    async with running(directories[1], out) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/"))
        answer = await client.message()
        assert (answer.status, answer.body) == (200, b"ok")
