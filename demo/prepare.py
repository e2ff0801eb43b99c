"""Writes what a cluster would mount: an authority's identities, a configuration for each sidecar, the policies.

directory/
  policies/                    shared by all sidecars, as the policies of a namespace are; kept when it is there
  authority/                   root and intermediate of cluster.local
  web/ orders/ ledger/         identity/  sidecar.yaml  access.log  sidecar.log  app.log
  batch/                       identity/  a caller that no policy names
  stranger/                    identity/  a caller whose certificate says web, signed by an authority of its own
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from certs.authority import INTERMEDIATE_CERTIFICATE, Authority, Svid
from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, publish
from demo.layout import EDIT, MARK, TRUST_DOMAIN, WORKLOADS, Layout, identity_of, shipped_policies

MEMBERS: Final = (*WORKLOADS, "batch")
"""Who has an identity of the mesh."""

_ABOUT: Final = f"""\
`remora demo` made this directory, and may write it anew: identities, sidecar.yaml and logs are made at each start.
What stands in policies/ is yours once it is here: change it while the demo runs and the next request follows, or run
`remora demo --directory` with this directory again to see what becomes of the tour. The identities are for
{TRUST_DOMAIN} and good for nothing but the demo.
"""


class DirectoryError(Exception):
    """A directory that the demo will not write into, with a sentence for a person."""


def prepare(layout: Layout) -> bool:
    """Write all files of the mesh; return whether the policies are the shipped ones, just written.

    Raises DirectoryError for a directory that holds something else, and OSError when it cannot be written.
    """
    directory = layout.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / MARK).is_file():
        raise DirectoryError(f"{directory} is not empty and not of the demo; name a new directory, or an empty one")
    (directory / MARK).write_text(_ABOUT)
    now = datetime.datetime.now(datetime.UTC)
    authority = _authority(layout.authority, now)
    for name in WORKLOADS:
        layout.home(name).mkdir(exist_ok=True)
        layout.configuration(name).write_text(layout.sidecar_configuration(name))
        for log in (layout.access_log(name), layout.sidecar_log(name), layout.application_log(name)):
            log.write_bytes(b"")
    for name in MEMBERS:
        publish_identity(layout.identity(name), issue(authority, name, now), authority.bundle)
    # Whoever can make certificates can write any name into them: the name is worth what its root is worth.
    other = Authority.create(authority.trust_domain, now)
    publish_identity(layout.identity("stranger"), issue(other, "web", now), other.bundle)
    return _write_policies(layout.policies)


def _authority(directory: Path, now: datetime.datetime) -> Authority:
    if (directory / INTERMEDIATE_CERTIFICATE).exists():
        return Authority.load(directory)
    authority = Authority.create(parse_trust_domain(TRUST_DOMAIN), now)
    authority.save(directory)
    return authority


def issue(authority: Authority, name: str, now: datetime.datetime) -> Svid:
    """Make a new key and have a certificate issued that says that its owner is the workload `name`."""
    return authority.issue_svid(SpiffeId.parse(identity_of(name)), now)


def publish_identity(directory: Path, svid: Svid, roots: TrustBundle) -> None:
    """Mount an identity and whom it trusts, all of it at one moment."""
    publish(directory, {CERTIFICATE_FILE: svid.chain_pem(), KEY_FILE: svid.key_pem(), ROOTS_FILE: roots.to_pem()})


def _write_policies(directory: Path) -> bool:
    shipped = shipped_policies()
    (directory / EDIT).unlink(missing_ok=True)  # of a demo that was killed
    if directory.is_dir():
        return shipped == {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    directory.mkdir()
    for name, text in shipped.items():
        (directory / name).write_text(text)
    return True
