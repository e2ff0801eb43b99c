"""What the cases of `remora bench micro` are built from: the parts of one sidecar, without its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.processes import write_files
from certs.memory import MemoryAuthority, write_set
from proxy.config import Config, load_config
from proxy.handshake.contexts import TlsGeneration
from proxy.material import compile_policy, judge_identity, read_identity, read_policy
from proxy.policy import PolicySnapshot
from proxy.protocol.stream import HeadLimits
from proxy.runtime.clock import CoarseClock
from proxy.types import ConnectionAttributes, Generation, PeerIdentity

Closing = contextlib.ExitStack
Call = Callable[[], object]

LIMITS: Final = HeadLimits(head_bytes=61_440, fields=100)
"""The sidecar's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One function: its name, what a call of it does, and the call."""

    name: str
    what: str
    call: Call


class World:
    """The parts of one sidecar: its configuration, certificates, policy and caller."""

    def __init__(self, directory: Path, closing: Closing) -> None:
        memory = MemoryAuthority(configs.TRUST_DOMAIN)
        home, identity = directory / "micro", directory / "micro-identity"
        write_set(memory.svid(configs.NAMESPACE, configs.CALLED), {memory.trust_domain: memory.bundle}, identity)
        files = configs.sidecar(home, identity, account=configs.CALLED, health=1, inbound=(2, 3))
        write_files(home, files)
        self.config: Config = load_config(files[configs.CONFIG_FILE].encode(), configs.CONFIG_FILE)
        self.tls: TlsGeneration = judge_identity(self.config, read_identity(self.config), Generation(1), time.time())
        self.policy: PolicySnapshot = compile_policy(self.config, read_policy(self.config), Generation(1))
        self.loop = asyncio.new_event_loop()
        closing.callback(self.loop.close)
        self.clock = CoarseClock(self.loop)
        closing.callback(self.clock.stop)
        self.attributes = ConnectionAttributes(
            peer=PeerIdentity(
                spiffe_id=memory.svid(configs.NAMESPACE, configs.CALLER).spiffe_id,
                not_after=4e9,
                serial="1",
                fingerprint="00" * 32,
            ),
            source_ip="10.0.0.7",
            destination_ip="10.0.0.8",
            destination_port=8080,
        )

    def policy_with(self, text: str) -> PolicySnapshot:
        """Compile the policies of the benchmark and some more."""
        files = dict(read_policy(self.config))
        files["more.yaml"] = text.encode()
        return compile_policy(self.config, files, Generation(1))
