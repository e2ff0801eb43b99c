"""Carries out `remora authority init`: makes or takes a root and an intermediate, and seals what signs."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import ROOT_CERTIFICATE, ROOT_KEY, Authority
from certs.files import write_private_file
from certs.founding import found
from certs.hardening import harden
from certs.keys import write_key
from certs.kube import KubeError
from certs.rotation import Pace
from certs.sealed import KeySource
from certs.spiffe import parse_trust_domain
from certs.state import STATE, DirectoryStore
from certs.state_store import StateStore
from proxy.authority.commands import CommandFailed
from proxy.authority.control import KEY_SOURCE_VARIABLE, key_source, passphrase_file
from proxy.authority.replica import kube_store


def initialise(options: argparse.Namespace) -> str:
    """Make the authority that the options describe; returns what is to be shown. Raises CommandFailed."""
    directory: Path = options.directory
    warnings = harden()
    now = datetime.datetime.now(datetime.UTC)
    if (directory / STATE).exists():
        raise CommandFailed(
            f"{directory}: an authority stands there already; choose another directory, or remove it if nothing that "
            "it issued is in use"
        )
    if options.root_offline is not None and options.imported is not None:
        raise CommandFailed("--root-offline is for a root that is made here; what is imported has its root elsewhere")
    if options.root_offline is not None and options.root_offline.exists():
        raise CommandFailed(f"{options.root_offline} exists; name a new directory for the root's key")
    try:
        authority = _authority(options, now)
        pace = Pace(hints=options.hints, window=options.window.total_seconds(), margin=options.margin.total_seconds())
        source, told = _source(directory, options.key_source)
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


def _source(directory: Path, given: str | None) -> tuple[KeySource, list[str]]:
    file = passphrase_file(directory)
    if given or os.environ.get(KEY_SOURCE_VARIABLE) or file.exists():
        return key_source(directory, given), []
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
