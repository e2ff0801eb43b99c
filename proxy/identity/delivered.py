"""Reads the files of `identity.credential_bundle`: an identity as the kubelet delivers pod certificates.

    file          PEM: private key, then the chain, leaf first         -> tls.key, tls.crt
    bundle_file   PEM: the roots, a projected ClusterTrustBundle       -> ca.crt
    bundles       a directory with other domains' bundles, if named    -> bundles/<trust domain>.json, .pem

Key and chain are read in one open, read and close, so they are of one moment, whatever replaces the file. The roots are
another file and may be of another moment; the set is judged as it is, and again at the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from certs.bundle import BUNDLE_DIRECTORY
from certs.files import read_file
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, StoreError, read_files
from proxy.errors import ConfigError, Fault
from proxy.identity.credential import CredentialError, split_credential_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialBundleSource:
    """Where the files stand; `bundles` None means that no other trust domain is trusted by file."""

    file: Path
    bundle_file: Path
    bundles: Path | None = None

    def read(self) -> Mapping[str, bytes]:
        """Reads all files. Raises ConfigError with every fault."""
        files: dict[str, bytes] = {}
        faults: list[Fault] = []
        try:
            files.update(split_credential_bundle(read_file(self.file)))
        except (StoreError, CredentialError) as error:
            faults.append(Fault(file=str(self.file), message=str(error).removeprefix(f"{self.file}: ")))
        try:
            files[ROOTS_FILE] = read_file(self.bundle_file)
        except StoreError as error:
            faults.append(Fault(file=str(self.bundle_file), message=str(error).removeprefix(f"{self.bundle_file}: ")))
        if self.bundles is not None:
            try:
                mounted = read_files(self.bundles)
            except StoreError as error:
                faults.append(Fault(file=str(self.bundles), message=str(error)))
            else:
                files.update({f"{BUNDLE_DIRECTORY}/{name}": content for name, content in mounted.items()})
        if faults:
            raise ConfigError(faults)
        return files

    def place(self, sentence: str) -> Fault:
        """Makes a fault of a sentence of `certs.store`, at the file that it is about."""
        name, separator, rest = sentence.partition(": ")
        if separator and name in (CERTIFICATE_FILE, KEY_FILE):
            return Fault(file=str(self.file), message=rest)
        if separator and name == ROOTS_FILE:
            return Fault(file=str(self.bundle_file), message=rest)
        return Fault(file=str(self.bundles or self.file), message=sentence)
