"""What tests of PERMISSIVE and DISABLE ports share: PeerAuthentications, TLS of the application, and its server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mesh import Backend, Mesh, Sidecar, Stream, svid
from mesh_streams import dial, tls_on
from OpenSSL import SSL

GREETING = b"5.5.5-10.11.19-Server\x00"


def peers(
    mode: str, *, ports: Mapping[int, str] | None = None, name: str = "peers", namespace: str = "demo", app: str = ""
) -> str:
    """A PeerAuthentication as YAML text; with `app` or `ports` it selects one workload ("orders" if not said)."""
    of_ports = ", ".join(f'"{port}": {{mode: {of_port}}}' for port, of_port in (ports or {}).items())
    selector = f"selector: {{matchLabels: {{app: {app or 'orders'}}}}}, " if app or ports else ""
    level = f", portLevelMtls: {{{of_ports}}}" if ports else ""
    return (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{selector}mtls: {{mode: {mode}}}{level}}}\n"
    )


def files(*documents: str) -> str:
    """Several documents as one file."""
    return "---\n".join(documents)


def change(sidecar: Sidecar, *documents: str) -> None:
    """Mount other policies."""
    (sidecar.policy_directory / "policies.yaml").write_text(files(*documents))


def other_tls(
    mesh: Mesh, to: Sidecar | int, *alpn: bytes, server_name: str = "shop.example", account: str = ""
) -> Stream:
    """Connect with TLS that is not of the mesh: for the application, whose certificate is verified."""
    port = to if isinstance(to, int) else to.port
    return mesh.hold(tls_on(dial(port), svid(account) if account else None, alpn=alpn, server_name=server_name))


async def over_tls(stream: Stream, backend: Backend) -> None:
    """The script of a backend that terminates TLS of its own, says which server name was asked for, and echoes."""
    context = SSL.Context(SSL.TLS_METHOD)
    certificate = svid("backend")
    context.use_certificate(certificate.chain[0])
    for intermediate in certificate.chain[1:]:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(certificate.key)
    connection = SSL.Connection(context, stream.sock)
    connection.set_accept_state()
    inside = Stream(stream.sock, connection)
    data = await inside.receive()
    await inside.send(b"%b: " % (connection.get_servername() or b"-"))
    while data:
        await inside.send(data)
        data = await inside.receive()
    await inside.end()


async def echo(stream: Stream, backend: Backend) -> None:
    """The script of a backend that gives back what it gets, until the client ends."""
    while data := await stream.receive():
        await stream.send(data)


async def greet(stream: Stream, backend: Backend) -> None:
    """The script of a backend that speaks first, then answers line by line."""
    await stream.send(GREETING)
    while line := await stream.until(b"\n"):
        await stream.send(b"you said " + line)


async def web_socket(stream: Stream, backend: Backend) -> None:
    """The script of a backend that switches protocols, then echoes."""
    await backend.take(stream)
    await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    await echo(stream, backend)


async def ping(*streams: Stream, text: bytes = b"ping") -> None:
    """Have each connection carry bytes both ways."""
    for stream in streams:
        await stream.send(text)
        assert await stream.exactly(len(text)) == text


async def switch(*streams: Stream, request: bytes) -> None:
    """Have each connection switch protocols by `request`."""
    for stream in streams:
        await stream.send(request)
        assert (await stream.message()).status == 101


async def is_refused(stream: Stream, data: bytes = b"hello") -> bool:
    """Send, and say whether the connection breaks before anything comes back."""
    try:
        await stream.send(data)
        await stream.receive()
    except ConnectionError:
        return True
    return False


async def drip(stream: Stream, data: bytes, pause: float = 0.0) -> None:
    """Send byte by byte, each in a segment of its own."""
    for at in range(len(data)):
        await stream.send(data[at : at + 1])
        await asyncio.sleep(pause)


def opened_with(record: Mapping[str, object]) -> Sequence[object]:
    """What a record says of how a connection came."""
    return record["protocol"], record["source_principal"], record["requested_server_name"]
