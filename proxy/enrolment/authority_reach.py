"""Reaches the authority: by which bundle it is believed, with which token we ask, over which connection.

What holds:

1. Whom we believe is the bundle that the authority gave. The file counts again only when its content has changed, so
   that a root that was ended does not come back by a file that nobody has touched.
2. Token and bundle file are read anew each time, off the loop: who mounts them replaces them while we run.
3. A token that can be redeemed once only is not sent again beside a certificate.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from certs.bundle import MAX_BUNDLE_BYTES, BundleError, TrustBundle, parse_bundle
from certs.spiffe import TrustDomain
from certs.store import IdentitySet
from proxy.config_values import IdentityAuthority
from proxy.enrolment.authority_client import Conversation, Question, converse
from proxy.enrolment.authority_messages import MAX_TOKEN_BYTES, EnrolmentError, is_used_up_by_use, read_token
from proxy.errors import HandshakeError, Reason
from proxy.handshake.contexts import CallingMaterial
from proxy.identity.verify import Trust

_OTHER_ROOT: Final = frozenset(
    {Reason.ISSUER_UNKNOWN, Reason.ROOT_OF_OTHER_TRUST_DOMAIN, Reason.SIGNATURE_INVALID, Reason.TRUST_DOMAIN_UNKNOWN}
)
"""How a server fails whose root is not in the bundle that we judged it by."""


class Reach:
    """The way to one authority. `read_token` and `read_bundles` wait for a disk, `ask` for the network."""

    def __init__(
        self, asks: IdentityAuthority, trust_domain: TrustDomain, now: Callable[[], float] = time.time
    ) -> None:
        self._asks = asks
        self._trust_domain = trust_domain
        self._now = now
        self._believed = ""
        """The digest of the bundle file when the authority last answered."""

    def read_token(self, own: IdentitySet | None) -> str | None:
        """Read the token as it is mounted now; None when the certificate `own` has to do. Raises EnrolmentError."""
        path = self._asks.token_file
        try:
            with Path(path).open("rb") as file:
                token = read_token(file.read(MAX_TOKEN_BYTES + 1), path)
        except OSError as failure:
            if own is not None and isinstance(failure, FileNotFoundError):
                return None  # a join token that was taken away after use
            message = f"{path}: the token cannot be read ({failure.strerror}); mount one there"
            raise EnrolmentError(message) from failure
        return None if own is not None and is_used_up_by_use(token) else token

    def read_bundles(self, held: TrustBundle | None) -> tuple[list[TrustBundle], str]:
        """Give whom to believe, the best first, and the digest of the bundle file ("" when it cannot be read).

        `held` is the newest bundle that the authority gave, None before the first. Raises EnrolmentError.
        """
        path, fault, digest = self._asks.bundle_file, "", ""
        found = [held] if held is not None and held.certificates else []
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BUNDLE_BYTES + 1)
            digest = hashlib.sha256(data).hexdigest()
            given = parse_bundle(self._trust_domain, data, path)
            if not given.certificates:
                fault = f"{path}: it is empty, so nobody is believed to be the authority; bring its bundle"
            elif held is None or digest != self._believed:
                found.append(given)
            else:
                fault = f"{path}: it is the one of before the trust domain was ended; bring the new bundle"
        except OSError as failure:
            fault = f"{path}: the bundle cannot be read ({failure.strerror}); mount the authority's bundle there"
        except BundleError as failure:
            fault = str(failure).replace("\n", "; ")
        if not found:
            raise EnrolmentError(fault)
        return found, digest

    async def ask(
        self, bundles: tuple[list[TrustBundle], str], own: IdentitySet | None, questions: Sequence[Question]
    ) -> Conversation:
        """Ask, showing `own`, an authority that is believed by one of `bundles`. Raises EnrolmentError."""
        candidates, digest = bundles
        for number, bundle in enumerate(candidates, start=1):
            material = CallingMaterial(own, Trust.of(self._trust_domain, {self._trust_domain: bundle}), clock=self._now)
            try:
                talk = await converse(
                    self._asks.address,
                    material,
                    self._asks.identity,
                    questions,
                    seconds=self._asks.timeout,
                    now=self._now,
                )
            except EnrolmentError as failure:
                cause = failure.__cause__
                is_of_other_root = isinstance(cause, HandshakeError) and cause.reason in _OTHER_ROOT
                if not is_of_other_root or number == len(candidates):
                    raise
            else:
                self._believed = digest
                return talk
        raise EnrolmentError("there is no bundle to believe the authority by")
