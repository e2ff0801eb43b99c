"""One of several replicas of an authority, whose state is in Kubernetes: finds its place, takes part in the election.

Every replica signs; one decides. Which that is, a Lease says; who loses it stops deciding before another may begin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import logging
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from certs.election import Election
from certs.keeper import Keeper
from certs.kube import KubeClient, KubeError, KubeServer, in_cluster
from certs.kube_place import Place
from certs.lease import Terms
from certs.replicas import Replicas
from certs.sealed import KeySource
from certs.state_kube import KubeStore
from proxy.authority.commands import CommandFailed
from proxy.authority.kube_bundle import KubeBundle
from proxy.authority.passphrase_secret import passphrase_of

_LABEL_CHARACTERS = 40

_log = logging.getLogger("remora.authority")


class Campaign:
    """Takes part in the election for as long as the service runs."""

    def __init__(self, election: Election, terms: Terms) -> None:
        self.leads = election.leads
        self._election = election
        self._terms = terms
        self._told = ""

    async def run(self) -> None:
        """Step after step, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(None, self._election.step, _now())
                self._tell("we lead" if self._election.leads() else f"{self._election.holder or 'nobody'} leads")
            except KubeError as error:
                self._tell(f"the Lease cannot be read or written: {error}")
            except Exception:  # without an election nobody decides any more, and nobody would notice
                _log.exception("a fault of our own; the election goes on")
            await asyncio.sleep(self._terms.retry_period)

    async def release(self) -> None:
        """Let the next one lead at once."""
        with contextlib.suppress(KubeError):
            await asyncio.get_running_loop().run_in_executor(None, self._election.release, _now())

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            _log.info("election: %s", what)


def kube_server(options: argparse.Namespace) -> KubeServer:
    """Find the API server that the options name. Raises KubeError, and CommandFailed when they name none."""
    where: str | None = options.kube
    if where is None:
        raise CommandFailed("the state is to be in Kubernetes, and nobody says where that is; give --kube")
    token_file: Path | None = options.kube_token_file
    ca_file: Path | None = options.kube_ca_file
    if where != "in-cluster":
        return KubeServer(url=where, token_file=token_file, ca_file=ca_file)
    found = in_cluster()
    return KubeServer(url=found.url, token_file=token_file or found.token_file, ca_file=ca_file or found.ca_file)


def passphrase_fetcher(options: argparse.Namespace, *, makes: bool) -> Callable[[str], bytes] | None:
    """Give what asks the cluster for the passphrase of `secret:NAME`, and makes it for `init`; None without --kube.

    Raises KubeError.
    """
    if options.kube is None:
        return None
    client = KubeClient(kube_server(options))
    return lambda name: passphrase_of(client, options.namespace, name, makes=makes)


def kube_bundle(options: argparse.Namespace, leads: Callable[[], bool]) -> KubeBundle | None:
    """Give what keeps the ConfigMap of --kube-bundle; None without. Raises KubeError and CommandFailed."""
    if options.kube_bundle is None:
        return None
    return KubeBundle(KubeClient(kube_server(options)), options.namespace, options.kube_bundle, leads)


def kube_store(options: argparse.Namespace, source: KeySource) -> KubeStore:
    """Give the store for a command that decides alone (`init`). Raises KubeError, ValueError and CommandFailed."""
    place = _place(options)
    return KubeStore(KubeClient(kube_server(options)), place, source)


def open_replica(
    options: argparse.Namespace, source: KeySource, crl_lifetime: datetime.timedelta
) -> tuple[Keeper, Campaign]:
    """Load the state as one of its replicas. Raises KubeError, ValueError, StateError and CommandFailed."""
    client, place = KubeClient(kube_server(options)), _place(options)
    terms = Terms(me=place.replica)
    election = Election(client, place.namespace, place.name, terms)
    store = KubeStore(client, place, source, leads=election.leads)
    keeper = Keeper(
        store,
        _now(),
        time.monotonic(),
        crl_lifetime=crl_lifetime,
        replicas=Replicas(leads=election.leads, leader=lambda: election.holder, report=store.confirm),
    )
    return keeper, Campaign(election, terms)


def _place(options: argparse.Namespace) -> Place:
    # A process that begins anew under the same name must not take for its own what the one before has reserved.
    begin = re.sub(r"[^a-z0-9-]", "-", str(options.replica).lower())[:_LABEL_CHARACTERS].strip("-") or "replica"
    return Place(namespace=options.namespace, replica=f"{begin}-{secrets.token_hex(4)}", name=options.kube_state)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
