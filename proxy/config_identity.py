"""Reads the sections `identity` and `federation`: where our certificate comes from, and whose bundles are polled.

identity:                 # exactly one source
  files: {directory: /var/run/secrets/remora}            # tls.crt, tls.key, ca.crt, bundles/
  authority:                                             # `remora authority serve`
    url: https://remora-authority.remora-system:8443
    token_file: /var/run/secrets/remora/token            # a projected ServiceAccount token, or a join token
    bundle_file: /etc/remora/bundle.pem                  # by which the authority is believed the first time
    identity: spiffe://cluster.local/ns/remora-system/sa/remora-authority   # optional: who must answer
    crl: warn                                            # or fail-closed: what holds without a fresh list
  credential_bundle:                                     # Kubernetes pod certificates
    file: /var/run/identity/credentialbundle.pem         # key and chain in one file
    bundle_file: /var/run/identity/trust-bundle.pem      # roots: a projected ClusterTrustBundle
    bundles: /var/run/identity/bundles                   # optional: bundles of other trust domains
  command: {run: [/usr/local/bin/get-identity, --json], timeout: 30s, bundle_file: /etc/remora/roots.pem}
  workload_api: {socket: "unix:///run/spire/agent.sock"} # a SPIRE agent
federation:
  - {trust_domain: other.example, url: "https://other.example/bundle", profile: https_web, ca_file: /etc/roots.pem}
  - trust_domain: third.example
    url: "https://bundles.third.example:8443/"
    profile: https_spiffe
    identity: spiffe://third.example/spire/server        # who must answer
    bundle_file: /etc/remora/third.example.pem           # by which it is believed the first time
federation_cache: /var/lib/remora/federation             # optional: bundles outlive a restart
"""

from __future__ import annotations

from typing import Final

from certs.bundle_feed import endpoint_url_fault
from certs.spiffe import SpiffeId, TrustDomain, parse_trust_domain
from proxy.config_checker import ConfigChecker
from proxy.config_text import TextError, Use, parse_address, parse_listen
from proxy.config_values import (
    Address,
    CrlName,
    FederatedDomain,
    IdentityAuthority,
    IdentityCommand,
    IdentityCredentialBundle,
    IdentityFiles,
    IdentitySource,
    IdentityWorkloadApi,
    ProfileName,
    UnixSocket,
)
from proxy.documents import Node

MAX_FEDERATED: Final = 64
"""Each has a thread and a place in every handshake's store of roots; more are a mistake, or a case for a hub."""

MIN_COMMAND_TIMEOUT: Final = 0.1
MAX_COMMAND_TIMEOUT: Final = 600.0
"""A program that takes longer than ten minutes for an identity has hung."""

MIN_LIFETIME: Final = 60.0
MAX_LIFETIME: Final = 90 * 24 * 3600.0
"""Seconds. An authority has bounds of its own; beyond these a number is a mistake of the unit."""

MIN_TIMEOUT: Final = 0.1
MAX_TIMEOUT: Final = 60.0
"""Seconds. Longer, and an authority that hangs keeps an order from arriving that another replica would give."""

_SOURCES: Final = ("files", "authority", "credential_bundle", "command", "workload_api")
_NOWHERE: Final = Address(host="127.0.0.1", port=0)
_HTTPS_PORT: Final = 443


def identity(checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain) -> IdentitySource:
    """Take the section `identity`: exactly one source. `trust_domain` is our own, and so its authority's."""
    fields = checker.mapping(node, "identity", _SOURCES)
    if node is not None and isinstance(node.value, dict) and not node.value:
        checker.fault(node, "`identity` names no source", "write files: {directory: /var/run/secrets/remora}")
    if len(fields) > 1 and node is not None:
        checker.fault(node, f"`identity` names {len(fields)} sources: {', '.join(fields)}", "keep one of them")
    if "authority" in fields:
        return _authority(checker, fields["authority"], trust_domain)
    if "credential_bundle" in fields:
        return _credential_bundle(checker, fields["credential_bundle"])
    if "command" in fields:
        return _command(checker, fields["command"])
    if "workload_api" in fields:
        return _workload_api(checker, fields["workload_api"])
    return _files(checker, fields.get("files"))


