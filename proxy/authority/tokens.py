"""Has ServiceAccount tokens judged, off the event loop: by the Kubernetes API, or offline against the cluster's keys.

What is asked over the network runs in threads of a small pool. A cluster that does not answer costs its callers a
503 after the client's timeout, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from certs.caller import Caller
from certs.callers.oidc import KeySetError, OidcRules, VerificationKey, parse_keys, verify_token
from certs.callers.pods import check_account, check_pod
from certs.callers.tokenreview import check_unproved, read_review, review_request
from certs.kube import KubeClient, KubeError
from certs.refusals import Refusal, Refused
from certs.spiffe import TrustDomain
from certs.state_store import StateError
from proxy.authority.config import TokenSource

THREADS: Final = 16
"""Questions to the API server at once. It answers in milliseconds; more would only queue there."""

WAITING: Final = 512
"""Tokens that are judged or wait for it. Behind more than 30 for each thread nobody's patience lasts, and an API server
that hangs must not fill the memory."""

REFETCH_SECONDS: Final = 10.0
"""How often an unknown key may make us fetch the keys again: whoever sends nonsense must not drive the API server."""

_log = logging.getLogger("remora.authority")


class Judge(Protocol):
    """Judges one token in the calling thread; raises Refused."""

    def judge(self, token: str, now: datetime.datetime) -> Caller: ...


class Tokens:
    """The pool of threads and who judges in it; `close` when the service ends."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="token")
        self._waiting = 0

    async def authenticate(self, token: str, now: datetime.datetime) -> Caller:
        """Judge a token in a thread. Raises Refused."""
        if self._waiting >= WAITING:
            raise Refused(
                Refusal.REVIEW_UNAVAILABLE, "too many tokens wait to be judged at this moment; ask again later"
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._judge.judge, token, now)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let running questions end, and begin none."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Reviewed:
    """Asks the API server about each token (TokenReview), and whether its pod is still the same."""

    def __init__(self, client: KubeClient, source: TokenSource, trust_domain: TrustDomain) -> None:
        self._client = client
        self._source = source
        self._trust_domain = trust_domain

    def judge(self, token: str, now: datetime.datetime) -> Caller:
        source = self._source
        check_unproved(token, audience=source.audience, now=now.timestamp())
        try:
            review = self._client.create_token_review(review_request(token, source.audience))
        except KubeError as error:
            raise _unavailable(error) from None
        caller = read_review(
            review,
            token,
            trust_domain=self._trust_domain,
            audience=source.audience,
            now=now.timestamp(),
            allow_without_pod=source.allows_without_pod,
        )
        _check_pod(self._client, caller, now)
        return caller


class Offline:
    """Verifies signatures with the keys that the cluster publishes; asks the API server for those, pods and accounts.

    Its Role needs `get` on pods and on serviceaccounts.
    """

    def __init__(self, client: KubeClient | None, source: TokenSource, trust_domain: TrustDomain) -> None:
        self._client = client
        self._source = source
        self._trust_domain = trust_domain
        self._rules: OidcRules | None = None
        self._fetched_at = float("-inf")
        if client is None:
            self._rules = self._fetch()  # from a file: a broken one shows at the start

    def judge(self, token: str, now: datetime.datetime) -> Caller:
        rules = self._rules
        if rules is None:
            rules = self._refetch(None)
        try:
            caller = verify_token(token, rules, now.timestamp())
        except Refused as refused:
            if refused.reason is not Refusal.TOKEN_KEY_UNKNOWN:
                raise
            fresh = self._refetch(rules)
            if fresh is rules:
                raise
            caller = verify_token(token, fresh, now.timestamp())
        if self._client is not None:
            _check_pod(self._client, caller, now)
            _check_account(self._client, caller)
        return caller

    def _refetch(self, held: OidcRules | None) -> OidcRules:
        """Fetch the keys again, unless that was just done; what is held is kept when they cannot be had."""
        if held is not None and time.monotonic() < self._fetched_at + REFETCH_SECONDS:
            return self._rules or held
        self._fetched_at = time.monotonic()
        try:
            self._rules = fresh = self._fetch()
        except (KubeError, KeySetError, StateError) as error:
            if held is None:
                raise _unavailable(error) from None
            _log.warning("the cluster's keys cannot be fetched again, the old ones hold: %s", error)
            return held
        return fresh

    def _fetch(self) -> OidcRules:
        source = self._source
        issuer, keys = source.issuer, self._keys()
        if not issuer and self._client is not None:
            found = self._client.discovery().get("issuer")
            issuer = found if isinstance(found, str) else ""
        if not issuer:
            raise StateError("the issuer of ServiceAccount tokens is not known; give it with --issuer")
        return OidcRules(
            trust_domain=self._trust_domain,
            issuer=issuer,
            audience=source.audience,
            keys=keys,
            allow_without_pod=source.allows_without_pod,
        )

    def _keys(self) -> Mapping[str, VerificationKey]:
        file = self._source.jwks_file
        if file is not None:
            return parse_keys(_read(file), str(file))
        if self._client is None:
            raise StateError("there are no keys to verify tokens with; give --jwks FILE, or the API server")
        return parse_keys(self._client.jwks(), "the API server's keys")


def authenticator(source: TokenSource, trust_domain: TrustDomain) -> Tokens:
    """Make what judges tokens. Raises KubeError, KeySetError or StateError when that cannot work at all."""
    client = None if source.server is None else KubeClient(source.server)
    if client is not None and not source.is_offline:
        return Tokens(Reviewed(client, source, trust_domain))
    return Tokens(Offline(client, source, trust_domain))


def _check_pod(client: KubeClient, caller: Caller, now: datetime.datetime) -> None:
    if caller.pod is None:
        return
    try:
        document = client.get_pod(caller.pod.namespace, caller.pod.name)
    except KubeError as error:
        raise _unavailable(error) from None
    check_pod(caller, document, now.timestamp())


def _check_account(client: KubeClient, caller: Caller) -> None:
    who = caller.spiffe_id
    try:
        document = client.get("ServiceAccount", who.namespace or "", who.service_account or "")
    except KubeError as error:
        raise _unavailable(error) from None
    check_account(caller, document)


def _unavailable(error: Exception) -> Refused:
    # The whole sentence is for our operator; a caller learns that it is not its own fault.
    _log.warning("a ServiceAccount token cannot be judged: %s", error)
    return Refused(
        Refusal.REVIEW_UNAVAILABLE, "the Kubernetes API cannot be asked about the token at this moment; ask again later"
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StateError(f"{file}: it cannot be read ({error.strerror}); check its path and mode") from None
