"""Who a peer is, from a verified chain: the order of the rules, and what each refusal says."""

from __future__ import annotations

import datetime
import functools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId, TrustDomain
from certs.testing import BROKEN, MemoryAuthority
from proxy.errors import Reason
from proxy.identity import verify
from proxy.identity.verify import Judge, Rejection, Trust, Usage, judge_peer
from proxy.types import PeerIdentity

ALIAS = TrustDomain("old.local")


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


def trust(**more: object) -> Trust:
    return Trust.of(memory().trust_domain, memory().bundles, **more)  # type: ignore[arg-type]


def judge(
    svid: Svid,
    *,
    root: MemoryAuthority | None = None,
    trusted: Trust | None = None,
    usage: Usage = Usage.CLIENT,
    now: datetime.datetime | None = None,
    expected: frozenset[SpiffeId] | None = None,
) -> PeerIdentity | Rejection:
    chain = (*svid.chain, (root or memory()).root)
    moment = (now or memory().now).timestamp()
    return judge_peer(chain, trust=trusted or trust(), usage=usage, now=moment, expected=expected)


def refused(outcome: PeerIdentity | Rejection, reason: Reason) -> Rejection:
    assert isinstance(outcome, Rejection), outcome
    assert outcome.reason is reason, outcome.message
    return outcome


@pytest.mark.parametrize("usage", Usage)
def test_a_good_chain_is_an_identity(usage: Usage) -> None:
    svid = memory().svid("demo", "orders")
    assert judge(svid, usage=usage) == PeerIdentity(
        spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders"),
        not_after=svid.leaf.not_valid_after_utc.timestamp(),
        serial=f"{svid.leaf.serial_number:x}",
        fingerprint=svid.leaf.fingerprint(SHA256()).hex(),
        root=memory().root.fingerprint(SHA256()),
    )


# What OpenSSL finds by itself is not looked for again: chains, signatures and extensions that nobody knows.
OPENSSL_ALONE = {
    "foreign_root",
    "self_signed",
    "missing_intermediate",
    "wrong_signature",
    "path_length_exceeded",
    "name_constraint_violated",
    "unknown_critical_extension",
}


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - OPENSSL_ALONE))
def test_each_broken_certificate_has_its_reason(name: str) -> None:
    case = BROKEN[name]
    root = memory().neighbour if name == "our_name_signed_by_neighbour" else memory()
    rejection = refused(judge(case.make(memory()), root=root), Reason(case.reason_word))
    assert rejection.reason.consequence.alert == case.alert
    assert rejection.explanation
    assert rejection.mend
    assert rejection.message.isprintable()


def test_a_message_says_what_happened_who_it_was_and_what_to_do() -> None:
    rejection = refused(judge(BROKEN["trailing_newline"].make(memory())), Reason.SPIFFE_ID_INVALID)
    assert rejection.presented == r"spiffe://cluster.local/ns/demo/sa/rogue\n"
    what, who, do = rejection.explanation, rejection.presented, rejection.mend
    assert rejection.message == f"{what}; it presented {who}; {do}"


@pytest.mark.parametrize("length", [0, 1])
def test_a_chain_without_an_issuer_vouches_for_nobody(length: int) -> None:
    chain = memory().svid("demo", "orders").chain[:length]
    outcome = judge_peer(chain, trust=trust(), usage=Usage.CLIENT, now=memory().now.timestamp(), expected=None)
    refused(outcome, Reason.ISSUER_UNKNOWN)


# --- what is remembered ---


class Remembering:
    """A Judge, with the chain of demo/orders as OpenSSL gives it."""

    def __init__(self) -> None:
        self.judge = Judge(trust(), Usage.CLIENT)
        self.svid = memory().svid("demo", "orders")
        self.chain = ders(*self.svid.chain, memory().root)

    def ask(
        self,
        chain: tuple[bytes, ...] | None = None,
        *,
        now: float = 0.0,
        expected: frozenset[SpiffeId] | None = None,
    ) -> PeerIdentity | Rejection:
        moment = now or memory().now.timestamp()
        return self.judge.judge(chain or self.chain, now=moment, expected=expected)


