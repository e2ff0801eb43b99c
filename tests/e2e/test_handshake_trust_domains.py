"""Whose root vouches for whom, in real handshakes: federation, aliases, secure naming."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from handshake_peers import TIMEOUT, authority, generation, session, tcp_pair

from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.profile import key_usage
from certs.spiffe import SpiffeId, TrustDomain
from certs.testing import MemoryAuthority, Shape
from proxy.errors import HandshakeError, Reason
from proxy.handshake import drive
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.types import PeerIdentity

OLD_DOMAIN = TrustDomain("old.local")


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here hangs up on a refusal, and nobody should wait for it."""
    monkeypatch.setattr(drive, "_LINGER", 0.02)


async def meet(
    server: TlsGeneration, client: TlsGeneration, expected: frozenset[SpiffeId] | None = None
) -> tuple[PeerIdentity | HandshakeError, PeerIdentity | HandshakeError]:
    """What the server thinks of the client, and the client of the server."""
    with (
        tcp_pair() as (accepted, dialled),
        session(server, accepted, server_side=True) as inbound,
        session(client, dialled, server_side=False, expected=expected) as outbound,
    ):

        async def side(end_of: object) -> PeerIdentity | HandshakeError:
            end, sock = (inbound, accepted) if end_of is inbound else (outbound, dialled)
            try:
                await perform(end, sock, timeout=TIMEOUT)
            except HandshakeError as error:
                sock.close()
                return error
            return end.peer

        there, here = await asyncio.gather(side(inbound), side(outbound))
        return there, here


def bundles(*authorities: MemoryAuthority) -> Mapping[TrustDomain, TrustBundle]:
    return {member.trust_domain: member.bundle for member in authorities}


def renamed(svid_of: MemoryAuthority, name: str) -> Svid:
    """An identity of any name under the root of an authority."""
    return svid_of.svid("demo", "web", uris=(name.encode("ascii"),))


@pytest.mark.asyncio
async def test_a_federated_peer_comes_in_both_ways() -> None:
    home, neighbour = authority(), authority().neighbour
    ours = generation()
    theirs = generation(neighbour.svid("far", "caller"), bundles=bundles(home, neighbour))
    for server, client, names in ((ours, theirs, ("caller", "orders")), (theirs, ours, ("orders", "caller"))):
        there, here = await meet(server, client)
        assert isinstance(there, PeerIdentity)
        assert isinstance(here, PeerIdentity)
        assert (there.spiffe_id.service_account, here.spiffe_id.service_account) == names
        assert {there.spiffe_id.trust_domain, here.spiffe_id.trust_domain} == {
            home.trust_domain,
            neighbour.trust_domain,
        }


@pytest.mark.asyncio
async def test_the_neighbours_root_may_not_mint_our_names() -> None:
    """Both roots lie in one OpenSSL store, which alone would accept this (identity-rules, section 2)."""
    forged = renamed(authority().neighbour, "spiffe://cluster.local/ns/demo/sa/orders")
    there, _ = await meet(generation(), generation(forged))
    assert isinstance(there, HandshakeError)
    assert there.reason is Reason.ROOT_OF_OTHER_TRUST_DOMAIN
    assert there.presented == "spiffe://cluster.local/ns/demo/sa/orders"
    assert "neighbour.example" in str(there)
    _, here = await meet(generation(forged), generation())
    assert isinstance(here, HandshakeError)
    assert here.reason is Reason.ROOT_OF_OTHER_TRUST_DOMAIN


@pytest.mark.asyncio
async def test_a_domain_that_was_ended_by_an_empty_bundle() -> None:
    home, neighbour = authority(), authority().neighbour
    ended = {
        home.trust_domain: home.bundle,
        neighbour.trust_domain: TrustBundle(trust_domain=neighbour.trust_domain, certificates=()),
    }
    caller = generation(neighbour.svid("far", "caller"), bundles=bundles(home, neighbour))
    there, _ = await meet(generation(bundles=ended), caller)
    assert isinstance(there, HandshakeError)
    assert there.reason is Reason.ISSUER_UNKNOWN
    assert "is empty" in str(there)


