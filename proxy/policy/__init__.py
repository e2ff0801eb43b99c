"""Decides by mounted policy files who may call this workload, and how.

    files --read--> model --compile--> PolicySnapshot --connection, request--> Permit or Denial

The language is Istio's (AuthorizationPolicy and PeerAuthentication); `load` takes a directory whole or not at all.
Only this package makes a `Permit`, and forwarding cannot begin without one.
"""

from __future__ import annotations

from proxy.policy.load import load
from proxy.policy.model import PolicyDefault, PolicySettings, Workload
from proxy.policy.snapshot import PolicySnapshot, outbound

__all__ = ["PolicyDefault", "PolicySettings", "PolicySnapshot", "Workload", "load", "outbound"]
