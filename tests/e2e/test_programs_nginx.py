"""nginx as the application behind an inbound sidecar, called by curl with a client certificate."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_application import content
from mesh import Mesh, Sidecar, free_port
from programs import ROOT, Curl, curl_as, run, running

pytestmark = pytest.mark.debian

LARGE = content(20_000_000)
PAGE = b"<p>a page that is worth compressing</p>\n" * 500
CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
{user}
events {{ }}
http {{
    default_type application/octet-stream;
    types {{ text/html html; }}
    access_log off;
    sendfile on;
    gzip_static on;
    gzip on;
    gzip_min_length 100;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    add_header x-connection "$connection $connection_requests" always;
    server {{
        listen 127.0.0.1:{port};
        root files;
        location /limited {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:1; }}
        location /redirect {{ return 301 /page.html; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory, port = tmp_path_factory.mktemp("nginx"), free_port()
    files = directory / "files"
    files.mkdir()
    (files / "large").write_bytes(LARGE)
    (files / "page.html").write_bytes(PAGE)
    (files / "ready.html").write_bytes(PAGE)
    (files / "ready.html.gz").write_bytes(gzip.compress(PAGE))
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(port=port, user="user root;" if ROOT else ""))
    argv = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration)]
    with running(argv, directory, port):
        yield port


async def before(mesh: Mesh, nginx: int) -> tuple[Sidecar, Curl]:
    """A sidecar before nginx, and curl as demo/web."""
    orders = await mesh.sidecar("orders", app=nginx)
    return orders, curl_as("web", orders.port, mesh.directory)


@pytest.mark.asyncio
async def test_a_large_file_by_sendfile(mesh: Mesh, nginx: int) -> None:
    orders, curl = await before(mesh, nginx)
    body = (await curl(path="/large")).ok().out
    assert hashlib.sha256(body).digest() == hashlib.sha256(LARGE).digest()
    [record] = await orders.records(kind="request")
    assert record["bytes_sent"] == len(LARGE)


@pytest.mark.asyncio
async def test_byte_ranges(mesh: Mesh, nginx: int) -> None:
    _, curl = await before(mesh, nginx)
    assert (await curl("--range", "1000000-1000099", path="/large")).ok().out == LARGE[1_000_000:1_000_100]
    assert (await curl("--range", "-70000", path="/large")).ok().out == LARGE[-70_000:]
    several = (await curl("--include", "--range", "0-9,100-109", path="/large")).ok().out
    assert several.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert b"multipart/byteranges" in several
    assert LARGE[100:110] in several
    beyond = (await curl("--include", "--range", "99999999-", path="/large")).ok().text
    assert beyond.startswith("HTTP/1.1 416 ")


@pytest.mark.asyncio
async def test_compressed_on_the_way_and_before(mesh: Mesh, nginx: int) -> None:
    """Compressed on the way an answer is chunked; prepared, it has a length. The sidecar touches neither."""
    _, curl = await before(mesh, nginx)
    for path, framing in (("/page.html", "transfer-encoding: chunked"), ("/ready.html", "content-length: ")):
        head, _, body = (
            (await curl("--include", "--header", "Accept-Encoding: gzip", path=path)).ok().out.partition(b"\r\n\r\n")
        )
        assert b"content-encoding: gzip" in head.lower()
        assert framing.encode() in head.lower()
        assert gzip.decompress(body) == PAGE
    assert (await curl("--compressed", path="/page.html")).ok().out == PAGE
    assert (await curl(path="/page.html")).ok().out == PAGE


@pytest.mark.asyncio
async def test_keep_alive_to_the_application(mesh: Mesh, nginx: int) -> None:
    """Five connections of curl, one after the other, are five requests on one connection of nginx."""
    _, curl = await before(mesh, nginx)
    seen = []
    for _ in range(5):
        head = (await curl("--head", path="/page.html")).ok().text.lower()
        [line] = [line for line in head.splitlines() if line.startswith("x-connection: ")]
        seen.append(line.split()[1:])
    assert len({connection for connection, _ in seen}) == 1
    assert [int(number) for _, number in seen] == [1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_an_early_413(mesh: Mesh, nginx: int, tmp_path: Path) -> None:
    """nginx answers by the Content-Length alone and closes on a client that goes on sending."""
    orders, curl = await before(mesh, nginx)
    upload = tmp_path / "upload"
    upload.write_bytes(LARGE)
    for expect in ("Expect: 100-continue", "Expect:"):
        result = await curl("--include", "--header", expect, "--data-binary", f"@{upload}", path="/limited")
        assert result.text.startswith("HTTP/1.1 413 "), result.err
    records = await orders.records(2, kind="request")
    assert [record["response_code"] for record in records] == [413, 413]


@pytest.mark.asyncio
async def test_conditional_requests_redirects_and_faults(mesh: Mesh, nginx: int) -> None:
    _, curl = await before(mesh, nginx)
    head = (await curl("--head", path="/page.html")).ok().text
    [tag] = [line.split(": ", 1)[1] for line in head.splitlines() if line.lower().startswith("etag")]
    again = (await curl("--include", "--header", f"If-None-Match: {tag}", path="/page.html")).ok().text
    assert again.startswith("HTTP/1.1 304 Not Modified\r\n")
    assert again.endswith("\r\n\r\n")
    redirect = (await curl("--include", path="/redirect")).ok().text
    assert redirect.startswith("HTTP/1.1 301 Moved Permanently\r\n")
    assert (await curl("--include", path="/missing")).ok().text.startswith("HTTP/1.1 404 ")


@pytest.mark.asyncio
async def test_several_downloads_at_once(mesh: Mesh, nginx: int) -> None:
    orders, curl = await before(mesh, nginx)
    outputs: list[str | Path] = []
    for number in range(4):
        outputs += ["--output", mesh.directory / f"large-{number}", curl.url("/large")]
    (await run("curl", *curl.options(), "--parallel", "--parallel-immediate", *outputs)).ok()
    wanted = hashlib.sha256(LARGE).digest()
    assert all(
        hashlib.sha256((mesh.directory / f"large-{number}").read_bytes()).digest() == wanted for number in range(4)
    )
    assert len(await orders.records(4, kind="request")) == 4
