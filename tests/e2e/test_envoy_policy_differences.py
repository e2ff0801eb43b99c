"""Where Remora decides otherwise than Istio with Envoy, shown with a real Envoy, one test for each difference.

`proxy/policy/DIFFERENCES.md` lists them for users; a test at the end holds that each of its rows names a test here.
Requests go to Envoy as istiod configures it, and to our engine (strict parser, normal form, policy) from the same
bytes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jwt
import pytest
from callers import Caller, calls_as
from envoy_authn import jwt_filter, mtls_mode
from envoy_both import WEB, Both, asks, condition, operation, policy, source
from envoy_claims import ISSUER, request_authentication, signing_key
from envoy_ours import TARGET, Call, compiled, our_verdict
from envoy_ours import connection_of as connection
from envoy_rbac import Json
from mesh import ROOT, authority, svid

from certs.authority import Svid
from certs.testing import Shape
from proxy.errors import ConfigError, Reason
from proxy.identity.verify import Rejection, Trust, Usage, judge_peer
from proxy.types import Denial


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


# --- what is decided when nothing is said ------------------------------------------------------------------------


def test_no_policy_denies(both: Both) -> None:
    """Istio allows what no policy speaks of. What nobody decided is not allowed here, unless the configuration says
    `policy.default: allow-all`, and then both agree."""
    assert both.statuses([], asks(), default="deny") == (200, 403)
    assert both.statuses([], asks(), default="allow-all") == (200, 200)


def test_plaintext_needs_a_decision(both: Both) -> None:
    """With no PeerAuthentication Istio is PERMISSIVE. Here mutual TLS is what one gets by doing nothing; under
    `allow-all`, which is Istio's world, PERMISSIVE holds here too."""
    policies = [policy([{}])]
    nobody = asks(caller=Caller())
    assert both.statuses(policies, nobody, default="deny") == (200, 403)
    denial = compiled(policies, "deny").connection(connection(nobody))
    assert isinstance(denial, Denial)
    assert denial.reason is Reason.CERTIFICATE_REQUIRED
    assert both.statuses(policies, nobody, default="allow-all") == (200, 200)


# --- what is not understood --------------------------------------------------------------------------------------


def test_an_unknown_condition_is_an_error(both: Both) -> None:
    """istiod leaves out a rule with a key that it does not know, also where the rule denies, and so it allows. There
    is no API server before mounted files that would have refused it; here the whole set is refused."""
    policies = [condition("request.header[x-role]", "guest", action="DENY")]
    assert both.theirs(policies, asks("/", ("x-role", "guest"))).status == 200
    with pytest.raises(ConfigError, match=re.escape("request.header[x-role]")):
        compiled(policies)


def test_a_bad_dry_run_value_is_an_error(both: Both) -> None:
    """istiod enforces a policy whose dry-run annotation is no boolean and writes a line in its log. Whoever wrote
    `yes` wanted to try a policy out, not to enforce it; nobody guesses here."""
    annotations = {"istio.io/dry-run": "yes"}
    policies = [policy([{}], "DENY", annotations=annotations)]
    assert both.theirs(policies, asks()).status == 403
    with pytest.raises(ConfigError, match="dry-run"):
        compiled(policies)


def test_a_denial_on_tcp_never_loses_a_condition(both: Both) -> None:
    """On TCP istiod drops the HTTP conditions of a DENY rule, so that one path becomes every connection. Here that is
    an error where the port is known to carry TCP. Where only the bytes tell, the connection is denied as by Istio,
    with a reason of its own that names the rule."""
    policies = [operation("DENY", paths=["/admin"])]
    assert not both.lets_through(policies, WEB)
    with pytest.raises(ConfigError, match="paths"):
        compiled(policies, tcp_ports=[WEB.port])
    denial = compiled(policies).connection(connection(Call(caller=WEB)))
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.rule) == (Reason.DENIED_PROTOCOL_OPAQUE, "ns[a]-policy[p]-rule[0]")