def federation(checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain) -> tuple[FederatedDomain, ...]:
    """Take the section `federation`; `trust_domain` is our own, which is federated with by nobody here."""
    domains: list[FederatedDomain] = []
    items = checker.sequence(node, "federation")
    for i, item in enumerate(items):
        domain = _federated(checker, item, f"federation[{i}]")
        if domain is None:
            continue
        if domain.trust_domain == trust_domain:
            checker.fault(
                item, f"`federation[{i}]`: {trust_domain} is our own trust domain", "its roots come with our identity"
            )
        if any(domain.trust_domain == other.trust_domain for other in domains):
            checker.fault(
                item,
                f"`federation[{i}]`: {domain.trust_domain} stands twice",
                "a domain has one bundle and one endpoint",
            )
        domains.append(domain)
    if node is not None and len(items) > MAX_FEDERATED:
        checker.fault(
            node, f"`federation` has {len(items)} domains, at most {MAX_FEDERATED} are followed", "name fewer"
        )
    return tuple(domains)


def _files(checker: ConfigChecker, node: Node | None) -> IdentityFiles:
    fields = checker.mapping(node, "identity.files", ("directory", "crl"), required=("directory",))
    return IdentityFiles(
        directory=checker.string(fields.get("directory"), "identity.files.directory"),
        crl=_crl(checker, fields.get("crl"), "identity.files.crl"),
    )


def _authority(checker: ConfigChecker, node: Node, trust_domain: TrustDomain) -> IdentityAuthority:
    where = "identity.authority"
    needed = ("url", "token_file", "bundle_file")
    fields = checker.mapping(node, where, (*needed, "identity", "lifetime", "timeout", "crl"), required=needed)
    usual = SpiffeId.for_service_account(trust_domain, "remora-system", "remora-authority")
    named = checker.text(fields.get("identity"), f"{where}.identity", SpiffeId.parse, usual)
    if named.trust_domain != trust_domain or not named.path:
        checker.fault(
            fields["identity"],
            f"`{where}.identity`: {named} is no workload of {trust_domain}, whose authority it must be",
            f"write the whole ID, or leave it out for {usual}",
        )
    url = checker.text(fields.get("url"), f"{where}.url", _authority_url, _NOWHERE)
    lifetime = checker.duration(fields.get("lifetime"), f"{where}.lifetime", 0.0, MIN_LIFETIME, MAX_LIFETIME)
    return IdentityAuthority(
        url=checker.string(fields.get("url"), f"{where}.url"),
        address=url,
        token_file=checker.string(fields.get("token_file"), f"{where}.token_file"),
        bundle_file=checker.string(fields.get("bundle_file"), f"{where}.bundle_file"),
        identity=named,
        lifetime=lifetime or None,
        timeout=checker.duration(fields.get("timeout"), f"{where}.timeout", 10.0, MIN_TIMEOUT, MAX_TIMEOUT),
        crl=_crl(checker, fields.get("crl"), f"{where}.crl"),
    )


def _authority_url(text: str) -> Address:
    """Read `https://HOST[:PORT]`, with nothing behind it but perhaps a slash."""
    scheme, separator, rest = text.partition("://")
    if "@" in text:
        raise TextError("it holds a user name or password, which an authority asks for by nothing", "take it out")
    if separator and scheme != "https":
        raise TextError(f"{text!r} begins with {scheme}, and a token never travels in the clear", "write https://")
    rest = rest.removesuffix("/")
    if not separator or not rest or any(sign in rest for sign in "/?#"):
        raise TextError(f"{text!r} is no place of an authority", "write https://HOST:PORT, and no path")
    has_port = rest.rpartition("]")[2].count(":") == 1
    return parse_address(rest if has_port else f"{rest}:{_HTTPS_PORT}", Use.DIAL)


def _crl(checker: ConfigChecker, node: Node | None, where: str) -> CrlName:
    words: tuple[CrlName, ...] = ("fail-closed", "warn")
    return checker.word(node, where, words, words[1])


def _without_list(
    checker: ConfigChecker, node: Node, where: str, known: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Node]:
    """Take the keys of a source by which no revocation list comes; `crl` would promise what nobody keeps."""
    fields = checker.mapping(node, where, (*known, "crl"), required=needed)
    if fields.pop("crl", None) is not None:
        checker.fault(
            node.at("crl"),
            f"`{where}.crl`: no revocation list comes by this way, so nobody would be refused by one",
            "leave it out; identity.files and identity.authority have a list, of our own trust domain",
        )
    return fields


def _credential_bundle(checker: ConfigChecker, node: Node) -> IdentityCredentialBundle:
    where = "identity.credential_bundle"
    needed = ("file", "bundle_file")
    fields = _without_list(checker, node, where, (*needed, "bundles"), needed)
    return IdentityCredentialBundle(
        file=checker.string(fields.get("file"), f"{where}.file"),
        bundle_file=checker.string(fields.get("bundle_file"), f"{where}.bundle_file"),
        bundles=checker.string(fields.get("bundles"), f"{where}.bundles"),
    )


