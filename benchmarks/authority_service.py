"""Starts a real authority on its core, as an operator would: a directory, sealed keys, the cluster's keys in a file.

One directory lives through several processes. While none runs, what it holds can be grown to the size of a large
cluster: certificates in the index and sidecars among the confirmations, written as the authority itself writes them.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.alone import CoreWatch
from benchmarks.authority_report import Start
from benchmarks.configs import NAMESPACE, TRUST_DOMAIN
from benchmarks.processes import (
    PACKAGES,
    BenchError,
    Programs,
    answers_ready,
    free_ports,
    resident_mib,
    thread_nanoseconds,
    wait_until,
)
from certs.bundle import TrustBundle, parse_jwks
from certs.issued import write_line
from certs.keeper import Keeper
from certs.rotation import Confirmation
from certs.rotation_json import confirmations_from_json, confirmations_to_json
from certs.spiffe import TrustDomain
from certs.state import CONFIRMATIONS, ISSUED, DirectoryStore
from certs.state_store import IssuedEntry
from proxy.authority.config import DEFAULT_AUDIENCE
from proxy.authority.control import key_source, open_keeper

ISSUER: Final = "https://kubernetes.default.svc"
RATE: Final = "1000000:1000000"
"""Of --address-rate and --identity-rate: all callers come from one address, and each renews all the time."""
PAUSE: Final = 0.005
"""Between two questions whether it is ready."""

_KID: Final = "cluster"
_TOKEN_SECONDS: Final = 20 * 3600
_INIT_SECONDS: Final = 60
_SYNCS: Final = 25


class Cluster:
    """Who makes ServiceAccount tokens: a key as kube-apiserver has one, and its public half in a file."""

    def __init__(self, directory: Path) -> None:
        self.key_file = directory / "jwks.json"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        key = {name: public[name] for name in ("kty", "n", "e")}
        self.key_file.write_text(json.dumps({"keys": [key | {"use": "sig", "alg": "RS256", "kid": _KID}]}), "ascii")

    def token(self, account: str, pod: str) -> str:
        """Make what the kubelet mounts into a pod of a ServiceAccount, good for hours."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": [DEFAULT_AUDIENCE],
            "sub": f"system:serviceaccount:{NAMESPACE}:{account}",
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
            "kubernetes.io": {
                "namespace": NAMESPACE,
                "serviceaccount": {"name": account, "uid": f"{account}-uid"},
                "pod": {"name": pod, "uid": f"{pod}-uid"},
                "node": {"name": "node-1", "uid": "node-1-uid"},
            },
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": _KID})


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A process that serves: its id, the signing port, and how it came to be ready."""

    pid: int
    port: int
    start: Start

    def cpu(self) -> float:
        """Tell the CPU time of its threads, in seconds."""
        return thread_nanoseconds(self.pid) / 1e9

    def resident_mib(self) -> float:
        """Tell its resident memory."""
        return resident_mib([self.pid])


class AuthorityDirectory:
    """An authority's directory below `base`, with its index and its audit log; made by `remora authority init`."""

    def __init__(self, base: Path, core: int) -> None:
        base.mkdir()
        self.base = base
        self.core = core
        self.cluster = Cluster(base)
        self._directory = base / "ca"
        self._audit = base / "audit.log"
        self._port, self._health = free_ports(2)
        _run_to_end(["init", "--directory", str(self._directory), "--trust-domain", TRUST_DOMAIN])
        document = _run_to_end(["export", "bundle", "--directory", str(self._directory)])
        self.bundle: TrustBundle = parse_jwks(TrustDomain(TRUST_DOMAIN), document, "the authority's bundle")

    @contextmanager
    def served(self) -> Iterator[Serving]:
        """Serve within the `with`; ready when it begins. Raises BenchError when it does not become so."""
        command = [
            sys.executable, "-m", "remora", "authority", "serve",
            "--directory", str(self._directory),
            "--listen", f"127.0.0.1:{self._port}", "--health-listen", f"127.0.0.1:{self._health}",
            "--audit-log", str(self._audit), "--log-level", "warning",
            "--tokens", "offline", "--jwks", str(self.cluster.key_file), "--issuer", ISSUER,
            "--address-rate", RATE, "--identity-rate", RATE,
        ]  # fmt: skip
        with Programs() as programs:
            watch, began = CoreWatch(self.core), time.monotonic()
            process = programs.launch(
                command,
                core=self.core,
                directory=self.base,
                environment={"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.base.parent / "compiled")},
            )
            wait_until(
                lambda: answers_ready(self._health),
                process,
                "the authority",
                "does not become ready",
                self.base,
                pause=PAUSE,
            )
            ready, cpu = time.monotonic() - began, thread_nanoseconds(process.pid) / 1e9
            start = Start(
                ready=ready, cpu=cpu, resident_mib=resident_mib([process.pid]), foreign_share=watch.foreign(cpu)
            )
            yield Serving(pid=process.pid, port=self._port, start=start)

    # --- what it wrote ---

    def written(self) -> tuple[int, int, int, int]:
        """Count the lines and bytes of the index, then those of the audit log."""
        return *_size(self._directory / ISSUED), *_size(self._audit)

    def confirmed(self) -> int:
        """Count the sidecars that hold the present bundle, by the authority's own file; only while nobody serves."""
        reports = confirmations_from_json((self._directory / CONFIRMATIONS).read_bytes(), CONFIRMATIONS)
        return sum(report.sequence == self.bundle.sequence for report in reports.values())

    def sync_seconds(self) -> float:
        """Tell how long a line takes to be on the disk of the directory, the middle one of some."""
        place, line, took = self._directory / "sync-trial", b"-" * 299 + b"\n", []
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(_SYNCS):
                began = time.perf_counter()
                os.write(descriptor, line)
                os.fsync(descriptor)
                took.append(time.perf_counter() - began)
        finally:
            os.close(descriptor)
            place.unlink()
        return statistics.median(took)

    # --- a large cluster ---

    def grow(self, sidecars: int) -> None:
        """Make it know `sidecars`, each with a valid certificate; those that it knew stay."""
        now = time.time()
        with self._kept() as keeper:
            issuer, sequence = keeper.held.state.active.name, keeper.held.state.sequence
        names = [f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/account-{number}" for number in range(sidecars)]
        lines = [_entry(name, issuer, now + 12 * 3600) for name in names]
        with (self._directory / ISSUED).open("ab") as index:
            index.write(b"".join(map(write_line, lines)))
        file = self._directory / CONFIRMATIONS
        known = dict(confirmations_from_json(file.read_bytes(), str(file)))
        known |= {
            f"{name}#{_pod(number)}": Confirmation(sequence=sequence, seen_at=now) for number, name in enumerate(names)
        }
        file.write_bytes(confirmations_to_json(known))

    def take_reports(self, sidecars: int, count: int) -> tuple[float, float]:
        """Take in what `count` of the `sidecars` said; give the seconds and the seconds of CPU."""
        with self._kept() as keeper:
            now, sequence = datetime.datetime.now(datetime.UTC), keeper.held.state.sequence
            for number in range(min(count, sidecars)):
                name = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/account-{number}"
                keeper.confirm(f"{name}#{_pod(number)}", sequence, now)
            return _timed(lambda: keeper.settle(now, time.monotonic()))

    def forget(self) -> tuple[float, float]:
        """Drop one certificate that has ended from the index; give the seconds and the seconds of CPU."""
        with self._kept() as keeper:
            issuer = keeper.held.state.active.name
        now = time.time()
        with (self._directory / ISSUED).open("ab") as index:
            index.write(write_line(_entry(f"spiffe://{TRUST_DOMAIN}/ended", issuer, now - 1)))
        store = DirectoryStore(self._directory, key_source(self._directory, None))
        try:
            return _timed(lambda: store.forget(now))
        finally:
            store.close()

    @contextmanager
    def _kept(self) -> Iterator[Keeper]:
        keeper = open_keeper(self._directory, key_source(self._directory, None))
        try:
            yield keeper
        finally:
            keeper.close(datetime.datetime.now(datetime.UTC), time.monotonic())


def _entry(name: str, issuer: str, not_after: float) -> IssuedEntry:
    return IssuedEntry(
        serial=secrets.token_hex(20), identity=name, key=secrets.token_hex(32), not_after=not_after, issuer=issuer
    )


def _pod(number: int) -> str:
    return f"account-{number}-7d9f8c6b5-x2k4q"


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def _size(file: Path) -> tuple[int, int]:
    data = file.read_bytes()
    return data.count(b"\n"), len(data)


def _run_to_end(words: list[str]) -> bytes:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "remora", "authority", *words],
        env={**os.environ, "PYTHONPATH": PACKAGES},
        capture_output=True,
        timeout=_INIT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"`remora authority {words[0]}` failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout
