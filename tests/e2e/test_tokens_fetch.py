"""Fetching a key set over real sockets: what is taken, what is refused, and that a deadline is a deadline."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from handshake_peers import TIMEOUT
from mesh import Backend, Mesh, Stream
from token_issuer import Issuer, key_set_answer

from proxy.jwks.download import BODY_LIMIT
from proxy.jwks.fetch import Fetcher
from proxy.jwks.target import FetchError

KEYS = Issuer().key_set()


class Fetching:
    """A fetcher with what it looked up; every name is `address`."""

    def __init__(self) -> None:
        self.allow_loopback = True
        self.address = "127.0.0.1"
        self.looked_up: list[str] = []
        self.fetcher = Fetcher(
            asyncio.get_running_loop(), allow_loopback=lambda: self.allow_loopback, resolve=self._resolve
        )

    async def _resolve(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        self.looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]

    async def fails(self, uri: str, seconds: float = 5.0) -> str:
        with pytest.raises(FetchError) as failure:
            await self.fetcher.fetch(uri, seconds)
        return str(failure.value)


@pytest_asyncio.fixture
async def fetching() -> AsyncIterator[Fetching]:
    fetching = Fetching()
    yield fetching
    fetching.fetcher.close()


def answers(backend: Backend, data: bytes, path: str = "/keys") -> str:
    """Let the backend answer so, and give its URI."""
    backend.answer = lambda request: data
    return f"http://127.0.0.1:{backend.port}{path}"


@pytest.mark.asyncio
async def test_a_key_set_is_fetched(mesh: Mesh, fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    backend = await mesh.backend()
    keys = await fetching.fetcher.fetch(answers(backend, key_set_answer(KEYS), "/keys?set=1"), 5.0)
    assert [key.kid for key in keys.keys] == ["one"]
    [request] = backend.requests
    assert (request.method, request.target) == (b"GET", b"/keys?set=1")
    assert request.get("host") == b"127.0.0.1:%d" % backend.port
    assert request.get("authorization") is None
    assert request.get("cookie") is None


@pytest.mark.asyncio
async def test_a_chunked_answer_counts_like_any_other(mesh: Mesh, fetching: Fetching) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(KEYS), KEYS.encode())
    keys = await fetching.fetcher.fetch(answers(await mesh.backend(), chunked), 5.0)
    assert len(keys.keys) == 1


WRONG = {
    "moved": (key_set_answer(KEYS, "Location: /other", status="302 Found"), "redirects are not followed"),
    "not modified": (key_set_answer("", status="304 Not Modified"), "304"),
    "missing": (key_set_answer(KEYS, status="404 Not Found"), "it answered 404"),
    "other success": (key_set_answer(KEYS, status="203 Non-Authoritative Information"), "it answered 203"),
    "no JSON": (key_set_answer("<html>"), "no key set"),
    "no object": (key_set_answer("[]"), "no key set"),
    "compressed": (key_set_answer(KEYS, "Content-Encoding: gzip"), "compressed"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    "too large": (key_set_answer(KEYS + " " * BODY_LIMIT), "larger than 1048576 bytes"),
    "cut": (key_set_answer(KEYS).replace(b"Content-Length: ", b"Content-Length: 1"), "broke off"),
    "endless line": (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", "not HTTP"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 200 + b"\r\n", "not HTTP"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", WRONG)
async def test_what_is_no_plain_whole_answer_is_a_failure(mesh: Mesh, fetching: Fetching, case: str) -> None:
    data, sentence = WRONG[case]

    async def once(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(data)

    backend = await mesh.backend(once)
    assert sentence in await fetching.fails(f"http://127.0.0.1:{backend.port}/keys")
    assert len(backend.streams) == 1, "nothing is asked a second time"


@pytest.mark.asyncio
async def test_an_end_that_never_comes_is_bounded(mesh: Mesh, fetching: Fetching) -> None:
    async def flood(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b" " * 65_536)

    backend = await mesh.backend(flood)
    assert "larger than" in await fetching.fails(f"http://127.0.0.1:{backend.port}/keys", TIMEOUT)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"])
async def test_a_server_that_drips_is_cut_off_at_the_deadline(mesh: Mesh, fetching: Fetching, first: bytes) -> None:
    async def drip(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(first)
        while True:
            await stream.send(b"H")
            await asyncio.sleep(0.02)

    backend = await mesh.backend(drip)
    began = time.monotonic()
    assert "within 0.3 s" in await fetching.fails(f"http://127.0.0.1:{backend.port}/keys", 0.3)
    assert time.monotonic() - began < TIMEOUT / 2
    began = time.monotonic()
    fetching.fetcher.close()
    assert time.monotonic() - began < TIMEOUT / 2, "the thread has ended too"


@pytest.mark.asyncio
async def test_a_name_that_resolves_slowly_is_within_the_deadline(fetching: Fetching) -> None:
    async def slow(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        await asyncio.sleep(TIMEOUT)
        return []

    fetching.fetcher._resolve = slow
    assert "within 0.2 s" in await fetching.fails("https://issuer.example/keys", 0.2)


@pytest.mark.asyncio
async def test_a_fetch_that_is_cancelled_ends_its_thread(mesh: Mesh, fetching: Fetching) -> None:
    async def silent(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.receive()

    backend = await mesh.backend(silent)
    uri = f"http://127.0.0.1:{backend.port}/keys"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await fetching.fetcher.fetch(uri, 60.0)
    fetching.fetcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jwks")]


@pytest.mark.asyncio
async def test_a_name_is_judged_by_where_it_leads(mesh: Mesh, fetching: Fetching) -> None:
    backend = await mesh.backend()
    uri = answers(backend, key_set_answer(KEYS)).replace("127.0.0.1", "issuer.localhost")
    assert len((await fetching.fetcher.fetch(uri, 5.0)).keys) == 1
    assert fetching.looked_up == ["issuer.localhost"], "once: a second answer could lead elsewhere"
    assert backend.requests[0].get("host") == b"issuer.localhost:%d" % backend.port
    fetching.allow_loopback = False
    for address, sentence in (
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("100.100.100.200", "metadata"),
        ("0.0.0.0", "unspecified"),
    ):
        fetching.address = address
        assert sentence in await fetching.fails(f"https://issuer.example:{backend.port}/keys")
    assert "loopback" in await fetching.fails(uri)
    fetching.allow_loopback, fetching.address = True, "10.0.0.1"
    assert "is not loopback" in await fetching.fails(uri), "http goes nowhere else, whatever the name"
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_one_address_that_is_refused_refuses_the_name(mesh: Mesh, fetching: Fetching) -> None:
    async def two(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in ("127.0.0.1", "169.254.169.254")]

    backend = await mesh.backend()
    fetching.fetcher._resolve = two
    uri = answers(backend, key_set_answer(KEYS)).replace("127.0.0.1", "issuer.localhost")
    assert "link-local" in await fetching.fails(uri)
    assert not backend.streams


@pytest.mark.asyncio
async def test_nobody_there_and_no_such_name(fetching: Fetching) -> None:
    assert "connection failed" in await fetching.fails("http://127.0.0.1:1/keys")

    async def unknown(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    fetching.fetcher._resolve = unknown
    assert "does not resolve" in await fetching.fails("https://issuer.example/keys")


# --- TLS ---


class TlsIssuer:
    """An HTTPS server of the key set, on a thread; `heard` counts the requests that came through."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.heard = 0
        self.root = directory / "root.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain, key = directory / "chain.pem", directory / "key.pem"
        _issue(self.root, chain, key, names)
        context.load_cert_chain(chain, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._context = context
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(sock, server_side=True) as wrapped:
                    wrapped.recv(65_536)
                    self.heard += 1
                    wrapped.sendall(key_set_answer(KEYS))
            except OSError:
                sock.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)


