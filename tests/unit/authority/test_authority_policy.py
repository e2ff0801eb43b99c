"""Who may ask the authority for what, by the policies that are shipped, and by an operator's own."""

from __future__ import annotations

import dataclasses

import pytest

from certs.caller import Caller, How
from certs.spiffe import SpiffeId
from proxy.authority.gatekeeper import NOT_ALLOWED, Gatekeeper, compile_policies, read_policies
from proxy.policy.examples import web
from proxy.types import ConnectionAttributes, RequestAttributes

OWN = SpiffeId.parse("spiffe://cluster.local/ns/remora-system/sa/remora-authority")
LAPTOP = SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
NOBODY = dataclasses.replace(web, peer=None, destination_port=8443)

ONLY_LAPTOPS = b"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: optional, namespace: remora-system}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: laptops, namespace: remora-system}
spec:
  rules:
    - from: [{source: {requestPrincipals: ["spiffe://cluster.local/ns/lab/sa/laptop"]}}]
      when: [{key: "request.auth.claims[proof]", values: [join_token]}]
"""


def asked(method: str, path: str) -> RequestAttributes:
    return RequestAttributes(method=method, path=path, host="authority", headers=())


@pytest.mark.parametrize("connection", [web, NOBODY], ids=["web", "nobody"])
@pytest.mark.parametrize("namespace", ["remora-system", "elsewhere"])
@pytest.mark.parametrize(
    ("method", "path", "is_allowed"),
    [
        ("POST", "/v1/sign", True),
        ("GET", "/v1/bundle", True),
        ("GET", "/v1/crl", True),
        ("GET", "/v1/sign", False),
        ("POST", "/v1/bundle", False),
        ("GET", "/", True),
        ("POST", "/", False),
        ("GET", "/v1", False),
        ("POST", "/v1/sign/", False),
    ],
)
def test_the_shipped_policies(
    connection: ConnectionAttributes, namespace: str, method: str, path: str, is_allowed: bool
) -> None:
    own = SpiffeId.for_service_account(OWN.trust_domain, namespace, "remora-authority")
    keeper = Gatekeeper(compile_policies(read_policies(None), own))
    assert keeper.denial(connection, asked(method, path), None) == (None if is_allowed else NOT_ALLOWED)


def test_the_shipped_policies_have_no_warning() -> None:
    assert compile_policies(read_policies(None), OWN).warnings == ()


@pytest.mark.parametrize(
    ("caller", "is_allowed"),
    [
        (Caller(spiffe_id=LAPTOP, how=How.JOIN_TOKEN), True),
        (Caller(spiffe_id=LAPTOP, how=How.SERVICE_ACCOUNT_TOKEN), False),
        (Caller(spiffe_id=OWN, how=How.JOIN_TOKEN), False),
        (None, False),
    ],
)
def test_policies_see_who_a_token_stood_for(caller: Caller | None, is_allowed: bool) -> None:
    keeper = Gatekeeper(compile_policies({"laptops.yaml": ONLY_LAPTOPS}, OWN))
    assert keeper.denial(NOBODY, asked("POST", "/v1/sign"), caller) == (None if is_allowed else NOT_ALLOWED)