def test_what_only_envoy_has_is_an_error() -> None:
    """An external authoriser (CUSTOM) and conditions on filters of Envoy do not exist here. They are errors, because a
    policy that is left out allows or denies something else."""
    custom = policy([{}], "CUSTOM")
    custom["spec"]["provider"] = {"name": "opa"}
    filtered = condition("experimental.envoy.filters.network.mysql_proxy[db.table]", "orders")
    for each, word in ((custom, "CUSTOM"), (filtered, "experimental")):
        with pytest.raises(ConfigError, match=word):
            compiled([each])


def test_keys_with_which_anybody_can_sign_are_an_error(both: Both) -> None:
    """Envoy takes a private key for a public one. Who can read the policy could then sign tokens, so here that is an
    error. So is a place of keys that is not https, or that is on the workload's own machine."""
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(signing_key())) | {"kid": "k"}
    rules = [{"issuer": ISSUER, "jwks": json.dumps({"keys": [private]})}]
    call = dataclasses.replace(asks(), token="alice")
    assert both.theirs([source(requestPrincipals=["*"])], call, jwt=jwt_filter(rules)).status == 200
    with pytest.raises(ConfigError, match="private"):
        compiled([request_authentication(rules)])
    for uri in ("http://id.example/keys", "https://127.0.0.1/keys"):
        with pytest.raises(ConfigError, match="jwksUri"):
            compiled([request_authentication([{"issuer": ISSUER, "jwksUri": uri}])])


# --- who somebody is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "principal",
    [
        "cluster.local/ns/b/sa/x/ns/a/sa/y",
        "cluster.local/ns/a/sa/x/more",
        "cluster.local/ns/a/x/1/sa/x",
        "cluster.local/ci/ns/a/job",
    ],
)
def test_a_namespace_is_one_part_of_an_identity(both: Both, principal: str) -> None:
    """istiod searches the whole URI for `/ns/a/`, so an identity that is not of a ServiceAccount can be in a
    namespace, or in two. Here only `ns/<namespace>/sa/<account>` has a namespace; `principals` compares all of it."""
    call = asks(caller=calls_as(principal))
    assert both.statuses([source(namespaces=["a"])], call) == (200, 403)
    assert both.statuses([source(principals=[principal])], call) == (200, 200)


@pytest.mark.parametrize(("value", "namespace"), [("*a", "b"), ("*a*", "b"), ("*sa", "prod")])
def test_a_star_stays_within_the_namespace(both: Both, value: str, namespace: str) -> None:
    """istiod's star runs over slashes, and `sa/` follows the namespace: `*a` matches every ServiceAccount."""
    call = asks(caller=calls_as(f"cluster.local/ns/{namespace}/sa/x"))
    assert both.statuses([source(namespaces=[value])], call) == (200, 403)


@pytest.mark.parametrize("principal", ["cluster.local/ns/a/sa/x/more", "cluster.local/ns/a/x/1/sa/x"])
def test_a_service_account_is_the_end_of_an_identity(both: Both, principal: str) -> None:
    """istiod lets other parts stand between and behind; see `test_a_namespace_is_one_part_of_an_identity`."""
    call = asks(caller=calls_as(principal))
    assert both.statuses([source(serviceAccounts=["a/x"])], call) == (200, 403)


def test_an_identity_is_one_uri(both: Both) -> None:
    """Envoy takes a certificate with two URIs, and a rule matches when either matches: the caller chooses who it is.
    An SVID has one URI (SPIFFE X.509-SVID section 2), and a certificate with two is refused in the handshake."""
    names = ("spiffe://cluster.local/ns/a/sa/web", "spiffe://cluster.local/ns/a/sa/admin")
    two = authority().shaped(Shape(uris=tuple(name.encode() for name in names)))
    call = asks(caller=Caller(certificate=two, principal="two"))
    for name in ("web", "admin"):
        assert both.theirs([source(principals=[f"cluster.local/ns/a/sa/{name}"])], call).status == 200
    assert refused(two)
    assert not refused(svid("web"))


def test_a_dns_name_is_no_identity(both: Both) -> None:
    """Where a certificate has no URI, Envoy compares its DNS names with the principals. istiod hides that by asking
    for a URI in the handshake, which an operator can switch off; here nothing reads a DNS name."""
    dns = authority().shaped(Shape(dns_names=(b"spiffe://cluster.local/ns/a/sa/web",)))
    call = asks(caller=Caller(certificate=dns, principal="dns"))
    policies = [source(principals=["cluster.local/ns/a/sa/web"])]
    assert both.theirs(policies, call, certificates=()).status == 200
    assert refused(dns)


