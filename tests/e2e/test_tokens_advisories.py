"""What went wrong in other meshes around tokens and is shown nowhere else: one test per advisory."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, get, policy
from token_issuer import Issuer

ISSUER = Issuer()


@pytest.mark.asyncio
async def test_a_query_does_not_take_a_path_out_of_the_rule(mesh: Mesh) -> None:
    """CVE-2020-8595: a path that needs a token was compared with its query, so that `/x?` needed none."""
    backend = await mesh.backend()
    rules = '[{from: [{source: {notRequestPrincipals: ["*"]}}], to: [{operation: {paths: ["/x"]}}]}]'
    policies = "---\n".join([ISSUER.authentication(), ALLOW_ALL, policy("must", rules, action="DENY")])
    orders = await mesh.sidecar("orders", app=backend, policies=policies)
    wanted = {"/x": 403, "/x?": 403, "/x?a=/y": 403, "/x#": 400, "/x#y": 400, "/x%3f": 200, "/y": 200}
    found = {}
    for target in wanted:
        client = await mesh.client(orders)
        await client.send(get(target))
        found[target] = (await client.message()).status
    assert found == wanted
    client = await mesh.client(orders)
    await client.send(get("/x?", f"Authorization: Bearer {ISSUER.token()}"))
    assert (await client.message()).status == 200
