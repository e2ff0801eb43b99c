"""Remembers which tokens were verified by which keys, so that a signature is looked at once."""

from __future__ import annotations

from typing import Final

from proxy.authn.token import Jwt

MAX_TOKENS: Final = 1024
"""Tokens that are remembered: about 4 KiB each with their claims, 4 MiB together. Callers of one workload rarely hold
more at a time; above it, verifying again costs 30 to 100 µs."""

MAX_DIGESTS: Final = 4
"""Key sets remembered for one token: those of two rules with one issuer, before and after a change."""


class TokenCache:
    """Verified tokens by their bytes, each with the digests of the key sets that vouch for it.

    Only what was verified is kept, so nobody can fill it who cannot sign. Failures are not kept: a forger has a new
    token for every request anyway. When keys change their digest is another, and the token is verified anew. A full
    cache is dropped whole: that is cheaper than keeping an order, and what is in use comes back at once.
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: dict[bytes, tuple[Jwt, set[str]]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, token: bytes) -> Jwt | None:
        """Give a token that some key set vouched for, taken apart."""
        found = self._tokens.get(token)
        return found[0] if found is not None else None

    def vouches(self, token: bytes, digest: str) -> bool:
        """Say whether the key set with this digest verified the token."""
        found = self._tokens.get(token)
        return found is not None and digest in found[1]

    def add(self, token: bytes, jwt: Jwt, digest: str) -> None:
        """Remember that the key set with this digest verified the token."""
        if token not in self._tokens and len(self._tokens) >= MAX_TOKENS:
            self._tokens.clear()
        _, digests = self._tokens.setdefault(token, (jwt, set()))
        if len(digests) >= MAX_DIGESTS:
            digests.clear()
        digests.add(digest)

    def forget(self, token: bytes) -> None:
        """Drop a token that has ended."""
        self._tokens.pop(token, None)