@pytest.mark.asyncio
async def test_an_alias_without_a_bundle_uses_ours() -> None:
    caller = generation(renamed(authority(), "spiffe://old.local/ns/demo/sa/web"))
    there, _ = await meet(generation(aliases=[OLD_DOMAIN]), caller)
    assert isinstance(there, PeerIdentity)
    assert str(there.spiffe_id) == "spiffe://old.local/ns/demo/sa/web"
    there, _ = await meet(generation(), caller)
    assert isinstance(there, HandshakeError)
    assert there.reason is Reason.TRUST_DOMAIN_UNKNOWN


@pytest.mark.asyncio
async def test_an_alias_with_a_bundle_of_its_own_does_not_use_ours() -> None:
    home, neighbour = authority(), authority().neighbour
    trusted = {home.trust_domain: home.bundle, OLD_DOMAIN: neighbour.bundle}
    caller = generation(renamed(home, "spiffe://old.local/ns/demo/sa/web"))
    there, _ = await meet(generation(bundles=trusted, aliases=[OLD_DOMAIN]), caller)
    assert isinstance(there, HandshakeError)
    assert there.reason is Reason.ROOT_OF_OTHER_TRUST_DOMAIN


@pytest.mark.asyncio
async def test_an_intermediate_as_the_anchor_of_a_bundle() -> None:
    home, neighbour = authority(), authority().neighbour
    anchored = {
        home.trust_domain: home.bundle,
        neighbour.trust_domain: TrustBundle(
            trust_domain=neighbour.trust_domain, certificates=(neighbour.intermediate,)
        ),
    }
    caller = generation(neighbour.svid("far", "caller"), bundles=bundles(home, neighbour))
    there, _ = await meet(generation(bundles=anchored), caller)
    assert isinstance(there, PeerIdentity)


@pytest.mark.asyncio
@pytest.mark.parametrize(("intermediates", "comes_in"), [(4, True), (5, False)])
async def test_a_chain_may_have_four_intermediates(intermediates: int, comes_in: bool) -> None:
    home = authority()
    signer_shape = Shape(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anchor")]),
        ca=True,
        key_usage=key_usage(key_cert_sign=True),
        extended_key_usage=None,
        key="long chain",
        issuer=home.root,
        issuer_key=home.root_key,
        chain=(),
    )
    anchor = signer = home.shaped(signer_shape)
    chain: tuple[x509.Certificate, ...] = ()
    for number in range(intermediates):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"signer {number}")])
        below = dataclasses.replace(
            signer_shape, subject=name, key=f"long chain {number}", issuer=signer.leaf, issuer_key=signer.key
        )
        signer = home.shaped(below)
        chain = (signer.leaf, *chain)
    caller = home.svid("demo", "web", issuer=signer.leaf, issuer_key=signer.key, chain=chain)
    trusted = {home.trust_domain: TrustBundle(trust_domain=home.trust_domain, certificates=(anchor.leaf,))}
    there, _ = await meet(generation(bundles=trusted), generation(caller))
    if comes_in:
        assert isinstance(there, PeerIdentity), str(there)
    else:
        assert isinstance(there, HandshakeError)
        assert there.reason is Reason.CHAIN_TOO_LONG


# --- secure naming ---


@pytest.mark.asyncio
async def test_the_server_must_be_one_that_the_service_has() -> None:
    orders, ledger = (authority().svid("demo", name).spiffe_id for name in ("orders", "ledger"))
    _, here = await meet(generation(), generation(), frozenset({orders, ledger}))
    assert isinstance(here, PeerIdentity)
    assert here.spiffe_id == orders
    there, here = await meet(generation(), generation(), frozenset({ledger}))
    assert isinstance(here, HandshakeError)
    assert here.reason is Reason.SERVER_IDENTITY_UNEXPECTED
    assert here.presented == str(orders)
    assert str(ledger) in str(here)
    assert isinstance(there, HandshakeError)
    assert there.reason is Reason.PEER_REJECTED_US
    assert "bad_certificate" in str(there)


@pytest.mark.asyncio
async def test_an_empty_list_of_identities_lets_nobody_answer() -> None:
    _, here = await meet(generation(), generation(), frozenset())
    assert isinstance(here, HandshakeError)
    assert here.reason is Reason.SERVER_IDENTITY_UNEXPECTED
