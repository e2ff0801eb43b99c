"""What an operator orders is done and told in words; what cannot be done is one sentence, and changes nothing."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.founding import found
from certs.joins import is_join_token
from certs.keeper import Keeper
from certs.rotation import Do, Wanted
from certs.sealed import KeySource
from certs.spiffe import parse_trust_domain
from certs.state import DirectoryStore
from proxy.authority.commands import CommandFailed, run_command
from proxy.authority.control import passphrase_file

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
ORDERS = "spiffe://cluster.local/ns/demo/sa/orders"


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    (tmp_path / "passphrase").write_text("correct horse\n")
    store = DirectoryStore(tmp_path / "authority", KeySource.parse(f"file:{tmp_path / 'passphrase'}"))
    try:
        found(store, Authority.create(parse_trust_domain("cluster.local"), NOW), NOW)
        yield Keeper(store, NOW, 0.0)
    finally:
        store.close()


def order(keeper: Keeper, command: str, **arguments: str) -> str:
    return run_command(keeper, command, arguments, NOW, 0.0)


def test_status_says_where_everything_stands(keeper: Keeper) -> None:
    order(keeper, "revoke", kind="identity", value=ORDERS, reason="keyCompromise", who="alice")
    order(keeper, "token", identity=ORDERS, lifetime="600", who="alice")
    text = order(keeper, "status")
    for words in (
        "authority of cluster.local",
        "no rotation is under way",
        "1 join tokens can be used",
        "revocation list 1",
        f"identity {ORDERS} is revoked (keyCompromise), by alice",
        "0 of 0 known sidecars hold bundle sequence 1",
    ):
        assert words in text


def test_a_rotation_tells_what_was_done_and_what_it_waits_for(keeper: Keeper) -> None:
    text = order(keeper, "rotate", what="root", force="")
    assert text.startswith("made a root\npublished the bundle\n")
    assert "refreshes" in text
    assert keeper.held.state.wanted is Wanted.ROOT
    with pytest.raises(CommandFailed, match="a rotation of the root is under way"):
        order(keeper, "rotate", what="intermediate", force="")


def test_steps_that_follow_from_an_order_are_told_to_the_log_too(keeper: Keeper) -> None:
    """`status` takes what is due: whoever reads only the log would miss these steps."""
    told: list[Do] = []
    keeper.on_action = lambda action: told.append(action.do)
    order(keeper, "rotate", what="root", force="")
    assert told == [Do.MAKE_ROOT, Do.PUBLISH]
    run_command(keeper, "status", {}, NOW + datetime.timedelta(hours=1), 3_600.0)
    assert told[2:] == [Do.MAKE_INTERMEDIATE, Do.USE]


def test_only_a_root_can_be_forced(keeper: Keeper) -> None:
    with pytest.raises(CommandFailed, match="leave --force out"):
        order(keeper, "rotate", what="intermediate", force="orders-0")
    assert keeper.held.state.wanted is Wanted.NOTHING


def test_what_cannot_be_imported_is_said(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"root\.crt"):
        order(keeper, "rotate", what="import", **{"from": str(tmp_path)})


def test_the_exports(keeper: Keeper) -> None:
    assert order(keeper, "export", what="bundle", form="pem").startswith("-----BEGIN CERTIFICATE-----")
    assert '"spiffe_sequence": 1' in order(keeper, "export", what="bundle", form="jwks")
    assert order(keeper, "export", what="crl", form="jwks").startswith("-----BEGIN X509 CRL-----")
    assert order(keeper, "export", what="intermediate", form="jwks").startswith("-----BEGIN CERTIFICATE-----")


def test_a_token_is_shown_once(keeper: Keeper) -> None:
    token = order(keeper, "token", identity=ORDERS, lifetime="600", who="alice").strip()
    assert is_join_token(token)
    assert token not in order(keeper, "status")
    for identity, message in (("orders", "spiffe://"), ("spiffe://other.example/a", "its own authority")):
        with pytest.raises(CommandFailed, match=message):
            order(keeper, "token", identity=identity, lifetime="600", who="alice")


@pytest.mark.parametrize(("command", "arguments"), [("destroy", {}), ("revoke", {"kind": "serial"})])
def test_what_no_release_sends_is_no_command(keeper: Keeper, command: str, arguments: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        order(keeper, command, **arguments)


def test_the_passphrase_lies_beside_the_directory(tmp_path: Path) -> None:
    assert passphrase_file(tmp_path / "ca") == tmp_path / "ca.passphrase"
