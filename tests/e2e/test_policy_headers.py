"""Headers as policy sees them: every line counts, whatever its order, bytes or spelling (header-confusion cases)."""

from __future__ import annotations

import pytest
from mesh import Mesh, get, policy

NO_ADMINS = (
    policy("everything", "[{}]")
    + "---\n"
    + policy("no-admins", '[{when: [{key: "request.headers[X-Role]", values: ["admin"]}]}]', action="DENY")
)
ONLY_USERS = policy("users", '[{when: [{key: "request.headers[x-role]", values: ["user"]}]}]')
NOT_ROOT = policy("not-root", '[{when: [{key: "request.headers[x-user]", notValues: ["root", "sys*"]}]}]')
NO_EVIL = (
    policy("everything", "[{}]")
    + "---\n"
    + policy("no-evil", '[{to: [{operation: {hosts: ["evil.com"]}}]}]', action="DENY")
)


async def outcomes(mesh: Mesh, policies: str, requests: list[bytes]) -> list[int]:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=policies)
    found = []
    for request in requests:
        client = await mesh.client(orders)
        await client.send(request)
        found.append((await client.message()).status)
    assert len(backend.requests) == found.count(200)
    return found


@pytest.mark.asyncio
async def test_any_line_of_a_repeated_header_denies(mesh: Mesh) -> None:
    requests = [
        get("/", "X-Role: user"),
        get("/", "x-role: admin"),
        get("/", "X-ROLE: admin", "x-role: user"),
        get("/", "x-role: user", "X-Role: admin"),
        get("/", "x-role: admin  \t"),
        get("/", "x-role:\t admin"),
        get("/", "x-role: ADMIN"),
    ]
    assert await outcomes(mesh, NO_ADMINS, requests) == [200, 403, 403, 403, 403, 403, 200]


@pytest.mark.asyncio
async def test_a_name_with_an_underscore_is_refused(mesh: Mesh) -> None:
    assert await outcomes(mesh, NO_ADMINS, [get("/", "x_role: admin"), get("/", "X-Role: user", "x_role: admin")]) == [
        400,
        400,
    ]


@pytest.mark.asyncio
async def test_what_is_no_user_is_not_let_in(mesh: Mesh) -> None:
    requests = [
        get("/", "X-Role: user"),
        get("/"),
        get("/", "X-Role: users"),
        get("/", "X-Role:"),
        get("/", "Connection: x-role", "X-Role: user"),
    ]
    found = await outcomes(mesh, ONLY_USERS, requests)
    assert found[:4] == [200, 403, 403, 403]


@pytest.mark.asyncio
async def test_bytes_that_are_no_text_are_compared_as_they_are(mesh: Mesh) -> None:
    raw = [bytes([first, second]) for first, second in ((0x80, 0xFF), (0xC3, 0x28), (0xED, 0xA0), (0xFE, 0xFE))]
    requests = [b"GET / HTTP/1.1\r\nHost: orders\r\nX-User: %b\r\n\r\n" % value for value in raw]
    requests += [b"GET / HTTP/1.1\r\nHost: orders\r\nX-User: root\xff\r\n\r\n"]
    requests += [get("/", "X-User: root"), get("/", "X-User: system")]
    assert await outcomes(mesh, NOT_ROOT, requests) == [200, 200, 200, 200, 200, 403, 403]


@pytest.mark.asyncio
async def test_control_bytes_are_refused(mesh: Mesh) -> None:
    values = [b"a\x00b", b"a\rb", b"a\nb", b"a\x7fb", b"a\x0bb", b"a\r\n b"]
    requests = [b"GET / HTTP/1.1\r\nHost: orders\r\nX-User: %b\r\n\r\n" % value for value in values]
    assert await outcomes(mesh, NOT_ROOT, requests) == [400] * 6


@pytest.mark.asyncio
async def test_hosts_are_compared_without_case(mesh: Mesh) -> None:
    requests = [get(host=host) for host in ("good.com", "evil.com", "EVIL.com", "eViL.CoM")]
    assert await outcomes(mesh, NO_EVIL, requests) == [200, 403, 403, 403]


@pytest.mark.asyncio
async def test_host_lines_that_leave_room_for_doubt(mesh: Mesh) -> None:
    requests = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.com\r\nHost: good.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.com\r\nHost: evil.com\r\n\r\n",
        b"GET http://evil.com/ HTTP/1.1\r\nHost: good.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.com\r\n\r\n",
    ]
    assert await outcomes(mesh, NO_EVIL, requests) == [400, 400, 400, 400, 200]


ONLY_MESH = policy("mesh", '[{when: [{key: "request.headers[x-forwarded-client-cert]", values: ["*"]}]}]')


@pytest.mark.asyncio
async def test_what_the_application_will_not_see_satisfies_no_rule(mesh: Mesh) -> None:
    spoofed = get("/", "X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/demo/sa/admin")
    assert await outcomes(mesh, ONLY_MESH, [spoofed]) == [403]


@pytest.mark.asyncio
async def test_a_field_that_connection_names_satisfies_no_rule(mesh: Mesh) -> None:
    requests = [get("/", "Connection: x-role", "X-Role: user"), get("/", "X-Role: user")]
    assert await outcomes(mesh, ONLY_USERS, requests) == [403, 200]


@pytest.mark.asyncio
async def test_an_upgrade_can_be_denied_by_its_header(mesh: Mesh) -> None:
    no_upgrades = (
        policy("everything", "[{}]")
        + "---\n"
        + policy("plain", '[{when: [{key: "request.headers[upgrade]", values: ["*"]}]}]', action="DENY")
    )
    requests = [get("/", "Connection: upgrade", "Upgrade: websocket"), get("/")]
    assert await outcomes(mesh, no_upgrades, requests) == [403, 200]