def refused(presented: Svid) -> bool:
    """Whether our verification of a caller, after OpenSSL's, refuses a certificate."""
    found = judge_peer(
        [*presented.chain, authority().root],
        trust=Trust.of(authority().trust_domain, authority().bundles),
        usage=Usage.CLIENT,
        now=authority().now.timestamp(),
        expected=None,
    )
    return isinstance(found, Rejection)


# --- addresses ---------------------------------------------------------------------------------------------------


def test_a_mapped_block_holds_the_addresses_that_it_maps(both: Both) -> None:
    """`::ffff:127.0.0.0/104` is `127.0.0.0/8` in IPv6 notation. Envoy compares the families first and matches
    nothing; a DENY rule written so would deny nobody."""
    policies = [source("DENY", ipBlocks=["::ffff:127.0.0.0/104"])]
    assert both.statuses(policies, asks()) == (200, 403)


def test_a_forwarded_address_is_believed_when_told_so(both: Both) -> None:
    """Envoy in a mesh takes the last address of x-forwarded-for as `remote.ip`, whoever wrote it. Here it is the
    address of the connection, unless `policy.trusted_proxies` says that proxies of ours write that header."""
    policies = [condition("remote.ip", "10.0.0.1")]
    call = asks("/", ("x-forwarded-for", "10.0.0.1"))
    assert both.statuses(policies, call) == (200, 403)
    assert our_verdict(compiled(policies, trusted_proxies=1), call).status == 200


# --- what is reported --------------------------------------------------------------------------------------------


def test_the_first_rule_by_number_is_reported(both: Both) -> None:
    """Envoy keeps rules by name, where `rule[10]` comes before `rule[2]`. Numbers are numbers here, so that the
    reported rule is the first of the file that matches."""
    never: Json = {"to": [{"operation": {"paths": ["/never"]}}]}
    policies = [policy([never, never, {}, *[never] * 7, {}], "DENY")]
    theirs, ours = both.theirs(policies, asks()), our_verdict(compiled(policies), asks())
    assert (theirs.denied_by, ours.denied_by) == ("ns[a]-policy[p]-rule[10]", "ns[a]-policy[p]-rule[2]")


# --- mutual TLS --------------------------------------------------------------------------------------------------


def test_the_first_of_two_peer_authentications_holds(both: Both) -> None:
    """istiod takes the older object. Files have no age that can be trusted, so the first by file and document holds,
    and lint reports the other."""

    def peers(name: str, mode: str, created: str) -> Json:
        whole = policy([], kind="PeerAuthentication", name=name, creationTimestamp=created)
        return whole | {"spec": {"mtls": {"mode": mode}}}

    policies = [
        peers("a", "PERMISSIVE", "2026-02-02T00:00:00Z"),
        peers("b", "STRICT", "2026-01-01T00:00:00Z"),
    ]
    assert mtls_mode(policies, TARGET) == "STRICT"
    snapshot = compiled([*policies, policy([{}])], "deny")
    assert our_verdict(snapshot, asks(caller=Caller())).status == 200
    assert any("PeerAuthentication" in str(warning) for warning in snapshot.warnings)


# --- the documentation -------------------------------------------------------------------------------------------

DIFFERENCES = ROOT / "proxy/policy/DIFFERENCES.md"


def rows(text: str) -> list[str]:
    """The rows of all tables, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("|---", "| Subject"))]


def names_of_tests(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


def test_every_row_of_the_documentation_names_a_test() -> None:
    found = rows(DIFFERENCES.read_text())
    for row in found:
        name, place = re.findall(r"\[(test_\w+)\]\(([^)]+)\) \|$", row)[0]
        assert name in names_of_tests(DIFFERENCES.parent / place), row
    assert len(found) > 30


def test_every_difference_is_in_the_documentation() -> None:
    named = set(re.findall(r"\[(test_\w+)\]", DIFFERENCES.read_text()))
    shown = set().union(*map(names_of_tests, Path(__file__).parent.glob("test_envoy_policy_differ*.py")))
    assert {name for name in shown - named if "documentation" not in name} == set()
