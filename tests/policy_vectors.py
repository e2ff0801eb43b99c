"""Reads `tests/corpus/policies/vectors/*.yaml`: policies, what is asked of them, and what must be answered.

The unit test judges every case by the engine, the end-to-end tests send it through a real sidecar. A file is

    about: which part of the language
    settings: {default: deny, path_normalization: base, ports: {8080: http}, trust_domain_aliases: [], ...}
    tokens: {alice: {claims: {iss: https://id.example, sub: alice}}}
    groups:
    - name: what these policies are about
      policies: |                     # the text of a mounted file; {{keys}} are the keys that sign the tokens
        ...
      allow: [/a, /b?c]               # targets asked for with GET by demo/web
      deny: [/d]
      cases:
      - {method: POST, target: /a, headers: ["x-role: admin"], answer: deny, rule: "ns[demo]-policy[p]-rule[0]"}

`<alice>` in a target or a header is the token of that name. `answer` is allow, deny, a status, or refused: the
connection is closed before any request is read. A group with `rejected` cannot be loaded, for that reason. A group with
`each` stands for as many groups, with each value in the place of {{each}}.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from certs.spiffe import SpiffeId, TrustDomain
from proxy.authn import forwarded
from proxy.errors import ProtocolError
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.protocol.gate import parse_request_head
from proxy.protocol.headers import header_attributes
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits
from proxy.types import ConnectionAttributes, Denial, Generation, PeerIdentity, Permit, RequestAttributes

DIRECTORY: Final = Path(__file__).with_name("corpus") / "policies" / "vectors"
WEB: Final = "cluster.local/ns/demo/sa/web"
LABELS: Final = {"app": "orders", "version": "v1"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the configuration of the sidecar says; `ports` maps workload ports to protocols."""

    default: str = "deny"
    path_normalization: str = "base"
    ports: tuple[tuple[int, str], ...] = ((8080, "http"),)
    trust_domain_aliases: tuple[str, ...] = ()
    trusted_proxies: int = 0

    @staticmethod
    def read(written: Mapping[str, Any]) -> Settings:
        """Read the settings of a file or a group."""
        values = dict(written)
        if "ports" in values:
            values["ports"] = tuple(values["ports"].items())
        if "trust_domain_aliases" in values:
            values["trust_domain_aliases"] = tuple(values["trust_domain_aliases"])
        return Settings(**values)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request, or one opaque connection. `principal` "" is a peer in plaintext.

    `answer` is the status of the answer; 0 is a connection that is closed at once. `path` is the target that the
    application gets, `rule` the rule that decides and `audited` what AUDIT and dry-run rules note; None: not told.
    """

    answer: int
    principal: str = WEB
    ip: str = "127.0.0.1"
    port: int = 0
    sni: str = ""
    opaque: bool = False
    method: str = "GET"
    target: str = "/"
    host: str = "orders"
    headers: tuple[str, ...] = ()
    path: str | None = None
    rule: str | None = None
    audited: tuple[str, ...] | None = None

    @property
    def head(self) -> bytes:
        """The request on the wire."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", *self.headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def __str__(self) -> str:
        asked = "opaque" if self.opaque else f"{self.method} {self.target}"
        more = f" {list(self.headers)}" if self.headers else ""
        return f"{self.principal or 'plaintext'} from {self.ip} to port {self.port}: {asked} at {self.host}{more}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """A policy set and the cases that ask it; `rejected` is part of the error with which it does not load."""

    file: str
    name: str
    settings: Settings
    policies: bytes
    cases: tuple[Case, ...] = field(repr=False)
    rejected: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


# --- reading ---------------------------------------------------------------------------------------------------------


@functools.cache
def groups() -> tuple[Group, ...]:
    """All groups of all files, in order."""
    return tuple(group for path in sorted(DIRECTORY.glob("*.yaml")) for group in _read(path))


def _read(path: Path) -> Iterator[Group]:
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    tokens = {name: _token(written) for name, written in whole.get("tokens", {}).items()}
    for written in whole["groups"]:
        settings = Settings.read({**whole.get("settings", {}), **written.get("settings", {})})
        for value in written.get("each", [""]):
            policies = written["policies"].replace("{{keys}}", key_set()).replace("{{each}}", value)
            yield Group(
                file=path.stem,
                name=f"{written['name']} {value}".strip(),
                settings=settings,
                policies=policies.encode(),
                cases=tuple(_cases(written, settings, tokens)),
                rejected=written.get("rejected", ""),
            )


def _cases(written: Mapping[str, Any], settings: Settings, tokens: Mapping[str, str]) -> Iterator[Case]:
    for answer in ("allow", "deny"):
        for target in written.get(answer, []):
            yield _case({"target": target, "answer": answer}, settings, tokens)
    for one in written.get("cases", []):
        yield _case(one, settings, tokens)


def _case(written: Mapping[str, Any], settings: Settings, tokens: Mapping[str, str]) -> Case:
    def filled(text: str) -> str:
        return re.sub(r"<(\w+)>", lambda found: tokens[found[1]], text)

    values = dict(written)
    if "from" in values:
        values["principal"] = values.pop("from") or ""
    values["answer"] = {"allow": 200, "deny": 403, "refused": 0}.get(values["answer"], values["answer"])
    values.setdefault("port", settings.ports[0][0])
    values["target"] = filled(values.get("target", "/"))
    values["headers"] = tuple(map(filled, values.get("headers", ())))
    if "path" in values:
        values["path"] = filled(values["path"])
    if "audited" in values:
        values["audited"] = tuple(values["audited"])
    return Case(**values)


# --- tokens ----------------------------------------------------------------------------------------------------------


@functools.cache
def _key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_set() -> str:
    """The keys that sign the tokens, as `jwks` has them."""
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(_key("own").public_key()))
    return json.dumps({"keys": [key | {"kid": "k", "alg": "ES256"}]})


def _token(written: Mapping[str, Any]) -> str:
    """Sign a token: `claims`, with `expires_in` and `begins_in` seconds from now, `signed_by` another key or none."""
    claims = dict(written["claims"])
    for claim, name in (("exp", "expires_in"), ("nbf", "begins_in")):
        if name in written:
            claims[claim] = int(time.time()) + written[name]
    signed_by = written.get("signed_by", "own")
    if signed_by == "none":
        parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
        return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
    return jwt.encode(claims, _key(signed_by), algorithm="ES256", headers={"kid": "k"})


# --- the engine's answer ---------------------------------------------------------------------------------------------


def compiled(group: Group) -> PolicySnapshot:
    """Load the policies of a group, as a sidecar with its settings does. Raises ConfigError."""
    settings = group.settings
    return load(
        {"policies.yaml": group.policies},
        workload=Workload(
            namespace="demo",
            service_account="orders",
            name="orders-1",
            labels=LABELS,
            trust_domain=TrustDomain("cluster.local"),
            trust_domain_aliases=tuple(map(TrustDomain, settings.trust_domain_aliases)),
        ),
        settings=PolicySettings(default=PolicyDefault(settings.default), trusted_proxies=settings.trusted_proxies),
        generation=Generation(1),
        tcp_ports=[port for port, protocol in settings.ports if protocol == "tcp"],
    )


def judged(snapshot: PolicySnapshot, group: Group, case: Case) -> Case:
    """Give the case with the answer, the rule, the path and the notes of the engine."""
    connection = _connection(case)
    if case.opaque:
        return _answered(case, snapshot.connection(connection))
    if snapshot.admits_connection(connection) is not None:
        return replace(case, answer=0)
    mode = PathNormalization(group.settings.path_normalization)
    try:
        head = parse_request_head(case.head, limits=HeadLimits(), normalization=mode)
    except ProtocolError as error:
        return replace(case, answer=error.reason.consequence.status)
    token = None
    if snapshot.authentication is not None:
        authenticated = snapshot.authentication.authenticate(head, lambda uri: None, time.time())
        if authenticated.failure is not None:
            return replace(case, answer=authenticated.failure.consequence.status)
        token = authenticated.token
        head = forwarded(head, authenticated, snapshot.authentication)
    request = RequestAttributes(
        method=head.method.decode(),
        path=head.path.decode("latin-1"),
        host=head.authority.decode("latin-1"),
        headers=header_attributes(head),
        token=token,
    )
    answer = _answered(case, snapshot.request(connection, request))
    if case.path is not None and answer.answer == 200:
        return replace(answer, path=(head.path + head.query).decode("latin-1"))
    return answer


def _connection(case: Case) -> ConnectionAttributes:
    peer = None
    if case.principal:
        spiffe_id = SpiffeId.parse(f"spiffe://{case.principal}")
        peer = PeerIdentity(spiffe_id=spiffe_id, not_after=4102444800.0, serial="01", fingerprint="00" * 32)
    return ConnectionAttributes(
        peer=peer,
        source_ip=case.ip,
        destination_ip="127.0.0.1",
        destination_port=case.port,
        sni=case.sni.lower(),  # as the handshake reads it
    )


def _answered(case: Case, answer: Permit | Denial) -> Case:
    return replace(
        case,
        answer=200 if isinstance(answer, Permit) else 403,
        rule=answer.rule if case.rule is not None else None,
        audited=answer.audited if case.audited is not None else None,
    )
