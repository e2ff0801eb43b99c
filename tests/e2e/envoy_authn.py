"""Authentication as istiod writes it for Envoy: RequestAuthentication to jwt_authn, PeerAuthentication to a mode.

Follows `pilot/pkg/security/authn` of Istio 1.32.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy_rbac import PAYLOAD, ROOT_NAMESPACE, Json, Target


def jwt_filter(rules: Sequence[Json]) -> Json:
    """Translate the `jwtRules` of every RequestAuthentication together, with inline keys, to jwt_authn."""
    providers = {}
    for index, rule in enumerate(rules):
        provider: Json = {
            "issuer": rule["issuer"],
            "audiences": rule.get("audiences", []),
            "forward": rule.get("forwardOriginalToken", False),
            "payload_in_metadata": PAYLOAD,
            "normalize_payload_in_metadata": {
                "space_delimited_claims": sorted({*rule.get("spaceDelimitedClaims", []), "permission", "scope"})
            },
            "local_jwks": {"inline_string": rule["jwks"]},
            "from_headers": [
                {"name": each["name"], "value_prefix": each.get("prefix", "")} for each in rule.get("fromHeaders", [])
            ],
            "from_params": rule.get("fromParams", []),
            "from_cookies": rule.get("fromCookies", []),
            "claim_to_headers": [
                {"header_name": each["header"], "claim_name": each["claim"]}
                for each in rule.get("outputClaimToHeaders", [])
            ],
        }
        if header := rule.get("outputPayloadToHeader"):
            provider["forward_payload_header"] = header
        providers[f"origins-{index}"] = provider
    named = [{"provider_name": name} for name in providers]
    inner: list[Json] = [{"requires_any": {"requirements": [each, {"allow_missing": {}}]}} for each in named]
    requires: Json = inner[0]
    if len(inner) > 1:
        requires = {"requires_any": {"requirements": [*named, {"requires_all": {"requirements": inner}}]}}
    return {
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": True,
    }


def mtls_mode(policies: Sequence[Json], target: Target) -> str:
    """Compose PeerAuthentications as istiod does: the narrowest scope, in each scope the oldest object."""
    chosen: dict[str, Json] = {}
    for policy in policies:
        namespace, labels = policy["metadata"]["namespace"], policy["spec"].get("selector", {}).get("matchLabels", {})
        if namespace == ROOT_NAMESPACE:
            scope = "" if labels else "mesh"
        elif namespace == target.namespace and all(target.labels.get(key) == text for key, text in labels.items()):
            scope = "workload" if labels else "namespace"
        else:
            continue
        old = chosen.get(scope)
        if old is None or _age(policy) < _age(old):
            chosen[scope] = policy
    mode = "PERMISSIVE"
    for scope in ("mesh", "namespace", "workload"):
        own = chosen.get(scope, {"spec": {}})["spec"].get("mtls", {}).get("mode", "UNSET")
        mode = mode if own == "UNSET" else own
    return mode


def _age(policy: Json) -> str:
    return str(policy["metadata"]["creationTimestamp"])