def _issue(root: Path, chain: Path, key: Path, names: Sequence[str]) -> None:
    """Make a root and a server's certificate with these DNS names."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, public: Any, *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]),
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(hours=1),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(root_key, hashes.SHA256())

    usage = functools.partial(
        x509.KeyUsage,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root_certificate = certificate(
        "root",
        root_key.public_key(),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (usage(digital_signature=False, key_cert_sign=True), True),
        (identifier, False),
    )
    leaf = certificate(
        "leaf",
        leaf_key.public_key(),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage(digital_signature=True, key_cert_sign=False), True),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    )
    pem = serialization.Encoding.PEM
    root.write_bytes(root_certificate.public_bytes(pem))
    chain.write_bytes(leaf.public_bytes(pem))
    key.write_bytes(leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.mark.asyncio
async def test_https_verifies_the_chain_and_the_name(
    fetching: Fetching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = TlsIssuer(tmp_path, "issuer.example")
    try:
        uri = f"https://issuer.example:{issuer.port}/keys"
        assert "SSL_CERT_FILE" in await fetching.fails(uri), "no root of the system vouches for it"
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.root))
        assert len((await fetching.fetcher.fetch(uri, 5.0)).keys) == 1
        assert issuer.heard == 1
        assert "not valid" in await fetching.fails(uri.replace("issuer.", "other."))
        assert "not valid" in await fetching.fails(uri.replace("issuer.example", "127.0.0.1"))
        assert issuer.heard == 1
    finally:
        issuer.close()
