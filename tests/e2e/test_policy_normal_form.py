"""The path that policy judges is the path that the application gets, in its normal form (policy-confusion cases)."""

from __future__ import annotations

import pytest
from mesh import Mesh, get, policy

INFO_ONLY = policy("info-only", '[{to: [{operation: {paths: ["/info*"]}}]}]')
NO_ADMIN = (
    policy("everything", "[{}]")
    + "---\n"
    + policy("no-admin", '[{to: [{operation: {paths: ["/admin", "/admin/*"]}}]}]', action="DENY")
)
TEMPLATE = (
    policy("everything", "[{}]")
    + "---\n"
    + policy("no-members", '[{to: [{operation: {paths: ["/a/{*}/b"]}}]}]', action="DENY")
)


async def statuses(mesh: Mesh, policies: str, targets: list[str], normalization: str = "base") -> dict[str, object]:
    """Ask for each target: the status, or the target that the application saw."""
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=policies, path_normalization=normalization)
    found: dict[str, object] = {}
    for target in targets:
        client = await mesh.client(orders)
        before = len(backend.requests)
        await client.send(get(target))
        answer = await client.message()
        seen = backend.requests[before:]
        assert bool(seen) == (answer.status == 200)
        found[target] = seen[0].target.decode() if seen else answer.status
    records = await orders.records(len(targets), kind="request")
    for record in records:
        assert (record["decision"] == "allow") == (record["response_code"] == 200)
    return found


@pytest.mark.asyncio
async def test_dot_segments_do_not_lead_out_of_what_is_allowed(mesh: Mesh) -> None:
    assert await statuses(
        mesh,
        INFO_ONLY,
        ["/info", "/info/a?b=/../c", "/info/../private", "/info/%2e%2e/private", "/info/./a", "/x/../info/a", "/INFO"],
    ) == {
        "/info": "/info",
        "/info/a?b=/../c": "/info/a?b=/../c",
        "/info/../private": 403,
        "/info/%2e%2e/private": 403,
        "/info/./a": "/info/a",
        "/x/../info/a": "/info/a",
        "/INFO": 403,
    }


@pytest.mark.asyncio
async def test_a_denied_path_in_other_spellings(mesh: Mesh) -> None:
    assert await statuses(
        mesh,
        NO_ADMIN,
        [
            "/admin",
            "/admin/x",
            "/app/../admin",
            "/%61dmin",
            "/admin?x",
            "/./admin",
            "/x\\..\\admin",
            "/admin#x",
            "/admin%00",
            "/..;/admin",
            "/user/..;foo=bar/admin",
            "/admin%23x",
            "//admin",
            "/%2Fadmin",
            "/%5cadmin",
        ],
    ) == {
        "/admin": 403,
        "/admin/x": 403,
        "/app/../admin": 403,
        "/%61dmin": 403,
        "/admin?x": 403,
        "/./admin": 403,
        "/x\\..\\admin": 403,
        "/admin#x": 400,
        "/admin%00": 400,
        "/..;/admin": 400,
        "/user/..;foo=bar/admin": 400,
        # Other paths than /admin under `base`, and forwarded as what they are.
        "/admin%23x": "/admin%23x",
        "//admin": "//admin",
        "/%2Fadmin": "/%2Fadmin",
        "/%5cadmin": "/%5cadmin",
    }


@pytest.mark.asyncio
async def test_a_denied_path_where_slashes_are_merged_and_decoded(mesh: Mesh) -> None:
    targets = ["//admin", "/%2Fadmin", "/%5cadmin", "/\\admin", "/a%2F..%2Fadmin", "/x//y"]
    found = await statuses(mesh, NO_ADMIN, targets, "decode_and_merge_slashes")
    assert found == {**dict.fromkeys(targets, 403), "/x//y": "/x/y"}


@pytest.mark.asyncio
async def test_a_template_matches_a_star(mesh: Mesh) -> None:
    targets = ["/a/*/b", "/a/x/b", "/a/~!$&()/b", "/a/x/y/b"]
    assert await statuses(mesh, TEMPLATE, targets) == {
        "/a/*/b": 403,
        "/a/x/b": 403,
        "/a/~!$&()/b": 403,
        "/a/x/y/b": "/a/x/y/b",
    }


@pytest.mark.asyncio
async def test_a_very_long_target_is_judged_in_no_time(mesh: Mesh) -> None:
    long = "/info/" + "a/../" * 10_000
    assert await statuses(mesh, INFO_ONLY, [long]) == {long: "/info/"}
