"""Gives a sidecar a `services.yaml` as it finds one in its directory, and says what it has against it."""

from __future__ import annotations

from injector import names
from proxy.config import load_config
from proxy.config_files import ConfigFiles
from proxy.config_values import Service
from proxy.errors import ConfigError

_MAIN = f"""\
workload: {{namespace: shop, service_account: web}}
identity: {{files: {{directory: /id}}}}
outbound: {{directory: {names.SERVICES_DIRECTORY}}}
policy: {{directory: {names.POLICY_DIRECTORY}}}
"""


def services_of(text: str) -> dict[str, Service]:
    """Give the services that a sidecar reads. Raises ConfigError."""
    path = f"{names.SERVICES_DIRECTORY}/{names.SERVICES_FILE}"
    files = ConfigFiles(main=_MAIN.encode(), services={path: text.encode()})
    return dict(load_config(files.pack(), "remora.yaml").outbound.services)


def faults_of(text: str) -> list[str]:
    """Give the faults that a sidecar finds, none if it takes the file."""
    try:
        services_of(text)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []
