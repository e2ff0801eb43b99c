"""Judges a state that was read against the certificates and keys that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import MappingProxyType

from cryptography import x509

from certs.rotation import RotationState, Signer, Status
from certs.signers import is_issued_by, validity
from certs.state_store import StateError

_RESTORE = "restore the state and its signers from one copy"
_USABLE = (Status.PREPARED, Status.ACTIVE)


def check_state(
    state: RotationState,
    certificate: Callable[[str], x509.Certificate],
    open_key: Callable[[str], object],
    source: str,
) -> RotationState:
    """Checks that every signer which is not removed is there and is what the state says of it; returns the state.

    Its certificate ends when the state says; an intermediate is signed by its root; each key that will still be used
    is there and opens. What the state does not know of its signers' begins, it knows after this. A confirmation of a
    sequence beyond the state's own (after a restore) counts as none. Raises StateError naming `source`.
    """
    roots = tuple(_check_root(root, state, certificate, open_key, source) for root in state.roots)
    intermediates = tuple(
        _check_intermediate(signer, state, certificate, open_key, source) for signer in state.intermediates
    )
    confirmations = {
        sidecar: report if report.sequence <= state.sequence else dataclasses.replace(report, sequence=0)
        for sidecar, report in state.confirmations.items()
    }
    return dataclasses.replace(
        state, roots=roots, intermediates=intermediates, confirmations=MappingProxyType(confirmations)
    )


def _check_root(
    root: Signer,
    state: RotationState,
    certificate: Callable[[str], x509.Certificate],
    open_key: Callable[[str], object],
    source: str,
) -> Signer:
    if root.status is Status.REMOVED:
        return root
    checked = _check_times(root, certificate(root.name), source)
    if root.status in _USABLE and not state.root_offline:
        open_key(root.name)
    return checked


def _check_intermediate(
    signer: Signer,
    state: RotationState,
    certificate: Callable[[str], x509.Certificate],
    open_key: Callable[[str], object],
    source: str,
) -> Signer:
    if signer.status is Status.REMOVED:
        return signer
    own = certificate(signer.name)
    if signer.root not in {root.name for root in state.roots if root.status is not Status.REMOVED}:
        raise StateError(f"{source}: {signer.name[:12]} stands under an unknown root; {_RESTORE}")
    if not is_issued_by(own, certificate(signer.root)):
        raise StateError(f"{source}: {signer.name[:12]} is not signed by its root {signer.root[:12]}; {_RESTORE}")
    checked = _check_times(signer, own, source)
    if signer.status in _USABLE:
        open_key(signer.name)
    return checked


def _check_times(signer: Signer, certificate: x509.Certificate, source: str) -> Signer:
    begin, end = validity(certificate)
    if signer.not_after != end or signer.not_before not in (0.0, begin):
        raise StateError(f"{source}: {signer.name[:12]} has another validity than its certificate; {_RESTORE}")
    return dataclasses.replace(signer, not_before=begin)
