"""Asks the decision engine who may call the authority: the policies of every workload, with a set that is shipped.

Policies see the certificate of the connection as everywhere, and a caller that was authenticated by its token as a
request principal, which is its SPIFFE ID; `request.auth.claims[proof]` is the proof that it gave (`certs.caller.How`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from certs.caller import Caller
from certs.spiffe import SpiffeId
from proxy.authority.config import DEFAULT_NAMESPACE
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import ConnectionAttributes, Denial, Generation, RequestAttributes, VerifiedToken
from proxy.watch import read_policy_files

SHIPPED: Final = Path(__file__).with_name("policy.yaml")

NOT_ALLOWED: Final = "policy does not let this caller do that; ask who runs the authority"
"""All that a caller learns. The sentence with the rule stands in the log."""

_log = logging.getLogger("remora.authority")


def read_policies(directory: Path | None) -> Mapping[str, bytes]:
    """Read the directory of policies, or the shipped file. Raises OSError."""
    if directory is None:
        return {SHIPPED.name: SHIPPED.read_bytes()}
    return {f"{directory}/{name}": content for name, content in read_policy_files(str(directory)).items()}


def compile_policies(files: Mapping[str, bytes], own: SpiffeId) -> PolicySnapshot:
    """Compile what `read_policies` gave, for the authority as a workload. Raises ConfigError with every fault."""
    workload = Workload(
        namespace=own.namespace or "",
        service_account=own.service_account or "",
        name=own.service_account or "",
        labels={"app": "remora-authority"},
        trust_domain=own.trust_domain,
    )
    settings = PolicySettings(default=PolicyDefault.DENY, root_namespace=DEFAULT_NAMESPACE)
    return load(files, workload=workload, settings=settings, generation=Generation(1))


class Gatekeeper:
    """Judges one request after the other by one snapshot."""

    def __init__(self, policy: PolicySnapshot) -> None:
        self._policy = policy

    def denial(self, connection: ConnectionAttributes, request: RequestAttributes, caller: Caller | None) -> str | None:
        """Say why a request is denied, in words for its author; None when it may pass."""
        if caller is not None:
            request = RequestAttributes(
                method=request.method,
                path=request.path,
                host=request.host,
                headers=request.headers,
                token=_token(caller),
            )
        verdict = self._policy.request(connection, request)
        if not isinstance(verdict, Denial):
            return None
        _log.info("denied %s %s from %s: %s", request.method, request.path, connection.source_ip, verdict.explanation)
        return NOT_ALLOWED


def _token(caller: Caller) -> VerifiedToken:
    # A request principal is `<issuer>/<subject>`, split at its last slash.
    issuer, _, subject = str(caller.spiffe_id).rpartition("/")
    claims = {"iss": issuer, "sub": subject, "proof": caller.how.value}
    return VerifiedToken(
        issuer=issuer,
        subject=subject,
        claims=claims,
        expires_at=math.inf if caller.token_expires is None else caller.token_expires,
    )