def ders(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def test_the_same_chain_is_the_same_identity_and_is_judged_once() -> None:
    given = Remembering()
    first = given.ask()
    assert first == judge(given.svid)
    assert given.ask() is first
    assert given.ask(tuple(bytes(bytearray(der)) for der in given.chain)) is first


def test_a_remembered_chain_has_its_dates_and_must_be_expected() -> None:
    given = Remembering()
    identity = given.ask()
    assert isinstance(identity, PeerIdentity)
    refused(given.ask(now=identity.not_after + 1), Reason.CERTIFICATE_EXPIRED)
    begins = given.svid.leaf.not_valid_before_utc.timestamp()
    refused(given.ask(now=begins - 1), Reason.CERTIFICATE_NOT_YET_VALID)
    other = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/other")
    refused(given.ask(expected=frozenset({other})), Reason.SERVER_IDENTITY_UNEXPECTED)
    refused(given.ask(expected=frozenset()), Reason.SERVER_IDENTITY_UNEXPECTED)
    assert given.ask(expected=frozenset({identity.spiffe_id})) is identity
    assert given.ask() is identity


def test_the_end_of_a_signing_certificate_ends_a_remembered_chain() -> None:
    given = Remembering()
    svid = memory().svid("demo", "orders", lifetime=datetime.timedelta(days=20_000))
    chain = ders(*svid.chain, memory().root)
    assert isinstance(given.ask(chain), PeerIdentity)
    ends = svid.chain[1].not_valid_after_utc.timestamp()
    assert ends < svid.leaf.not_valid_after_utc.timestamp()
    rejection = refused(given.ask(chain, now=ends + 1), Reason.CERTIFICATE_EXPIRED)
    assert "signing certificate" in rejection.explanation


def test_another_chain_of_the_same_leaf_is_judged_for_itself() -> None:
    given = Remembering()
    given.ask()
    refused(given.ask(ders(*given.svid.chain, memory().neighbour.root)), Reason.ROOT_OF_OTHER_TRUST_DOMAIN)
    refused(given.ask(given.chain[:1]), Reason.ISSUER_UNKNOWN)
    refused(given.ask(given.chain[:1]), Reason.ISSUER_UNKNOWN)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_CHAINS_REMEMBERED", 2)
    given = Remembering()
    first = given.ask()
    for account in ("web", "ledger"):
        given.ask(ders(*memory().svid("demo", account).chain, memory().root))
    again = given.ask()
    assert again == first
    assert again is not first


def test_bytes_that_are_no_certificate_are_told_to_the_caller() -> None:
    with pytest.raises(ValueError, match="pars"):
        Remembering().ask((b"no certificate",))


# --- whose root ---


def test_a_neighbour_is_believed_under_its_own_root_alone() -> None:
    neighbour = memory().neighbour
    svid = neighbour.svid("far", "caller")
    assert isinstance(judge(svid, root=neighbour), PeerIdentity)
    rejection = refused(judge(svid, root=memory()), Reason.ROOT_OF_OTHER_TRUST_DOMAIN)
    assert "cluster.local" in rejection.explanation


def test_an_unknown_domain_names_the_known_ones() -> None:
    rejection = refused(
        judge(memory().stranger.svid("demo", "web"), root=memory().stranger), Reason.TRUST_DOMAIN_UNKNOWN
    )
    assert "cluster.local, neighbour.example" in rejection.explanation
    assert "bundles/stranger.example" in rejection.mend


def aliased() -> Svid:
    return memory().svid("demo", "web", uris=(b"spiffe://old.local/ns/demo/sa/web",))


def test_an_alias_without_a_bundle_uses_ours() -> None:
    assert isinstance(judge(aliased(), trusted=trust(aliases=[ALIAS])), PeerIdentity)
    refused(judge(aliased()), Reason.TRUST_DOMAIN_UNKNOWN)


@pytest.mark.parametrize("kept", ["neighbour", "nobody"])
def test_an_alias_with_a_bundle_uses_that_alone(kept: str) -> None:
    roots = memory().neighbour.bundle.certificates if kept == "neighbour" else ()
    bundles = {**memory().bundles, ALIAS: TrustBundle(trust_domain=ALIAS, certificates=roots)}
    trusted = Trust.of(memory().trust_domain, bundles, [ALIAS])
    expected = Reason.ROOT_OF_OTHER_TRUST_DOMAIN if roots else Reason.ISSUER_UNKNOWN
    refused(judge(aliased(), trusted=trusted), expected)


def test_an_alias_of_nothing_trusts_nobody() -> None:
    assert not Trust.of(memory().trust_domain, {}, [ALIAS]).roots


def test_each_anchor_is_loaded_once() -> None:
    bundles = {**memory().bundles, ALIAS: memory().bundle}
    trusted = Trust.of(memory().trust_domain, bundles)
    assert sorted(trusted.anchors, key=id) == sorted({memory().root, memory().neighbour.root}, key=id)
    assert trusted.domains_of(memory().root.fingerprint(SHA256())) == ["cluster.local", "old.local"]


# --- dates ---


@pytest.mark.parametrize(
    ("hours", "reason"),
    [(-1, Reason.CERTIFICATE_NOT_YET_VALID), (25, Reason.CERTIFICATE_EXPIRED), (24 * 400, Reason.CERTIFICATE_EXPIRED)],
)
def test_dates_are_judged_by_the_given_moment(hours: int, reason: Reason) -> None:
    svid = memory().svid("demo", "orders")
    assert isinstance(judge(svid), PeerIdentity)
    rejection = refused(judge(svid, now=memory().now + datetime.timedelta(hours=hours)), reason)
    assert "and now is" in rejection.explanation


def test_the_last_second_counts() -> None:
    svid = memory().svid("demo", "orders")
    end = svid.leaf.not_valid_after_utc
    assert isinstance(judge(svid, now=end), PeerIdentity)
    refused(judge(svid, now=end + datetime.timedelta(seconds=1)), Reason.CERTIFICATE_EXPIRED)


# --- secure naming ---


def test_a_server_must_be_expected() -> None:
    svid = memory().svid("demo", "orders")
    assert isinstance(judge(svid, usage=Usage.SERVER, expected=frozenset({svid.spiffe_id})), PeerIdentity)
    others = frozenset(memory().svid("demo", name).spiffe_id for name in ("a", "b", "c", "d", "e"))
    rejection = refused(judge(svid, usage=Usage.SERVER, expected=others), Reason.SERVER_IDENTITY_UNEXPECTED)
    assert "sa/a, " in rejection.explanation
    assert "and 2 more" in rejection.explanation
    nobody = refused(judge(svid, usage=Usage.SERVER, expected=frozenset()), Reason.SERVER_IDENTITY_UNEXPECTED)
    assert "nobody" in nobody.explanation
