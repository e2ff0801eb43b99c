"""Where everything of the mesh is: its workloads, its ports, its files. Values only, nothing is opened or started.

Each workload owns ten ports in a row, so that a port tells whose it is and what for:

    base + 0    authority +1 its signing port   +2 health and metrics
    base + 10   web       +0 the application   +1 mutual TLS from peers   +2 health and metrics   +3 admin
    base + 20   orders    +4, +5 ...           plain text from the application, out to a service
    base + 30   ledger
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

TRUST_DOMAIN: Final = "cluster.local"
NAMESPACE: Final = "shop"
WORKLOADS: Final = ("web", "orders", "ledger")
MEMBERS: Final = (*WORKLOADS, "batch")
"""Who has an identity of the mesh."""

AUTHORITY_ID: Final = f"spiffe://{TRUST_DOMAIN}/ns/remora-system/sa/remora-authority"

AUTHORITY: Final = "authority"
AUTHORITY_AUDIT: Final = "audit.log"
IDENTITY: Final = "identity"
TOKEN: Final = "token"  # noqa: S105 a name
"""Names in the directory of the mesh; the last two are in that of a workload."""

PORTS: Final[Mapping[str, int]] = {
    "authority": 1,
    "authority_health": 2,
    "web_app": 10,
    "web_mesh": 11,
    "web_health": 12,
    "web_admin": 13,
    "web_to_orders": 14,
    "web_to_ledger": 15,
    "orders_app": 20,
    "orders_mesh": 21,
    "orders_health": 22,
    "orders_admin": 23,
    "orders_to_ledger": 24,
    "ledger_app": 30,
    "ledger_mesh": 31,
    "ledger_health": 32,
    "ledger_admin": 33,
}
"""What a port is for -> its distance from the base."""

EDIT: Final = "ledger-shut.yaml"
"""The policy file that the tour adds for a while."""

MARK: Final = "made-by-remora-demo.txt"
"""The file by which a directory of the demo is known, so that no other is ever written into."""

_CALLS: Final[Mapping[str, Mapping[str, str]]] = {
    "web": {"--orders": "web_to_orders", "--ledger": "web_to_ledger"},
    "orders": {"--ledger": "orders_to_ledger"},
    "ledger": {},
}


def identity_of(workload: str) -> str:
    """Give the SPIFFE ID of a workload."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{workload}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The mesh in `directory` (absolute), with ports counted from `base`."""

    directory: Path
    base: int

    def port(self, name: str) -> int:
        """Give a port by what it is for; KeyError for a name that PORTS lacks."""
        return self.base + PORTS[name]

    def url(self, name: str, path: str = "", scheme: str = "http") -> str:
        """Write the address of a port."""
        return f"{scheme}://127.0.0.1:{self.port(name)}{path}"

    def admin(self, workload: str) -> str:
        """Write where the sidecar of a workload answers questions about itself."""
        return f"127.0.0.1:{self.port(f'{workload}_admin')}"

    @property
    def policies(self) -> Path:
        return self.directory / "policies"

    @property
    def authority(self) -> Path:
        return self.directory / AUTHORITY

    @property
    def authority_passphrase(self) -> Path:
        """What seals the authority's keys; `init` makes it."""
        return self.directory / f"{AUTHORITY}.passphrase"

    @property
    def authority_log(self) -> Path:
        return self.directory / f"{AUTHORITY}.log"

    @property
    def audit_log(self) -> Path:
        return self.directory / AUTHORITY_AUDIT

    @property
    def bundle(self) -> Path:
        """The roots of the mesh, by which the authority is believed the first time."""
        return self.directory / "bundle.pem"

    def home(self, name: str) -> Path:
        """The directory of a workload or of a caller."""
        return self.directory / name

    def identity(self, name: str) -> Path:
        """Where tls.crt, tls.key and ca.crt of a caller are published; a sidecar keeps its own in memory."""
        return self.home(name) / IDENTITY

    def token(self, name: str) -> Path:
        """Where the join token of a workload is mounted."""
        return self.home(name) / TOKEN

    def configuration(self, workload: str) -> Path:
        return self.home(workload) / "sidecar.yaml"

    def access_log(self, workload: str) -> Path:
        return self.home(workload) / "access.log"

    def application_log(self, workload: str) -> Path:
        return self.home(workload) / "app.log"

    def sidecar_log(self, workload: str) -> Path:
        return self.home(workload) / "sidecar.log"

    @property
    def batch_log(self) -> Path:
        return self.home("batch") / "batch.log"

    def sidecar_configuration(self, workload: str) -> str:
        """Write the sidecar's configuration file: the shipped one with ports and paths filled in."""
        source = resources.files("demo") / "files" / "sidecars" / f"{workload}.yaml"
        values: dict[str, str] = {name: str(self.port(name)) for name in PORTS}
        # JSON's quotes are YAML's too, so a path may hold whatever it likes.
        values["token"] = json.dumps(str(self.token(workload)))
        values["bundle"] = json.dumps(str(self.bundle))
        values["policies"] = json.dumps(str(self.policies))
        values["access_log"] = json.dumps(str(self.access_log(workload)))
        return Template(source.read_text("utf-8")).substitute(values)

    def application_arguments(self, workload: str) -> list[str]:
        """Give the words after `python -m demo.workloads` that start the application."""
        words = [workload, "--listen", str(self.port(f"{workload}_app"))]
        for option, port in _CALLS[workload].items():
            words += [option, str(self.port(port))]
        return words

    def batch_arguments(self) -> list[str]:
        """Give the words after `python -m demo.batch` that start it."""
        return [
            "--authority",
            str(self.port("authority")),
            "--home",
            str(self.home("batch")),
            "--bundle",
            str(self.bundle),
        ]

    def short(self, text: str) -> str:
        """Write paths inside the directory relative to it, for a reader who knows where it is."""
        return text.replace(f"{self.directory}/", "")


def shipped_policies() -> dict[str, str]:
    """Give the policy files that the demo begins with: name -> content."""
    source = resources.files("demo") / "files" / "policies"
    return {entry.name: entry.read_text("utf-8") for entry in source.iterdir() if entry.name.endswith(".yaml")}
