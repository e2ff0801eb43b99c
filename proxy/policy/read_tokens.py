"""`jwtRules` of a RequestAuthentication -> `JwtRule`: what is malformed is named at load, with what to write instead.

A rule that could never verify a token, or whose keys anybody could sign with, is an error and not a rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from proxy.authn.keys import KeySet, parse_key_set
from proxy.authn.rules import ACCESS_TOKEN, AUTHORIZATION, DEFAULT_SPACE_DELIMITED, HeaderPlace, JwtRule
from proxy.authn.uris import uri_problem
from proxy.documents import Checker, Node, nearest, quoted
from proxy.policy.model import PolicySettings
from proxy.protocol.fields import classify
from proxy.protocol.stream import Kind

MAX_JWT_RULES: Final = 4096  # as in Istio's schema
DEFAULT_TIMEOUT: Final = 5.0  # seconds; Istio's
MAX_TIMEOUT: Final = 300.0  # seconds; keys are fetched anew after that time, so a longer fetch would never end

_RULE_KEYS: Final = (
    "issuer",
    "audiences",
    "jwks",
    "jwksUri",
    "jwks_uri",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "outputPayloadToHeader",
    "outputClaimToHeaders",
    "forwardOriginalToken",
    "timeout",
    "spaceDelimitedClaims",
)
HOMES: Final = dict.fromkeys(_RULE_KEYS, "an item of `jwtRules`")
"""Where each key of a token rule belongs, for those who wrote it elsewhere."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2, RFC 6265 section 4.1.1
_PREFIX: Final = re.compile(r"[\x20-\x7e]*\Z")
_GO_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+\Z")
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS_OF: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_TAKEN_NAMES: Final = (
    "authorization",
    "cookie",
    "date",
    "forwarded",
    "origin",
    "proxy-authorization",
    "range",
    "referer",
    "set-cookie",
    "trailer",
    "user-agent",
    "via",
    "x-real-ip",
)
_TAKEN_PREFIXES: Final = ("accept", "access-control-", "content-", "if-", "sec-", "x-forwarded-")
"""Headers that mean something of their own: what a client sends under the name of an output is dropped."""


