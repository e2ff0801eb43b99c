"""Makes the next root and the next intermediate, each like the one before it: what was once decided is kept.

A signer lives as long as the longest-lived of its kind, since one may have been cut short by the end of its root; and
an intermediate is bound to its trust domain by a name constraint if the present one is. Pure, but for the fresh key.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509

from certs.authority import INTERMEDIATE_LIFETIME, ROOT_LIFETIME
from certs.keys import PrivateKey, generate_key
from certs.profile import SIGNER_BACK_DATE, SignerShape, sign_signer
from certs.rotation import RotationState, Signer
from certs.spiffe import TrustDomain


def next_root(
    state: RotationState, trust_domain: TrustDomain, now: datetime.datetime
) -> tuple[x509.Certificate, PrivateKey]:
    """Makes a root with a fresh P-256 key.

    >>> from certs.rotation import begin
    >>> from certs.signers import intermediate_made, root_made
    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> state = begin(root_made(memory.root), intermediate_made(memory.intermediate, memory.root), 0.0)
    >>> root, _ = next_root(state, memory.trust_domain, memory.now)
    >>> root.not_valid_after_utc == memory.root.not_valid_after_utc
    True
    """
    key = generate_key()
    shape = SignerShape(
        trust_domain=trust_domain, name="root", lifetime=_lifetime(state.roots, ROOT_LIFETIME), path_length=1
    )
    return sign_signer(shape, key.public_key(), None, key, now), key


def next_intermediate(
    state: RotationState,
    present: x509.Certificate,
    root: x509.Certificate,
    root_key: PrivateKey,
    trust_domain: TrustDomain,
    now: datetime.datetime,
) -> tuple[x509.Certificate, PrivateKey]:
    """Makes an intermediate below `root`, with a fresh P-256 key; `present` is the one that signs now.

    >>> from certs.rotation import begin
    >>> from certs.signers import intermediate_made, root_made
    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> state = begin(root_made(memory.root), intermediate_made(memory.intermediate, memory.root), 0.0)
    >>> made = next_intermediate(
    ...     state, memory.intermediate, memory.root, memory.root_key, memory.trust_domain, memory.now
    ... )
    >>> made[0].not_valid_after_utc == memory.intermediate.not_valid_after_utc
    True
    """
    key = generate_key()
    shape = SignerShape(
        trust_domain=trust_domain,
        name="intermediate",
        lifetime=_lifetime(state.intermediates, INTERMEDIATE_LIFETIME),
        path_length=0,
        constrain_names=_constrains_names(present),
    )
    return sign_signer(shape, key.public_key(), root, root_key, now), key


def _lifetime(made: Sequence[Signer], usual: datetime.timedelta) -> datetime.timedelta:
    known = [signer.not_after - signer.not_before for signer in made if signer.not_before]
    return datetime.timedelta(seconds=max(known)) - SIGNER_BACK_DATE if known else usual


def _constrains_names(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return False
    return True
