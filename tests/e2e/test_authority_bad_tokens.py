"""Every token of the table is answered as it says, by a running authority: by its reason and one audit line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kube_server
import pytest
import yaml
from authority_inside import AuthorityInside
from authority_process import Answered, identity

from certs.joins import new_token
from certs.kube import KubeServer
from certs.refusals import Refusal
from proxy.authority.config import TokenSource
from tests.authority_tokens import (
    ACCOUNT,
    ISSUER,
    KEY_SET,
    NAMESPACE,
    POD,
    account_of,
    pod_of,
    review_of,
    token_of,
)

CORPUS = Path(__file__).parents[1] / "corpus" / "authority" / "tokens.yaml"
ROWS: list[dict[str, Any]] = yaml.safe_load(CORPUS.read_text("utf-8"))
DOORS = ("review", "offline", "keys")
CASES = [(row, door) for row in ROWS for door in row.get("doors", DOORS)]
STATUS = {reason.word: reason.status for reason in Refusal}
PATIENCE = 0.5
"""Seconds that the authority waits for the API server here."""


@dataclass
class House:
    """An authority behind each door, and the API server that two of them ask."""

    kube: kube_server.KubeServer
    doors: Mapping[str, AuthorityInside]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with kube_server.KubeServer() as kube:
        kube.jwks = KEY_SET
        server = KubeServer(url=kube.url, token=kube.token, timeout=PATIENCE)
        file = tmp_path_factory.mktemp("keys") / "jwks.json"
        file.write_bytes(KEY_SET)
        sources = {
            "review": TokenSource(server=server),
            "offline": TokenSource(server=server, is_offline=True),
            "keys": TokenSource(jwks_file=file, issuer=ISSUER, is_offline=True),
        }
        made = House(kube, {door: AuthorityInside(tmp_path_factory.mktemp(door)) for door in DOORS})
        try:
            for door, authority in made.doors.items():
                authority.init()
                authority.serve(tokens=sources[door])
                # The keys of the cluster are fetched now: later rows take the API server away.
                assert asked(made, {}, door).status == 200
            yield made
        finally:
            for authority in made.doors.values():
                authority.stop()


def arrange(house: House, row: Mapping[str, Any], token: str) -> None:
    """Let the API server know of the token, the pod and the account what the row says."""
    kube = house.kube
    kube.reviews = {}
    kube.objects.clear()
    review, pod, account = review_of(row, time.time()), pod_of(row), account_of(row)
    if review is not None:
        kube.reviews[token] = review
    if pod is not None:
        kube.put("pods", NAMESPACE, POD, pod)
    if account is not None:
        kube.put("serviceaccounts", NAMESPACE, ACCOUNT, account)
    answers = row.get("answers")
    if isinstance(answers, dict):
        kube.answer_with = answers["status"], answers["body"].encode()
    elif answers == "silent":
        kube.silent = threading.Event()
    elif answers == "lost":
        kube.lost = {("POST", "tokenreviews"), ("GET", "pods")}


def put_back(kube: kube_server.KubeServer) -> None:
    if kube.silent is not None:
        kube.silent.set()
    kube.answer_with, kube.silent, kube.lost = None, None, set()


def join_token(house: House, state: str) -> str:
    authority = house.doors["keys"]
    if state == "expired":
        return authority.old_token()
    if state == "unknown":
        return new_token()
    token = authority.token()
    if state == "used":
        assert authority.sign(token=token).status == 200
    return token


def asked(house: House, row: Mapping[str, Any], door: str, token: str | None = None) -> Answered:
    """Send the token of a row through a door."""
    if token is None:
        token = token_of(row, time.time())
    arrange(house, row, token)
    kind = {"kind": row["kind"]} if "kind" in row else {}
    try:
        return house.doors[door].sign(token=token, **kind)
    finally:
        put_back(house.kube)


@pytest.mark.parametrize(("row", "door"), CASES, ids=[f"{row['name']}-{door}" for row, door in CASES])
def test_a_token_is_answered_with_its_reason_and_one_audit_line(house: House, row: dict[str, Any], door: str) -> None:
    authority = house.doors[door]
    token = join_token(house, row["join"]) if "join" in row else token_of(row, time.time())
    before = len(authority.audit())
    answered = asked(house, row, door, token)
    [line] = authority.audit()[before:]
    reason = row["reason"][door] if isinstance(row.get("reason"), dict) else row.get("reason")
    if reason is None:
        assert answered.status == 200, answered.body
        assert answered.told["spiffe_id"] == line["identity"] == identity(ACCOUNT)
        assert (line["event"], line["reason"]) == ("issued", None)
        return
    assert (answered.reason, answered.status) == (reason, STATUS[reason])
    assert (line["event"], line["reason"], line["serial"], line["caller"]) == ("refused", reason, None, None)
    message = answered.told["message"]
    assert message == line["message"]
    assert "; " in message, "it says what to do"
    assert message.isprintable()
    # Neither the token nor what the API server said of it reaches a caller or a log.
    assert "own words" not in message
    assert token not in json.dumps(line) + message


def test_a_join_token_that_two_bring_at_once_is_good_for_one(house: House) -> None:
    authority = house.doors["keys"]
    token, before = authority.token(), len(authority.audit())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: authority.sign(token=token).status, range(8)))
    assert sorted(answers) == [200, *[401] * 7]
    reasons = [line["reason"] for line in authority.audit()[before:]]
    assert sorted(map(str, reasons)) == ["None", *["join_token_used"] * 7]


def test_nonsense_does_not_drive_the_api_server(house: House) -> None:
    calls = house.kube.calls
    before = len(calls)
    for row in ROWS:
        if row.get("reason") in ("token_malformed", "token_algorithm_refused", "token_expired", "token_not_yet_valid"):
            for door in {"review", "offline"} & set(row.get("doors", DOORS)):
                if "review" not in row:
                    asked(house, row, door)
    assert calls[before:] == []


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len({row["name"] for row in ROWS if "reason" in row}) >= 100
    assert len({row["name"] for row in ROWS}) == len(ROWS)
    assert {door for _, door in CASES} == set(DOORS)
