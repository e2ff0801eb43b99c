"""Principals and trust domains of policies under trust-domain aliases.

A mesh that changes the name of its trust domain keeps the old names as aliases, and its policies go on to mean the
same workloads. `cluster.local` always means the mesh's own trust domain, whatever that is called.
"""

from __future__ import annotations

from collections.abc import Iterable

CLUSTER_LOCAL = "cluster.local"


def expand_aliases(values: Iterable[str], trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    """Replace the trust domain of each principal that names one of the mesh by every trust domain of the mesh.

    `trust_domains` is the workload's own, then its aliases. A value that is not `<trust domain>/ns/<ns>/sa/<sa>`, or
    whose trust domain is `*` or foreign, stays as it is.

    >>> expand_aliases(["cluster.local/ns/a/sa/b", "*/ns/a/sa/c"], ("new.example", "old.example"))
    ('new.example/ns/a/sa/b', 'old.example/ns/a/sa/b', '*/ns/a/sa/c')
    """
    expanded: dict[str, None] = {}  # keeps the order and drops repetitions
    for value in values:
        trust_domain, _, rest = value.partition("/")
        if not names_trust_domain(value) or not is_own(trust_domain, trust_domains):
            expanded[value] = None
            continue
        for own in trust_domains:
            # `*-td` matches this trust domain as it stands, and perhaps the others too
            keeps = trust_domain.startswith("*") and own.endswith(trust_domain[1:])
            expanded[value if keeps else f"{own}/{rest}"] = None
    return tuple(expanded)


def expand_trust_domains(values: Iterable[str], trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    """Let a trust domain of the mesh stand for all of them; any other value stays as it is, stars included.

    Unlike in a principal, `cluster.local` is a name like any other here, as in Istio.

    >>> expand_trust_domains(["old.example", "far.example"], ("new.example", "old.example"))
    ('new.example', 'old.example', 'far.example')
    """
    expanded: dict[str, None] = {}
    for value in values:
        expanded |= dict.fromkeys(trust_domains if value in trust_domains else (value,))
    return tuple(expanded)


def names_trust_domain(value: str) -> bool:
    """Say whether a principal has five parts and a trust domain that is not just a star."""
    parts = value.split("/")
    return len(parts) == 5 and parts[0] != "*"


def is_own(trust_domain: str, trust_domains: Iterable[str]) -> bool:
    """Say whether the trust domain of a policy's principal, stars included, speaks of this mesh."""
    if trust_domain == CLUSTER_LOCAL:
        return True
    return any(
        trust_domain == own
        or (trust_domain.startswith("*") and own.endswith(trust_domain[1:]))
        or (trust_domain.endswith("*") and own.startswith(trust_domain[:-1]))
        or (own.startswith("*") and trust_domain.endswith(own[1:]))
        or (own.endswith("*") and trust_domain.startswith(own[:-1]))
        for own in trust_domains
    )
