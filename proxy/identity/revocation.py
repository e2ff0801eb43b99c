"""Holds the revocation list of our trust domain, for handshakes and for connections that stand.

    crl.der or crl.pem --read_revocations--> RevocationCheck --refuses(chain)--> why a peer is revoked, or None
    crl-issuers.pem  (who may have signed it, beyond the intermediates of our own chain)

The list speaks of what our own authority has issued and of nobody else. Whether peers may come while there is none, or
while the one that is held should have been replaced, is for the configuration to say (`crl: fail-closed | warn`): it
holds for new connections, because of one that stands nothing is known that was not known when it came.

Everything is pure: bytes and the clock come in as arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from certs.bundle import TrustBundle
from certs.crl import CrlPolicy, CrlSnapshot, judge_freshness, read_crl
from certs.crl_extension import CrlError
from certs.store import IdentitySet, read_chain

CRL_FILES: Final = ("crl.der", "crl.pem")
"""Where the list stands beside ca.crt: one of the two."""
CRL_ISSUERS_FILE: Final = "crl-issuers.pem"
"""Certificates that lead from the signer of the list to a root, where our own chain does not hold them."""

_CERTIFICATES_REMEMBERED: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationCheck:
    """The list that is held, None for none, and what holds while it is missing or past its nextUpdate.

    `fault` says why a list that is there is not held, "" when nothing is wrong.
    """

    snapshot: CrlSnapshot | None = None
    policy: CrlPolicy = CrlPolicy.WARN
    fault: str = ""

    def refuses(self, chain: Sequence[x509.Certificate | bytes]) -> str | None:
        """Say why a chain, leaf first, is revoked; None when it is not. Certificates as such or as DER."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        table = snapshot.table
        if not (table.serials or table.identities or table.keys):
            return None
        return snapshot.refuses([_decoded(one) if isinstance(one, bytes) else one for one in chain])

    def holds_at(self, now: float) -> bool:
        """Say whether new peers may come at `now` (seconds since the epoch), as far as the list is concerned."""
        if self.policy is CrlPolicy.WARN:
            return True
        return self.snapshot is not None and now <= self.snapshot.next_update.timestamp()

    def missing_at(self, now: float) -> str:
        """Say what is wrong with the list at `now`, whatever the policy makes of it; "" when nothing is."""
        if self.fault:
            return self.fault
        return judge_freshness(self.snapshot, self.policy, datetime.fromtimestamp(now, UTC)).fault or ""


def read_revocations(
    files: Mapping[str, bytes], identity_set: IdentitySet, bundle: TrustBundle, policy: CrlPolicy, now: float
) -> RevocationCheck:
    """Read the list of a set of files, verified by `bundle`, that of our own trust domain.

    No list gives a check without one. Raises CrlError when there are two, and for one that cannot be believed.
    """
    present = [name for name in CRL_FILES if name in files]
    if not present:
        return RevocationCheck(policy=policy)
    if len(present) > 1:
        raise CrlError(f"{' and '.join(present)} stand side by side; keep the newer one")
    issuers = [*identity_set.chain[1:], *_issuers(files)]
    try:
        snapshot = read_crl(files[present[0]], issuers, bundle, datetime.fromtimestamp(now, UTC))
    except CrlError as error:
        raise CrlError(f"{present[0]}: {error}") from None
    return RevocationCheck(snapshot=snapshot, policy=policy)


def _issuers(files: Mapping[str, bytes]) -> tuple[x509.Certificate, ...]:
    if CRL_ISSUERS_FILE not in files:
        return ()
    try:
        return read_chain(files[CRL_ISSUERS_FILE])
    except ValueError as error:
        raise CrlError(f"{CRL_ISSUERS_FILE}: {error}") from None


# A new list judges every connection that stands, and many of them have the same few chains: decoding costs 20 µs each.
@functools.lru_cache(maxsize=_CERTIFICATES_REMEMBERED)
def _decoded(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)
