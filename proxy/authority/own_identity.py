"""Keeps the authority's own SVID: issued by itself, renewed at half of its life and whenever what it stands on changes.

A new certificate, a new intermediate or a new bundle is a new generation of TLS contexts; connections that stand keep
the one that they were made with. What cannot be renewed is kept until it ends.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from certs.audit import Occasion, issued_line
from certs.bundle import TrustBundle
from certs.held import Held
from certs.keeper import Keeper
from certs.requests import key_fingerprint
from certs.service import entry_of
from certs.signers import signer_name
from certs.signing import Issued
from certs.spiffe import SpiffeId
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, judge_set
from proxy.handshake.contexts import TlsGeneration
from proxy.identity.verify import Trust
from proxy.types import Generation

_OURSELVES = "-"


class OwnIdentity:
    """Who we are to our callers. `tls` is None until the first certificate stands."""

    def __init__(
        self,
        keeper: Keeper,
        spiffe_id: SpiffeId,
        *,
        lifetime: datetime.timedelta,
        replica: str,
        audit: Callable[[str], None],
    ) -> None:
        self._keeper = keeper
        self.spiffe_id = spiffe_id
        self._lifetime = lifetime
        self._replica = replica
        self._audit = audit
        self._generation = 0
        self._stands_on: tuple[str, TrustBundle] | None = None
        self._due_at = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self.not_after = self._not_before = self._due_at
        self.tls: TlsGeneration | None = None

    def renew_if_due(self, now: datetime.datetime) -> bool:
        """Issue a new certificate when that is due; tell whether it was.

        Raises StateError, AuthorityError or SetError, and what was there stays.
        """
        held = self._keeper.held
        stands_on = signer_name(held.authority.intermediate), held.bundle
        # One that begins in the future is of a clock that was ahead: to callers it is worth nothing yet.
        is_timely = self._not_before <= now < self._due_at
        if self.tls is not None and is_timely and stands_on == self._stands_on:
            return False
        self._issue(held, now)
        self._stands_on = stands_on
        return True

    def _issue(self, held: Held, now: datetime.datetime) -> None:
        svid = held.authority.issue_svid(self.spiffe_id, now, self._lifetime)
        leaf = svid.leaf
        issued = Issued(
            chain=svid.chain,
            spiffe_id=self.spiffe_id,
            serial=f"{leaf.serial_number:x}",
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            key_fingerprint=key_fingerprint(svid.key.public_key()),
            was_shortened=False,
        )
        files = {CERTIFICATE_FILE: svid.chain_pem(), KEY_FILE: svid.key_pem(), ROOTS_FILE: held.bundle.to_pem()}
        identity_set = judge_set(files, held.authority.trust_domain, now, self.spiffe_id)
        trust = Trust.of(held.authority.trust_domain, identity_set.bundles)
        tls = TlsGeneration(identity_set, trust, Generation(self._generation + 1), admits_anonymous=True)
        self._keeper.record(entry_of(issued, signer_name(held.authority.intermediate)))
        self._audit(issued_line(Occasion(now=now, remote_address=_OURSELVES, replica=self._replica), issued))
        self._generation += 1
        self.tls = tls
        self._not_before, self.not_after = issued.not_before, issued.not_after
        self._due_at = now + (issued.not_after - now) / 2
