"""What Envoy says and what a real sidecar does: the same statuses, paths and rules, over mutual TLS and plaintext."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from callers import ALIAS, FAR, OWN, PROBE, TRUST, Caller, authority_of, certificate, connect
from envoy_authn import jwt_filter
from envoy_cases import Case, collect
from envoy_claims import NAMESPACE, jwt_rules, request_authentication
from envoy_judge import Verdict, judging
from envoy_ours import LABELS, Call, comparable
from mesh import Backend, Mesh, Records, Sidecar
from policy_swap import Mounted, http_or_echo

PORTS = (80, 81, 82)
CASES = collect(count=60, calls=12)


@pytest.mark.asyncio
async def test_envoy_and_a_sidecar_agree(mesh: Mesh, tmp_path: Path) -> None:
    theirs = await ask_envoy(tmp_path / "envoy")
    ours = await ask_sidecar(mesh)
    different = [
        (their, our, call, case.policies)
        for case, per_case in zip(CASES, zip(theirs, ours, strict=True), strict=True)
        for call, their, our in zip(case.calls, *per_case, strict=True)
        if their != our
    ]
    assert different == []


Answers = list[list[Verdict | bool]]


async def ask_envoy(directory: Path) -> Answers:
    found: Answers = []
    jwt = jwt_filter(jwt_rules())
    async with judging(directory, [case.filters for case in CASES], trust=TRUST, jwt=jwt) as judge:
        for number, case in enumerate(CASES):
            answers: list[Verdict | bool] = []
            for call in case.calls:
                if call.method:
                    verdict = comparable(await judge.request(number, call.head, call.caller))
                    answers.append(what_a_client_sees(verdict))
                else:
                    answers.append(await judge.opaque(number, call.caller))
            found.append(answers)
    return found


def what_a_client_sees(verdict: Verdict) -> Verdict:
    path = verdict.path if verdict.status == 200 else ""
    return Verdict(status=verdict.status, denied_by=verdict.denied_by, path=path)


async def ask_sidecar(mesh: Mesh) -> Answers:
    backend = await mesh.backend(http_or_echo)
    mounted = Mounted(mesh.directory / "mounted")
    orders = await mesh.sidecar(
        "orders",
        certificate=certificate(f"{OWN}/ns/{NAMESPACE}/sa/orders"),
        bundles={authority_of(name).trust_domain: authority_of(name).bundle for name in (OWN, ALIAS, FAR)},
        inbound=[{"port": port, "app": f"127.0.0.1:{backend.port}", "protocol": "auto"} for port in PORTS],
        policies=None,
        workload={"namespace": NAMESPACE, "service_account": "orders", "labels": LABELS},
        trust_domain_aliases=[ALIAS],
        policy={"directory": str(mounted.directory), "default": "allow-all"},
        runtime=mounted.runtime,
    )
    found: Answers = []
    for case in CASES:
        assert mounted.swap(orders, files_of(case)) == []
        answers: list[Verdict | bool] = []
        for call in case.calls:
            if call.method:
                answers.append(await request(orders, backend, call))
            else:
                answers.append(await opaque(orders, call.caller))
        found.append(answers)
    return with_rules(found, await orders.records(sum(len(case.requests) for case in CASES), kind="request"))


def with_rules(answers: Answers, records: Records) -> Answers:
    """Add what the access log says of each request, in the same order: the rule that denied."""
    left = iter(records)

    def told(answer: Verdict | bool) -> Verdict | bool:
        if isinstance(answer, bool):
            return answer
        record = next(left)
        assert record["response_code"] == answer.status
        details = record["response_code_details"].partition("rbac_access_denied_matched_policy[")[2]
        return dataclasses.replace(answer, denied_by=details.removesuffix("]"))

    return [[told(answer) for answer in each] for each in answers]


def files_of(case: Case) -> dict[str, bytes]:
    documents = [*case.policies, request_authentication(jwt_rules())]
    return {f"{index:03}.json": json.dumps(each).encode() for index, each in enumerate(documents)}


async def request(orders: Sidecar, backend: Backend, call: Call) -> Verdict:
    stream = connect(port_of(orders, call.caller), call.caller, alpn=(b"istio-http/1.1",))
    try:
        before = len(backend.requests)
        await stream.send(call.head)
        answer = await stream.message()
        seen = backend.requests[before:]
        assert len(seen) == (answer.status == 200)
        path = seen[0].target.decode("latin-1") if seen else ""
        return Verdict(status=answer.status, path=path)
    finally:
        stream.close()


async def opaque(orders: Sidecar, caller: Caller) -> bool:
    stream = connect(port_of(orders, caller), caller, alpn=(b"istio",))
    try:
        await stream.send(PROBE)
        return await stream.exactly(len(PROBE)) == PROBE
    except (ConnectionError, EOFError):
        return False
    finally:
        stream.close()


def port_of(orders: Sidecar, caller: Caller) -> int:
    return orders.app.bound_ports()["inbound"][PORTS.index(caller.port)]