def _command(checker: ConfigChecker, node: Node) -> IdentityCommand:
    where = "identity.command"
    fields = _without_list(checker, node, where, ("run", "timeout", "bundle_file"), ("run",))
    run = fields.get("run")
    words = tuple(checker.string_list(run, f"{where}.run"))
    if run is not None and isinstance(run.value, list):
        if not run.value:
            checker.fault(
                run, f"`{where}.run` is empty", "write the program and its arguments: [/usr/local/bin/get-svid]"
            )
        elif words[0] and not words[0].startswith("/"):
            # Who may write to a directory of PATH would decide who we are.
            checker.fault(run.value[0], f"`{where}.run[0]` is no absolute path", "write the program with its directory")
        for i, word in enumerate(words):
            if "\0" in word:
                checker.fault(run.value[i], f"`{where}.run[{i}]` holds a NUL byte, which no argument can", "remove it")
    return IdentityCommand(
        run=words,
        timeout=checker.duration(
            fields.get("timeout"), f"{where}.timeout", 30.0, MIN_COMMAND_TIMEOUT, MAX_COMMAND_TIMEOUT
        ),
        bundle_file=checker.string(fields.get("bundle_file"), f"{where}.bundle_file"),
    )


def _workload_api(checker: ConfigChecker, node: Node) -> IdentityWorkloadApi:
    where = "identity.workload_api"
    fields = _without_list(checker, node, where, ("socket",), ("socket",))
    nowhere = UnixSocket(path="")
    return IdentityWorkloadApi(socket=checker.text(fields.get("socket"), f"{where}.socket", _endpoint_socket, nowhere))


def _endpoint_socket(text: str) -> UnixSocket:
    """Read the address of a Workload API: `unix:///path` as SPIFFE writes it, or `unix:/path`."""
    if text.startswith("tcp:"):
        raise TextError(f"{text!r} is a TCP endpoint, which anybody on the way can answer", "write unix:///path")
    if text.startswith("unix://") and not text.startswith("unix:///"):
        raise TextError(f"{text!r} has a host, and a unix socket has none", "write three slashes: unix:///path")
    listen = parse_listen("unix:/" + text.removeprefix("unix:///") if text.startswith("unix:///") else text)
    if not isinstance(listen, UnixSocket):
        raise TextError(f"{text!r} is no unix socket", "write unix:///path, such as unix:///run/spire/agent.sock")
    return listen


def _federated(checker: ConfigChecker, item: Node, where: str) -> FederatedDomain | None:
    needed = ("trust_domain", "url", "profile")
    fields = _without_list(checker, item, where, (*needed, "identity", "bundle_file", "ca_file"), needed)
    name = checker.text(fields.get("trust_domain"), f"{where}.trust_domain", parse_trust_domain, None)
    url = checker.text(fields.get("url"), f"{where}.url", _endpoint_url, "")
    # Its default is never used: the key is required, and a fault otherwise.
    web: ProfileName = "https_web"
    spiffe: ProfileName = "https_spiffe"
    profile = checker.word(fields.get("profile"), f"{where}.profile", (web, spiffe), web)
    if "profile" in fields:
        belonging = ("ca_file",) if profile == web else ("identity", "bundle_file")
        for key in ("identity", "bundle_file", "ca_file"):
            if key in fields and key not in belonging:
                why = "verified by the web's roots" if profile == web else "verified by bundle_file alone"
                checker.fault(
                    item.at(key), f"`{where}.{key}` means nothing with {profile}, which is {why}", "remove it"
                )
        if profile == spiffe:
            for key in [key for key in belonging if key not in fields]:
                checker.fault(
                    item, f"`{where}` lacks the key `{key}`, which https_spiffe needs", "ask who runs the endpoint"
                )
    identity_id = checker.text(fields.get("identity"), f"{where}.identity", SpiffeId.parse, None)
    if identity_id is not None and not identity_id.path:
        checker.fault(
            fields["identity"], f"`{where}.identity`: {identity_id} names no workload", "write the endpoint's whole ID"
        )
    bundle_file = checker.string(fields.get("bundle_file"), f"{where}.bundle_file")
    ca_file = checker.string(fields.get("ca_file"), f"{where}.ca_file")
    if name is None:
        return None
    return FederatedDomain(
        trust_domain=name, url=url, profile=profile, identity=identity_id, bundle_file=bundle_file, ca_file=ca_file
    )


def _endpoint_url(text: str) -> str:
    fault = endpoint_url_fault(text)
    if fault is not None:
        raise TextError(fault, "an endpoint is https://HOST[:PORT]/PATH")
    return text