class TokensReader:
    """Reads the `jwtRules` of one document."""

    def __init__(self, checker: Checker, settings: PolicySettings) -> None:
        self._checker = checker
        self._settings = settings

    def read(self, node: Node | None) -> tuple[JwtRule, ...]:
        """Read all rules; those that are faulty come out somehow, and the faults forbid their use."""
        items = self._checker.sequence(node, "spec.jwtRules")
        if node is not None and len(items) > MAX_JWT_RULES:
            self._checker.fault(node, f"more than {MAX_JWT_RULES} jwtRules", "split the document")
        return tuple(self._rule(item, f"spec.jwtRules[{i}]") for i, item in enumerate(items[:MAX_JWT_RULES]))

    def _rule(self, node: Node, where: str) -> JwtRule:
        checker = self._checker
        fields = checker.mapping(node, where, _RULE_KEYS, required=("issuer",))
        jwks_uri = fields.get("jwksUri", fields.get("jwks_uri"))
        self._require_one_source(node, fields, where)
        headers = self._headers(fields.get("fromHeaders"), f"{where}.fromHeaders")
        params = checker.string_list(fields.get("fromParams"), f"{where}.fromParams")
        cookies = self._cookies(fields.get("fromCookies"), f"{where}.fromCookies")
        if not headers and not params and not cookies:
            headers, params = [AUTHORIZATION], [ACCESS_TOKEN]
        payload_node = fields.get("outputPayloadToHeader")
        payload_header = self._output(payload_node, f"{where}.outputPayloadToHeader", ())
        space_delimited = checker.string_list(fields.get("spaceDelimitedClaims"), f"{where}.spaceDelimitedClaims")
        return JwtRule(
            issuer=checker.string(fields.get("issuer"), f"{where}.issuer"),
            audiences=frozenset(checker.string_list(fields.get("audiences"), f"{where}.audiences")),
            keys=self._keys(fields.get("jwks"), f"{where}.jwks"),
            jwks_uri=self._uri(jwks_uri, f"{where}.jwksUri"),
            fetch_timeout=self._timeout(fields.get("timeout"), f"{where}.timeout"),
            headers=tuple(dict.fromkeys(headers)),
            params=tuple(dict.fromkeys(params)),
            cookies=tuple(dict.fromkeys(cookies)),
            forward_original=checker.boolean(fields.get("forwardOriginalToken"), f"{where}.forwardOriginalToken"),
            payload_header=payload_header,
            claim_headers=self._claims(
                fields.get("outputClaimToHeaders"), f"{where}.outputClaimToHeaders", payload_header
            ),
            space_delimited=DEFAULT_SPACE_DELIMITED | frozenset(space_delimited),
            line=node.line,
            column=node.column,
        )

    # --- keys ---

    def _require_one_source(self, node: Node, fields: Mapping[str, Node], where: str) -> None:
        if not isinstance(node.value, dict):
            return
        named = [key for key in ("jwks", "jwksUri", "jwks_uri") if key in fields]
        if not named and not any(nearest(key, ("jwksUri", "jwks")) for key in list(node.value)[:64]):
            message = f"`{where}` has neither `jwks` nor `jwksUri`, and keys are not discovered from the issuer"
            hint = "write `jwksUri`: it is the `jwks_uri` of <issuer>/.well-known/openid-configuration"
            self._checker.fault(node, message, hint)
        if len(named) > 1:
            message = f"`{where}` has both `{named[0]}` and `{named[1]}`"
            self._checker.fault(node.at(named[1]), message, "keep one of the two")

    def _keys(self, node: Node | None, where: str) -> KeySet | None:
        if node is not None and isinstance(node.value, dict):
            self._checker.fault(node, f"`{where}` must be text, not a mapping", "write the JSON behind `|`, indented")
            return None
        text = self._checker.string(node, where)
        if node is None or not text:
            return None
        if text.startswith(("http://", "https://")):
            self._checker.fault(node, f"`{where}` is an address, not a key set", "write it as `jwksUri`")
            return None
        try:
            keys = parse_key_set(text.encode("utf-8"))
        except ValueError as error:
            self._checker.fault(node, f"`{where}` cannot be used: {error}")
            return None
        for sentence in keys.skipped:
            self._checker.warning(node, f"`{where}`: {sentence}", code="RM0707")
        return keys

    def _uri(self, node: Node | None, where: str) -> str:
        uri = self._checker.string(node, where)
        if node is None or not uri:
            return ""
        problem = uri_problem(uri, allow_loopback=self._settings.jwks_allow_loopback)
        if problem:
            hint = (
                "set `policy.jwks_allow_loopback` in the configuration if that is meant"
                if "loopback" in problem
                else ""
            )
            self._checker.fault(node, f"`{where}` is not fetched: {problem}", hint)
        return uri

    def _timeout(self, node: Node | None, where: str) -> float:
        text = node.text if node is not None and type(node.value) is int else self._checker.string(node, where)
        if node is None or not text:
            return DEFAULT_TIMEOUT
        seconds = -1.0
        if len(text) <= 32 and _GO_DURATION.match(text):
            seconds = sum(float(number) * _SECONDS_OF[unit] for number, unit in _GO_PART.findall(text))
        if not 0.001 <= seconds <= MAX_TIMEOUT:
            hint = f"write a duration from 1ms to {MAX_TIMEOUT:.0f}s, such as 5s"
            self._checker.fault(node, f"`{where}`: {quoted(text)} is no time for a fetch", hint)
            return DEFAULT_TIMEOUT
        return seconds

    # --- places ---

    def _headers(self, node: Node | None, where: str) -> list[HeaderPlace]:
        places: list[HeaderPlace] = []
        for i, item in enumerate(self._checker.sequence(node, where)):
            fields = self._checker.mapping(item, f"{where}[{i}]", ("name", "prefix"), required=("name",))
            name = self._header_name(fields.get("name"), f"{where}[{i}].name")
            prefix_node = fields.get("prefix")
            prefix = self._checker.string(prefix_node, f"{where}[{i}].prefix", may_be_empty=True)
            if prefix_node is not None and not _PREFIX.match(prefix):
                message = f"`{where}[{i}].prefix`: {quoted(prefix)} holds what no header line holds"
                self._checker.fault(prefix_node, message, "write printable ASCII")
            if name:
                places.append(HeaderPlace(name=name.encode("ascii"), prefix=prefix))
        return places

    def _header_name(self, node: Node | None, where: str) -> str:
        """Take the name of a request header that reaches the application; "" with a fault."""
        name = self._checker.string(node, where)
        if node is None or not name:
            return ""
        if not _TOKEN.match(name):
            self._checker.fault(node, f"`{where}`: {quoted(name)} is no name of a header", "write its letters and `-`")
            return ""
        if "_" in name:
            message = f"`{where}`: {quoted(name)} has `_`, and requests with such headers are refused"
            self._checker.fault(node, message, "use `-`")
            return ""
        if classify(name.lower().encode("ascii")) not in (Kind.FORWARD, Kind.TRACE):
            message = f"`{where}`: the header {quoted(name)} belongs to the connection or to the mesh"
            self._checker.fault(node, message, "use another header")
            return ""
        return name.lower()

    def _cookies(self, node: Node | None, where: str) -> list[str]:
        names: list[str] = []
        for i, item in enumerate(self._checker.sequence(node, where)):
            name = self._checker.string(item, f"{where}[{i}]")
            if name and not _TOKEN.match(name):
                message = f"`{where}[{i}]`: {quoted(name)} is no name of a cookie"
                self._checker.fault(item, message, "write its name alone, in letters, digits, `-` and `_`")
            elif name:
                names.append(name)
        return names

    # --- outputs ---

    def _output(self, node: Node | None, where: str, taken: tuple[str, ...]) -> str:
        name = self._header_name(node, where)
        if node is None or not name:
            return ""
        is_taken = name in _TAKEN_NAMES or name.startswith(_TAKEN_PREFIXES)
        if is_taken or classify(name.encode("ascii")) is not Kind.FORWARD:
            message = f"`{where}`: {quoted(name)} has a meaning of its own, and a client's line of that name is dropped"
            self._checker.fault(node, message, "use a name of your own, such as x-jwt-claim")
            return ""
        if name in taken:
            self._checker.fault(node, f"`{where}`: the header {quoted(name)} is written twice", "use two names")
            return ""
        return name

    def _claims(self, node: Node | None, where: str, payload_header: str) -> Mapping[str, str]:
        claims: dict[str, str] = {}
        for i, item in enumerate(self._checker.sequence(node, where)):
            fields = self._checker.mapping(item, f"{where}[{i}]", ("header", "claim"), required=("header", "claim"))
            header = self._output(fields.get("header"), f"{where}[{i}].header", (payload_header, *claims))
            claim = self._checker.string(fields.get("claim"), f"{where}[{i}].claim")
            if claim and "" in claim.split("."):
                message = f"`{where}[{i}].claim`: {quoted(claim)} has an empty part between dots"
                self._checker.fault(fields["claim"], message, "write name, or outer.inner for a claim inside another")
            elif header and claim:
                claims[header] = claim
        return MappingProxyType(claims)
