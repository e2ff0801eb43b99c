"""curl with a client certificate, straight at an inbound port: what a person with a terminal sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_application import content
from mesh import Mesh, authority, free_port, identity, policy, service, svid
from programs import Curl, Result, curl_as, python_application, run

from certs.testing import write_set

pytestmark = pytest.mark.debian

ONLY_WEB = policy(
    "web", '[{from: [{source: {serviceAccounts: ["demo/web"]}}], to: [{operation: {notPaths: ["/admin*"]}}]}]'
)
UPLOAD = content(5_000_003)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with python_application(tmp_path_factory.mktemp("application"), free_port()) as port:
        yield port


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(UPLOAD)
    return path


async def web(mesh: Mesh, application: int) -> Curl:
    """curl as demo/web at a sidecar before the application."""
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    return curl_as("web", orders.port, mesh.directory)


def is_upload(result: Result, *, chunked: bool) -> None:
    answer = json.loads(result.ok().out)
    assert answer == {"sha256": hashlib.sha256(UPLOAD).hexdigest(), "size": len(UPLOAD), "chunked": chunked}


# --- who may ---


@pytest.mark.asyncio
async def test_allowed(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    curl = curl_as("web", orders.port, mesh.directory)
    headers = dict(json.loads((await curl(path="/headers")).ok().out))
    assert headers["host"] == f"127.0.0.1:{orders.port}"
    assert f"URI={identity('web')}" in headers["x-forwarded-client-cert"]
    [record] = await orders.records(kind="request")
    assert (record["decision"], record["source_principal"]) == ("allow", identity("web"))
    assert record["user_agent"].startswith("curl/")


@pytest.mark.asyncio
async def test_alpn_and_tls_as_curl_sees_them(mesh: Mesh, application: int) -> None:
    curl = await web(mesh, application)
    seen = (await curl("--verbose")).ok().err
    assert "ALPN: server accepted http/1.1" in seen
    assert "TLSv1.3" in seen


@pytest.mark.asyncio
async def test_denied_by_path_and_by_identity(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    by_path = await curl_as("web", orders.port, mesh.directory)("--include", path="/admin")
    by_identity = await curl_as("batch", orders.port, mesh.directory)("--include")
    for result in (by_path, by_identity):
        assert result.ok().text.startswith("HTTP/1.1 403 Forbidden\r\n")
        assert result.text.endswith("\r\n\r\nRBAC: access denied")
    assert (await curl_as("web", orders.port, mesh.directory)("--fail", path="/admin")).code == 22


@pytest.mark.asyncio
async def test_without_a_certificate(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    result = await Curl(port=orders.port, directory=None)()
    assert result.code != 0
    assert "alert certificate required" in result.err
    [record] = await orders.records()
    assert record["reason"] == "certificate_required"


@pytest.mark.asyncio
async def test_of_a_foreign_authority(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    stranger = mesh.directory / "stranger"
    write_set(authority().impostor.svid("demo", "web"), authority().impostor.bundles, stranger)
    result = await Curl(port=orders.port, directory=stranger)()
    assert result.code != 0
    assert "alert unknown ca" in result.err
    [record] = await orders.records()
    assert record["source_principal"] == f"unverified {identity('web')}"


@pytest.mark.asyncio
async def test_in_plaintext(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    result = await run("curl", "--silent", "--show-error", f"http://127.0.0.1:{orders.port}/")
    assert (result.code != 0, result.out) == (True, b"")
    [record] = await orders.records()
    assert record["reason"] == "not_tls"


@pytest.mark.asyncio
async def test_the_server_has_no_name_that_curl_could_verify(mesh: Mesh, application: int) -> None:
    """Its chain is good for curl: what is missing is a DNS name, which no SVID has."""
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    own = mesh.directory / "own"
    write_set(svid("web"), authority().bundles, own)
    files: list[str | Path] = ["--cacert", own / "ca.crt", "--cert", own / "tls.crt", "--key", own / "tls.key"]
    result = await run("curl", "--silent", "--show-error", *files, f"https://127.0.0.1:{orders.port}/")
    assert result.code == 60
    assert "unable to obtain common name from peer certificate" in result.err


# --- what HTTP looks like from there ---


@pytest.mark.asyncio
async def test_head(mesh: Mesh, application: int) -> None:
    curl = await web(mesh, application)
    result = (await curl("--head", path="/bytes/1000000")).ok()
    assert "content-length: 1000000" in result.text.lower()


@pytest.mark.asyncio
async def test_a_large_download(mesh: Mesh, application: int) -> None:
    curl = await web(mesh, application)
    body = (await curl(path="/bytes/10485760")).ok().out
    assert hashlib.sha256(body).digest() == hashlib.sha256(content(10_485_760)).digest()


@pytest.mark.asyncio
async def test_a_large_upload_waits_for_100_continue(mesh: Mesh, application: int, upload: Path) -> None:
    curl = await web(mesh, application)
    result = await curl("--verbose", "--expect100-timeout", "15", "--data-binary", f"@{upload}", path="/digest")
    is_upload(result, chunked=False)
    assert "> Expect: 100-continue" in result.err
    assert "< HTTP/1.1 100 Continue" in result.err


@pytest.mark.asyncio
async def test_a_chunked_upload(mesh: Mesh, application: int) -> None:
    curl = await web(mesh, application)
    result = await curl("--request", "POST", "--upload-file", "-", path="/digest", given=UPLOAD)
    is_upload(result, chunked=True)


@pytest.mark.asyncio
async def test_an_upload_that_is_refused_early(mesh: Mesh, application: int, upload: Path) -> None:
    curl = await web(mesh, application)
    result = await curl("--include", "--data-binary", f"@{upload}", path="/early")
    assert result.ok().text.startswith("HTTP/1.1 413 ")
    assert result.text.endswith("too much")


@pytest.mark.asyncio
async def test_a_denied_upload_is_told_before_it_is_sent(mesh: Mesh, application: int, upload: Path) -> None:
    curl = await web(mesh, application)
    result = await curl("--include", "--data-binary", f"@{upload}", path="/admin")
    assert result.ok().text.startswith("HTTP/1.1 403 ")
    assert "100 Continue" not in result.text


@pytest.mark.asyncio
async def test_http_10(mesh: Mesh, application: int) -> None:
    """Without ALPN: curl would offer only http/1.0, a name that no port serves."""
    curl = await web(mesh, application)
    for path, expected in (("/bytes/70000", content(70_000)), ("/until-close", b"until I close")):
        assert (await curl("--http1.0", "--no-alpn", path=path)).ok().out == expected


@pytest.mark.asyncio
async def test_an_answer_without_a_length(mesh: Mesh, application: int) -> None:
    curl = await web(mesh, application)
    assert (await curl(path="/until-close")).ok().out == b"until I close"


@pytest.mark.asyncio
async def test_several_urls_go_over_one_connection(mesh: Mesh, application: int) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    curl = curl_as("web", orders.port, mesh.directory)
    urls = [curl.url(f"/bytes/{size}") for size in (1, 20_000, 300)]
    result = await run(
        "curl",
        *curl.options(),
        "--write-out",
        "%{num_connects} ",
        "--output",
        "/dev/null",
        *urls[:1],
        "--output",
        "/dev/null",
        urls[1],
        "--output",
        "/dev/null",
        urls[2],
    )
    assert result.ok().text == "1 0 0 "
    [connection] = await orders.records(kind="connection")
    assert connection["requests"] == 3


@pytest.mark.asyncio
async def test_over_two_sidecars_curl_needs_no_certificate(mesh: Mesh, application: int, upload: Path) -> None:
    orders = await mesh.sidecar("orders", app=application, policies=ONLY_WEB)
    caller = await mesh.sidecar("web", services=[service("orders", orders)])
    url = f"http://127.0.0.1:{caller.outbound_port}"
    assert (await run("curl", "--silent", f"{url}/bytes/100000")).ok().out == content(100_000)
    is_upload(await run("curl", "--silent", "--data-binary", f"@{upload}", f"{url}/digest"), chunked=False)
    assert (await run("curl", "--silent", f"{url}/admin")).ok().text == "RBAC: access denied"
