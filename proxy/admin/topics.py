"""What the pages say, as data: configuration, certificates, policy, readiness. Never a private key, never a token.

Each function takes what is in force and gives what JSON can hold; `now` is seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from certs.keys import describe_key
from certs.store import IdentitySet
from certs.svid import presented_name
from proxy.admin.pages import Readiness
from proxy.admin.words import Data, moment
from proxy.config import Config
from proxy.policy.model import Action, Clause
from proxy.policy.rules import PolicyRule
from proxy.policy.snapshot import PolicySnapshot, PortTables
from proxy.types import Generation

MAX_ROWS: Final = 500
"""Rows of a table on a page; the number of all is said beside it. It keeps a page below a few hundred KiB."""

_ORDER: Final = (Action.AUDIT, Action.DENY, Action.ALLOW)
"""The order in which a decision asks them."""


def configuration(config: Config) -> Data:
    """Show the configuration in force, every default filled in. It names files with keys and holds none of them."""
    shown: Data = _plain(config)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(str(item) for item in value)
    # What has a form of its own to be written in (an address, an identity) is written in it.
    if dataclasses.is_dataclass(value) and type(value).__str__ is object.__str__:
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)


def certificates(identity_set: IdentitySet | None, generation: Generation, now: float) -> Data:
    """Show our chain and whom we trust, with what is left of each."""
    if identity_set is None:
        return {"generation": 0, "identity": None, "chain": [], "trust": []}
    return {
        "generation": generation,
        "identity": str(identity_set.spiffe_id),
        "serial": identity_set.serial,
        "not_after": moment(identity_set.not_after),
        "left_seconds": round(identity_set.not_after - now),
        "key": describe_key(identity_set.chain[0].public_key()),
        "source_digest": identity_set.source_digest,
        "chain": [_certificate(certificate, now) for certificate in identity_set.chain],
        "trust": [
            {"trust_domain": str(domain), **_certificate(root, now)}
            for domain, bundle in identity_set.bundles.items()
            for root in bundle.certificates
        ],
    }


def _certificate(certificate: x509.Certificate, now: float) -> Data:
    end = certificate.not_valid_after_utc.timestamp()
    return {
        "identity": presented_name(certificate),
        "serial": f"{certificate.serial_number:x}",
        "not_before": moment(certificate.not_valid_before_utc.timestamp()),
        "not_after": moment(end),
        "left_seconds": round(end - now),
        "issuer": certificate.issuer.rfc4514_string(),
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


def policy(snapshot: PolicySnapshot | None) -> Data:
    """Show the rules in force in the order in which a decision asks them, and what lint has to say."""
    if snapshot is None:
        return {"generation": 0, "warnings": [], "rules": []}
    rules = rules_of(snapshot)
    return {
        "generation": snapshot.generation,
        "default": snapshot.default.value,
        "default_applies": not snapshot.has_allow,
        "mutual_tls": snapshot.modes.mode.value,
        "mutual_tls_by_port": {str(port): mode.value for port, mode in snapshot.modes.ports.items()},
        "mutual_tls_source": snapshot.modes.source,
        "source_digest": snapshot.source_digest,
        "warnings": [str(fault) for fault in snapshot.warnings],
        "rule_count": len(rules),
        "rules": [_rule(rule) for rule in rules[:MAX_ROWS]],
    }


def rules_of(snapshot: PolicySnapshot) -> list[PolicyRule]:
    """Collect every rule that can match on some port, each once."""
    found: dict[int, PolicyRule] = {}
    for tables in (snapshot.http, snapshot.opaque):
        for of_port in (tables.other, *tables.by_port.values()):
            found |= {id(rule): rule for rule in _rules_at(of_port)}
    return sorted(found.values(), key=lambda rule: (rule.policy.dry_run, _ORDER.index(rule.policy.action), rule.order))


def _rules_at(tables: PortTables) -> Iterable[PolicyRule]:
    for table in (tables.deny, tables.allow, tables.audit, tables.shadow_deny, tables.shadow_allow):
        if table is not None:
            yield from (narrowed.rule for narrowed in table.rules)


def _rule(rule: PolicyRule) -> Data:
    return {
        "rule": rule.id,
        "action": rule.policy.action.value + (" (dry run)" if rule.policy.dry_run else ""),
        "from": _alternatives(rule.rule.sources),
        "to": _alternatives(rule.rule.operations),
        "when": _clauses(rule.rule.conditions),
        "place": rule.place,
    }


def _alternatives(alternatives: Iterable[tuple[Clause, ...]]) -> str:
    return " or ".join(_clauses(clauses) or "any" for clauses in alternatives)


def _clauses(clauses: Iterable[Clause]) -> str:
    return " and ".join(f"{clause.name} {', '.join(clause.values)}" for clause in clauses)


def readiness(state: Readiness) -> Data:
    """Say whether traffic is served, and what is missing or broken."""
    return {
        "ready": state.is_ready,
        "missing": {name: list(sentences) for name, sentences in state.missing.items()},
        "rejected": {name: list(sentences) for name, sentences in state.rejected.items()},
    }
