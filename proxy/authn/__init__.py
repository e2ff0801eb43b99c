"""Decides which JSON Web Token a request carries: found, taken apart, verified, and taken out again.

    RequestHead --places--> token --parse--> Jwt --rules, keys--> Authenticated --outputs--> RequestHead

Pure: keys and the time are arguments. `authentication` is the judgement; read it first.
"""

from __future__ import annotations

from proxy.authn.authentication import CLOCK_SKEW, NOT_CARRIED, Authenticated, Authentication
from proxy.authn.keys import Key, KeySet, parse_key_set
from proxy.authn.outputs import forwarded
from proxy.authn.rules import HeaderPlace, JwtRule

__all__ = [
    "CLOCK_SKEW",
    "NOT_CARRIED",
    "Authenticated",
    "Authentication",
    "HeaderPlace",
    "JwtRule",
    "Key",
    "KeySet",
    "forwarded",
    "parse_key_set",
]
