"""Reads the mesh that a command is given: manifests by `-f`, defaults, and the options that say how to read them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from certs.spiffe import SpiffeIdError, parse_trust_domain
from injector import names
from injector.documents import split
from injector.doors import objects
from injector.inputs import BadInput, add_files, defaults_of, read_files
from injector.mesh import Mesh, Origin
from injector.mesh_read import Sourced, read_mesh
from injector.settings import Settings
from proxy.errors import ConfigError


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """Add `-f` and what says how the manifests are meant."""
    add_files(parser)
    parser.add_argument("--defaults", type=Path, metavar="FILE", help="the defaults file of the injector")
    parser.add_argument("-n", "--namespace", default="default", help="of objects that do not say (default: default)")
    parser.add_argument("--trust-domain", metavar="NAME", help="of the mesh; by default as the defaults file says")
    parser.add_argument(
        "--own-namespace",
        default=names.NAMESPACE,
        help=f"of the control plane, never injected (default {names.NAMESPACE})",
    )
    parser.add_argument(
        "--unasked",
        action="store_true",
        help=f"pods for which no {names.INJECT} asks have a sidecar too, as `remora inject` gives them one",
    )


def settings_of(options: argparse.Namespace) -> Settings:
    """Take the defaults that the options name. Raises BadInput."""
    defaults = defaults_of(options.defaults)
    if options.trust_domain is None:
        return defaults
    try:
        return replace(defaults, trust_domain=parse_trust_domain(options.trust_domain))
    except SpiffeIdError as error:
        raise BadInput(f"--trust-domain: {error}") from None


def mesh_of(options: argparse.Namespace, sources: Sequence[Sourced], defaults: Settings) -> Mesh:
    """Read the mesh out of documents as the options mean them. Raises BadInput with every fault."""
    try:
        return read_mesh(
            sources,
            namespace=options.namespace,
            defaults=defaults,
            own_namespace=options.own_namespace,
            unasked=options.unasked,
        )
    except ConfigError as error:
        raise BadInput(str(error)) from None


def read_sources(files: Sequence[str]) -> list[Sourced]:
    """Read every object of all files in order, those in Lists too. Raises BadInput with every fault of every file."""
    return sources_of(dict(read_files(files)))


def sources_of(files: Mapping[str, bytes]) -> list[Sourced]:
    """Take the objects out of files that were read already, by name. Raises BadInput with every fault."""
    found: list[Sourced] = []
    faults: list[str] = []
    for source, data in files.items():
        try:
            for part in split(data, source):
                found += (Sourced(each, Origin(source, part.line)) for each in objects([part]))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise BadInput("\n".join(faults))
    return found
