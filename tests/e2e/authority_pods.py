"""Pods of an authority as `remora install` runs them: an init container, then a replica, over tests/kube_server.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kube_server
from authority_process import DOMAIN, ROOT, AuthorityProcess, eventually

from injector import names

SECONDS = 40.0
"""A reload comes every ten seconds, and a Lease is taken over after fifteen."""


class Pod(AuthorityProcess):
    """A replica with the arguments of the manifest; the directory is an empty one, as an emptyDir is."""

    def __init__(self, base: Path, kube: kube_server.KubeServer) -> None:
        base.mkdir()
        super().__init__(base)
        (base / "token").write_text(kube.token)
        self.where = (
            "--namespace", names.NAMESPACE, "--kube", kube.url, "--kube-token-file", str(base / "token"),
            "--kube-state", names.AUTHORITY, "--key-source", f"secret:{names.AUTHORITY_KEYS}",
        )  # fmt: skip

    def init_words(self, trust_domain: str = DOMAIN) -> list[str]:
        """The arguments of the init container."""
        return ["init", "--if-none", "--trust-domain", trust_domain, "--directory", str(self.directory), *self.where]

    def begin(self, trust_domain: str = DOMAIN) -> subprocess.CompletedProcess[str]:
        """Run the init container to its end."""
        return self.run(*self.init_words(trust_domain))

    def beginning(self) -> subprocess.Popen[str]:
        """Start the init container."""
        return subprocess.Popen(
            [sys.executable, "-m", "remora", "authority", *self.init_words()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serve(self) -> None:
        """Start the replica, and give its bundle to callers."""
        self.start(
            *self.where, "--kube-bundle", names.TRUST_BUNDLE_MAP, "--service-account", names.AUTHORITY,
            "--replica", self.base.name, "--identity-rate", "50:50",
        )  # fmt: skip
        self.bundle_file.write_text(self.order("export bundle", "--form", "pem"))

    @property
    def leads(self) -> bool:
        """Whether it said that it leads."""
        return "election: we lead" in self.log_file.read_text()


def leader_of(pods: list[Pod]) -> Pod:
    """The replica that leads."""
    found: list[Pod] = eventually(lambda: [pod for pod in pods if pod.leads], "one leads", SECONDS)
    return found[0]
