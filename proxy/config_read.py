"""Reads the files that a configuration is: the one of --config, and the directories that it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from proxy.config_files import POD_FILES, ConfigFiles, directories
from proxy.documents import MAX_BYTES
from proxy.errors import ConfigError, Fault
from proxy.watch import read_policy_files

MOUNT_HINT: Final = "mount it, or take the key out"


class ConfigReader:
    """Reads a configuration again and again; what the file names is looked for only when the file has changed."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._main: bytes | None = None
        self._directories = ("", "")

    def read(self) -> ConfigFiles:
        """Read everything. Raises ConfigError when a part of it cannot be read."""
        main, pod = self._read_main()
        services = self._directories[1]
        if not services:
            return ConfigFiles(main=main, pod=pod)
        try:
            return ConfigFiles(main=main, pod=pod, services=_services(services))
        except OSError as failure:
            message = f"the directory of services cannot be read: {failure.strerror}"
            raise ConfigError([_fault(failure, services, message, MOUNT_HINT)]) from failure

    def read_to_begin(self) -> ConfigFiles:
        """Read what a sidecar must have to begin; services may be missing, they come when they are mounted.

        Raises ConfigError.
        """
        try:
            return self.read()
        except ConfigError:
            main, pod = self._read_main()
            return ConfigFiles(main=main, pod=pod)

    def _read_main(self) -> tuple[bytes, dict[str, bytes] | None]:
        try:
            main = Path(self.file).read_bytes()
        except OSError as failure:
            message = f"the configuration file cannot be read: {failure.strerror}"
            hint = "give its path with --config"
            raise ConfigError([Fault(file=self.file, message=message, hint=hint)]) from failure
        if main != self._main:
            self._directories = directories(main, self.file)
            self._main = main
        pod = self._directories[0]
        try:
            return main, _pod(pod) if pod else None
        except OSError as failure:
            message = f"the directory of the downward API cannot be read: {failure.strerror}"
            raise ConfigError([_fault(failure, pod, message, MOUNT_HINT)]) from failure


def _pod(directory: str) -> dict[str, bytes]:
    """Read what is there of the pod's facts, all of one publication. Raises OSError."""
    root = Path(directory)
    data = root / "..data"
    source = Path(os.path.realpath(data)) if data.is_symlink() else root
    present = {path.name for path in source.iterdir()}
    found: dict[str, bytes] = {}
    for name in POD_FILES:
        if name in present:
            with (source / name).open("rb") as file:
                found[name] = file.read(MAX_BYTES + 1)
    return found


def _services(directory: str) -> dict[str, bytes]:
    return {f"{directory}/{name}": content for name, content in read_policy_files(directory).items()}


def _fault(failure: OSError, directory: str, message: str, hint: str) -> Fault:
    return Fault(file=str(failure.filename or directory), message=message, hint=hint)
