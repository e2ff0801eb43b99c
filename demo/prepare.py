"""Writes what a cluster would mount: a configuration for each sidecar, the policies, and places for everything else.

directory/
  policies/                    shared by all sidecars, as the policies of a namespace are; kept when it is there
  authority/                   the state of `remora authority`, its keys sealed; beside it audit.log and authority.log
  bundle.pem                   the roots of cluster.local
  web/ orders/ ledger/         token  sidecar.yaml  access.log  sidecar.log  app.log
  batch/                       token  identity/  batch.log: a workload without a sidecar, which no policy names
  stranger/                    identity/  a caller whose certificate says web, signed by an authority of its own
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Final

from certs.authority import Authority
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, publish
from demo.layout import EDIT, MARK, MEMBERS, TRUST_DOMAIN, WORKLOADS, Layout, identity_of, shipped_policies

_ABOUT: Final = f"""\
`remora demo` made this directory, and may write it anew: the authority, sidecar.yaml and logs are made at each start.
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
    # Nothing that an authority of another run has issued is in use any more.
    for old in (layout.authority, *(layout.identity(name) for name in (*MEMBERS, "stranger"))):
        shutil.rmtree(old, ignore_errors=True)
    for file in (layout.authority_passphrase, layout.bundle, *(layout.token(name) for name in MEMBERS)):
        file.unlink(missing_ok=True)
    for name in WORKLOADS:
        layout.home(name).mkdir(exist_ok=True)
        layout.configuration(name).write_text(layout.sidecar_configuration(name))
        for log in (layout.access_log(name), layout.sidecar_log(name), layout.application_log(name)):
            log.write_bytes(b"")
    layout.home("batch").mkdir(exist_ok=True)
    for log in (layout.authority_log, layout.audit_log, layout.batch_log):
        log.write_bytes(b"")
    _write_stranger(layout.identity("stranger"))
    return _write_policies(layout.policies)


def _write_stranger(directory: Path) -> None:
    """Make an identity by an authority that nobody in the mesh has heard of.

    Whoever can make certificates can write any name into them: the name is worth what its root is worth.
    """
    now = datetime.datetime.now(datetime.UTC)
    own = Authority.create(parse_trust_domain(TRUST_DOMAIN), now)
    svid = own.issue_svid(SpiffeId.parse(identity_of("web")), now)
    files = {CERTIFICATE_FILE: svid.chain_pem(), KEY_FILE: svid.key_pem(), ROOTS_FILE: own.bundle.to_pem()}
    publish(directory, files)


def _write_policies(directory: Path) -> bool:
    shipped = shipped_policies()
    (directory / EDIT).unlink(missing_ok=True)  # of a demo that was killed
    if directory.is_dir():
        return shipped == {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    directory.mkdir()
    for name, text in shipped.items():
        (directory / name).write_text(text)
    return True
