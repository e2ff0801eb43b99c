"""Judges certificates that are to sign for a trust domain, and says of them what a rotation wants to know.

A pair that was made elsewhere (an organisation's PKI, cert-manager, an export of Vault) is judged whole before it is
taken: whatever is wrong with it would be found by every sidecar at once, at the moment when it is first used.

Everything here is pure, but for the fresh key of a trial; `now` is aware of its time zone.
"""

from __future__ import annotations

import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Authority
from certs.rotation import Event, IntermediateMade, RootMade, RotationError, RotationState
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import chain_fault
from certs.svid import SvidError, signing_violations, spiffe_id_of


class SignerError(ValueError):
    """A root or an intermediate that cannot be taken; the message says which, why, and what to do."""


def signer_name(certificate: x509.Certificate) -> str:
    """Names a signer: SHA-256 of its DER in hexadecimal."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def root_made(certificate: x509.Certificate) -> RootMade:
    """Says of a root that is stored what a rotation wants to know.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> root_made(memory.root).name == signer_name(memory.root)
    True
    """
    begin, end = validity(certificate)
    return RootMade(name=signer_name(certificate), not_before=begin, not_after=end)


def intermediate_made(certificate: x509.Certificate, root: x509.Certificate) -> IntermediateMade:
    """Says of an intermediate that is stored what a rotation wants to know.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> intermediate_made(memory.intermediate, memory.root).root == signer_name(memory.root)
    True
    """
    begin, end = validity(certificate)
    return IntermediateMade(name=signer_name(certificate), root=signer_name(root), not_before=begin, not_after=end)


def pair_made(root: x509.Certificate, intermediate: x509.Certificate, state: RotationState) -> list[Event]:
    """Says of a pair that was made elsewhere what is new of it; raises RotationError when that is nothing."""
    events: list[Event] = []
    if signer_name(root) not in state.signers:
        events.append(root_made(root))
    if signer_name(intermediate) not in state.signers:
        events.append(intermediate_made(intermediate, root))
    if not events:
        raise RotationError("this root and this intermediate are known here already; make new ones")
    return events


def validity(certificate: x509.Certificate) -> tuple[float, float]:
    """Says when a certificate begins and ends, in seconds since the epoch."""
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tells whether a certificate names this issuer and bears its signature.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> is_issued_by(memory.intermediate, memory.root), is_issued_by(memory.root, memory.intermediate)
    (True, False)
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def judge_pair(authority: Authority, trust_domain: TrustDomain, now: datetime.datetime) -> None:
    """Raises SignerError unless this root and intermediate may sign, and whoever has the root believes what they sign.

    The last is tried: a leaf is signed and goes through the strict validation of a sidecar. So nothing is taken that
    no rule here foresees and OpenSSL refuses, such as a signer without key identifiers or one whose name constraints
    exclude the trust domain.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> judge_pair(memory.authority, memory.trust_domain, memory.now)
    """
    judge_root(authority.root, trust_domain, now)
    judge_intermediate(authority.intermediate, authority.root, trust_domain, now)
    trial = authority.issue_svid(SpiffeId.for_service_account(trust_domain, "remora-system", "trial"), now)
    fault = chain_fault(trial.chain, authority.bundle, now)
    if fault is not None:
        raise SignerError(
            f"what the intermediate signs would not be believed: {fault} (1 is a workload's certificate, 2 the "
            "intermediate, 3 the root)"
        )


def judge_root(root: x509.Certificate, trust_domain: TrustDomain, now: datetime.datetime) -> None:
    """Raises SignerError unless this may be a root of the trust domain now: a CA, self-signed, room for one below."""
    _judge(root, "the root", trust_domain, now)
    if not is_issued_by(root, root):
        raise SignerError("the root is not signed by itself; import the certificate at the top of the chain")
    if _path_length(root) == 0:
        raise SignerError("the root allows no intermediate below it (pathLen 0); make one with pathLen 1 or none")


def judge_intermediate(
    intermediate: x509.Certificate, root: x509.Certificate, trust_domain: TrustDomain, now: datetime.datetime
) -> None:
    """Raises SignerError unless this intermediate may sign leaves and revocation lists of the trust domain now.

    >>> from certs.testing import MemoryAuthority
    >>> memory, other = MemoryAuthority("cluster.local"), MemoryAuthority("other.example")
    >>> judge_intermediate(memory.intermediate, memory.root, memory.trust_domain, memory.now)
    >>> judge_intermediate(other.intermediate, other.root, memory.trust_domain, memory.now)
    Traceback (most recent call last):
    certs.signers.SignerError: the intermediate signs for other.example and not for cluster.local; import one of its own
    """
    try:
        named = spiffe_id_of(intermediate).trust_domain
    except SvidError as error:
        raise SignerError(
            f"the intermediate does not say which trust domain it signs for ({error}); "
            f"issue it with the URI spiffe://{trust_domain}"
        ) from None
    if named != trust_domain:
        raise SignerError(f"the intermediate signs for {named} and not for {trust_domain}; import one of its own")
    _judge(intermediate, "the intermediate", trust_domain, now)
    if not is_issued_by(intermediate, root):
        raise SignerError("the root did not sign the intermediate; import the two that belong together")
    if not intermediate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        raise SignerError("the intermediate may not sign revocation lists; issue it with cRLSign in its keyUsage")


def _judge(certificate: x509.Certificate, what: str, trust_domain: TrustDomain, now: datetime.datetime) -> None:
    for finding in signing_violations(certificate, trust_domain):
        raise SignerError(f"{what} may not sign: {finding}")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise SignerError(
            f"{what} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC, not now; import a present one or mend the clock"
        )
    if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).critical:
        # RFC 5280 section 4.2.1.9. Releases of OpenSSL differ in whether strict validation asks for it.
        raise SignerError(f"basicConstraints of {what} is not critical; issue it anew with it marked so")
    lacking = _lacking_usages(certificate)
    if lacking:
        raise SignerError(
            f"extendedKeyUsage of {what} lacks {' and '.join(lacking)}, which OpenSSL takes for a limit of all that "
            "is below it; issue it without extendedKeyUsage, or with both"
        )
    permitted = _permitted_hosts(certificate)
    if permitted is not None and not any(_permits(host, trust_domain) for host in permitted):
        raise SignerError(
            f"the name constraints of {what} do not permit {trust_domain}; issue it with the URI constraint "
            f"{trust_domain}, or with none"
        )


def _lacking_usages(certificate: x509.Certificate) -> list[str]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    needed = (("serverAuth", ExtendedKeyUsageOID.SERVER_AUTH), ("clientAuth", ExtendedKeyUsageOID.CLIENT_AUTH))
    return [name for name, oid in needed if oid not in usage]


def _path_length(certificate: x509.Certificate) -> int | None:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


def _permitted_hosts(certificate: x509.Certificate) -> list[str] | None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    hosts = [
        name.value for name in constraints.permitted_subtrees or [] if isinstance(name, x509.UniformResourceIdentifier)
    ]
    return hosts or None


def _permits(host: str, trust_domain: TrustDomain) -> bool:
    # RFC 5280 section 4.2.1.10: a leading dot stands for every host below, and not for the domain itself.
    return trust_domain.endswith(host) if host.startswith(".") else trust_domain == host
