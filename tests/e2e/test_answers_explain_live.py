"""A denial of a running sidecar, explained in four ways that agree, and mended by the diff that explain gives.

The caller has nothing but a request id. It finds the denial on the admin page, through the command that asks the
sidecar, and in the access log; the same request asked of the files alone gives the same answer.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from admin_caller import ADMIN, admin_port, ask, ask_json
from mesh import ROOT, Mesh, Sidecar, eventually, get, identity, policy

POLICIES = policy(
    "web-reads",
    '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}],'
    ' to: [{operation: {methods: ["GET"], paths: ["/orders/*"]}}],'
    ' when: [{key: "request.headers[x-tier]", values: ["gold"]}]}]',
)
RULE = "ns[demo]-policy[web-reads]-rule[0]"
SENT = get("/public/../carts/7?x=1", "x-tier: gold", "x-secret: do-not-keep", "authorization: Bearer hidden.token.here")


async def explain(*arguments: str, given: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "remora", "policy", "explain", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate(given.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def explain_json(*arguments: str, given: str = "") -> dict[str, Any]:
    code, out, error = await explain(*arguments, "--output", "json", given=given)
    assert (code, error) == (0, "")
    told = json.loads(out)
    assert isinstance(told, dict)
    return told


async def denied(mesh: Mesh, **options: Any) -> tuple[Sidecar, str]:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=POLICIES, admin=ADMIN, **options)
    client = await mesh.client(orders)
    await client.send(SENT)
    answer = await client.message()
    assert answer.status == 403
    request_id = answer.get("x-request-id")
    assert request_id is not None
    await orders.records(1, kind="request")
    return orders, request_id.decode()


def essence(told: dict[str, Any]) -> tuple[Any, ...]:
    """What all four ways must agree on."""
    miss = told["nearest_miss"]
    return told["decision"], told["policy"], told["rule"], miss["rule"], miss["clause"], miss["seen"], miss["wanted"]


@pytest.mark.asyncio
async def test_four_ways_to_one_explanation(mesh: Mesh) -> None:
    orders, request_id = await denied(mesh)
    port = admin_port(orders)
    page = (await ask_json(port, f"/decisions?request_id={request_id}"))["decisions"][0]["explained"]
    by_command = await explain_json("--admin", f"127.0.0.1:{port}", "--request-id", request_id)
    by_log = await explain_json(
        *("--config", str(orders.config_file), "--request-id", request_id, "--log", str(orders.access_log))
    )
    document = f"{{identity: '{identity('web')}', path: '/carts/7', host: orders, headers: {{x-tier: gold}}}}"
    by_files = await explain_json("--config", str(orders.config_file), "--request", "-", given=document)
    asked = json.dumps({"identity": identity("web"), "path": "/carts/7", "headers": {"x-tier": "gold"}})
    by_question = await ask_json(port, f"/explain?question={quote(asked)}")
    assert essence(page) == ("deny", None, "none", RULE, "paths", '"/carts/7"', '"/orders/*"')
    assert essence(by_command) == essence(page)
    assert essence(by_files) == essence(page)
    assert essence(by_question) == essence(page)
    # A record has no headers, so another clause fails beside the one that failed.
    assert essence(by_log) == essence(page)
    assert by_log["nearest_miss"]["more"] == 1
    assert any("no headers but" in note for note in by_log["notes"])
    # What was sent is known to the sidecar that saw it; the query is not kept, a token may stand in it.
    assert page["path"]["sent"] == "/public/../carts/7"
    assert [step["path"] for step in page["path"]["steps"]] == ["/carts/7"]
    for told in (page, by_command, by_files, by_question):
        assert told["notes"] == []
        assert told["edit"]["summary"] == by_files["edit"]["summary"]
        assert "/carts/7" in told["edit"]["diff"]


@pytest.mark.asyncio
async def test_the_page_in_words_holds_no_secret(mesh: Mesh) -> None:
    orders, request_id = await denied(mesh)
    port = admin_port(orders)
    for path in (f"/decisions?request_id={request_id}", f"/explain?request_id={request_id}"):
        text = (await ask(port, path)).body.decode()
        assert '✗ paths                    saw "/carts/7", wanted "/orders/*"' in text
        assert "what would allow it" in text
    kept = repr(orders.app.sidecar.decision_log.recent()) if orders.app.sidecar.decision_log is not None else ""
    for secret in ("hidden.token.here", "do-not-keep"):
        assert secret not in kept
        assert secret not in (await ask(port, f"/explain?request_id={request_id}&format=json")).body.decode()


@pytest.mark.debian
@pytest.mark.asyncio
async def test_the_diff_makes_the_request_succeed(mesh: Mesh) -> None:
    orders, request_id = await denied(mesh)
    port = admin_port(orders)
    code, out, error = await explain("--admin", f"127.0.0.1:{port}", "--request-id", request_id)
    assert (code, error) == (0, "")
    diff = out[out.index("--- a/") :]
    program = shutil.which("patch")
    assert program is not None, "apt-get install patch"
    process = await asyncio.create_subprocess_exec(
        *(program, "-p1", "-d", "/", "--batch"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(diff.encode())
    assert process.returncode == 0, said
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    client = await mesh.client(orders)
    await client.send(SENT)
    assert (await client.message()).status == 200
    # Asked again, the old denial is explained by what is in force now, and says so.
    told = await ask_json(port, f"/explain?request_id={request_id}")
    assert told["decision"] == "allow"
    assert told["notes"] == [
        "policy generation 1 denied it; this is judged by 2, which is in force now",
        "the policies in force now would allow it",
    ]


@pytest.mark.asyncio
async def test_what_the_admin_listener_answers_to_odd_questions(mesh: Mesh) -> None:
    orders, _ = await denied(mesh)
    port = admin_port(orders)
    cases: Sequence[tuple[str, int, str]] = [
        ("/explain", 400, "ask with /explain?question="),
        ("/explain?request_id=a&question=b", 400, "ask with /explain?question="),
        ("/explain?request_id=nobody", 404, "no decision of the last 10 minutes"),
        ("/explain?question=" + quote("{pfad: /}"), 400, 'question:1:2: unknown key "pfad"'),
        ("/explain?question=" + quote("{a: [}"), 400, "question:1:"),
        ("/explain?question=", 400, "a question is one document"),
    ]
    for path, status, text in cases:
        answer = await ask(port, path)
        assert (answer.status, text in answer.body.decode()) == (status, True), (path, answer.body)
    code, out, error = await explain("--admin", f"127.0.0.1:{port}", "--request-id", "nobody")
    assert (code, out) == (2, "")
    assert "no decision of the last 10 minutes" in error


@pytest.mark.asyncio
async def test_a_permit_and_a_refusal_before_policy_are_found_too(mesh: Mesh) -> None:
    orders, _ = await denied(mesh)
    client = await mesh.client(orders)
    await client.send(get("/orders/7", "x-tier: gold", "x-request-id: mine"))
    assert (await client.message()).status == 200
    await client.send(b"GET /%00 HTTP/1.1\r\nhost: orders\r\n\r\n")
    refused = (await client.message()).get("x-request-id")
    assert refused is not None
    await orders.records(3, kind="request")
    port = admin_port(orders)
    assert f"rule          {RULE}\n" in (await ask(port, "/explain?request_id=mine")).body.decode()
    allowed = await ask_json(port, "/explain?request_id=mine")
    assert (allowed["decision"], allowed["rule"], allowed["path"]["judged"]) == ("allow", RULE, "/orders/7")
    assert "path_invalid" in (await ask(port, f"/explain?request_id={refused.decode()}")).body.decode()
    gate = await ask_json(port, f"/explain?request_id={refused.decode()}")
    assert (gate["decision"], gate["rule"], gate["nearest_miss"]) == ("deny", "none", None)
    assert "encoded NUL" in gate["explanation"]


@pytest.mark.asyncio
async def test_nobody_answers(mesh: Mesh, tmp_path: Path) -> None:
    code, _, error = await explain("--admin", f"unix:{tmp_path}/none", "--path", "/")
    assert code == 1
    assert error.startswith("remora policy explain: nothing listens on unix:")
