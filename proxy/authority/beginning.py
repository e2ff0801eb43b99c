"""Carries out `remora authority init`: makes or takes a root and an intermediate, and seals what signs."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import ROOT_CERTIFICATE, ROOT_KEY, Authority
from certs.files import write_private_file
from certs.founding import found
from certs.hardening import harden
from certs.held import make_authority
from certs.keys import write_key
from certs.kube import KubeError
from certs.rotation import Pace
from certs.sealed import KeySource, SourceKind
from certs.signers import signer_name
from certs.spiffe import parse_trust_domain
from certs.state import STATE, DirectoryStore
from certs.state_kube import KubeStore
from certs.state_store import StateConflict, StateInDoubt, StateStore
from proxy.authority.commands import CommandFailed
from proxy.authority.control import KEY_SOURCE_VARIABLE, key_source, passphrase_file
from proxy.authority.replica import kube_store, passphrase_fetcher


def initialise(options: argparse.Namespace) -> str:
    """Make the authority that the options describe; returns what is to be shown. Raises CommandFailed."""
    directory: Path = options.directory
    warnings = harden()
    now = datetime.datetime.now(datetime.UTC)
    if options.if_none and options.root_offline is not None:
        raise CommandFailed("--if-none is for a start without a person; make a root that is carried away by hand")
    if (directory / STATE).exists() and not options.if_none:
        raise CommandFailed(
            f"{directory}: an authority stands there already; choose another directory, or remove it if nothing that "
            "it issued is in use"
        )
    if options.root_offline is not None and options.imported is not None:
        raise CommandFailed("--root-offline is for a root that is made here; what is imported has its root elsewhere")
    if options.root_offline is not None and options.root_offline.exists():
        raise CommandFailed(f"{options.root_offline} exists; name a new directory for the root's key")
    try:
        fetch = passphrase_fetcher(options, makes=True)
        if options.if_none and (standing := _standing(options, fetch)) is not None:
            return standing
        authority = _authority(options, now)
        pace = Pace(hints=options.hints, window=options.window.total_seconds(), margin=options.margin.total_seconds())
        source, told = _source(directory, options.key_source, fetch)
        # First of all: a crash after it costs a directory, and one before it would cost the root.
        carried = [] if options.root_offline is None else _carry_away(authority, options.root_offline)
        store: StateStore = (
            DirectoryStore(directory, source) if options.kube_state is None else kube_store(options, source)
        )
        try:
            found(
                store,
                authority,
                now,
                pace=pace,
                refresh_hint=int(options.refresh_hint.total_seconds()),
                root_offline=options.root_offline is not None,
            )
        except (StateConflict, StateInDoubt):
            # Another one began at the same moment, or ours stands and its answer was lost.
            if not (options.if_none and store.has_state()):
                raise
            _withdraw(store, authority)
            standing = _standing(options, fetch)
            if standing is None:
                raise
            return standing
        finally:
            store.close()
    except (KubeError, ValueError) as error:  # all of ours are ValueErrors
        raise CommandFailed(str(error)) from None
    where = directory if options.kube_state is None else f"the Secrets {options.kube_state}-*"
    lines = [f"made the authority of {authority.trust_domain} in {where}", *told, *carried]
    if authority.root_key is None:
        lines.append("the root's key is not here: later intermediates are made elsewhere and imported")
    lines += [f"warning: {warning}" for warning in [*warnings, *source.warnings()]]
    return "".join(f"{line}\n" for line in lines)


def _standing(options: argparse.Namespace, fetch: Callable[[str], bytes] | None) -> str | None:
    """Say which authority stands there already; None when there is none.

    Raises CommandFailed when it is of another trust domain, StateError when it cannot be read.
    """
    directory: Path = options.directory
    if options.kube_state is None:
        if not (directory / STATE).exists():
            return None
        store: StateStore = DirectoryStore(directory, key_source(directory, options.key_source, fetch))
    else:
        # The passphrase is not made here: a state without it is damaged, and a new one would hide that.
        probe = kube_store(options, KeySource(kind=SourceKind.SECRET, where=""))
        if not probe.has_state():
            return None
        source = key_source(directory, options.key_source, passphrase_fetcher(options, makes=False))
        store = kube_store(options, source)
    try:
        state = store.load()
        trust_domain = make_authority(state, store.certificate, store.key).trust_domain
    finally:
        store.close()
    if options.trust_domain is not None and trust_domain != options.trust_domain:
        raise CommandFailed(
            f"an authority of {trust_domain} stands there, and one of {options.trust_domain} was asked for; choose "
            "another place, or ask for that one"
        )
    return f"an authority of {trust_domain} stands there already\n"


def _withdraw(store: StateStore, authority: Authority) -> None:
    """Remove the signers that were stored, if the state that stands names others."""
    if not isinstance(store, KubeStore):
        return
    named = store.load().signers
    for certificate in (authority.root, authority.intermediate):
        name = signer_name(certificate)
        if name not in named:
            store.discard_signer(name)


def _authority(options: argparse.Namespace, now: datetime.datetime) -> Authority:
    if options.imported is not None:
        return Authority.load(options.imported)
    return Authority.create(
        parse_trust_domain(os.fsencode(options.trust_domain)),
        now,
        root_lifetime=options.root_lifetime,
        intermediate_lifetime=options.intermediate_lifetime,
        constrain_names=options.constrain_names,
    )


def _source(directory: Path, given: str | None, fetch: Callable[[str], bytes] | None) -> tuple[KeySource, list[str]]:
    file = passphrase_file(directory)
    if given or os.environ.get(KEY_SOURCE_VARIABLE) or file.exists():
        return key_source(directory, given, fetch), []
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private_file(file, secrets.token_hex(32).encode() + b"\n")
    told = [
        f"the keys are sealed under a new passphrase in {file}; keep it on another disk than the directory, and name "
        "it with --key-source file:PATH"
    ]
    return key_source(directory, None), told


def _carry_away(authority: Authority, directory: Path) -> list[str]:
    if authority.root_key is None:
        raise CommandFailed("the root's key is not among what was imported, so it cannot be written anywhere")
    directory.mkdir(mode=0o700, parents=True)
    write_private_file(directory / ROOT_CERTIFICATE, authority.root.public_bytes(Encoding.PEM))
    write_private_file(directory / ROOT_KEY, write_key(authority.root_key))
    return [f"the root's key is in {directory}, not sealed: carry it away, and bring it only to sign an intermediate"]
