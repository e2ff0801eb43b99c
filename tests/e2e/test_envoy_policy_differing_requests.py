"""Requests that Remora reads otherwise than Envoy in a mesh, one test for each difference.

See `proxy/policy/DIFFERENCES.md` and `test_envoy_policy_differences.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from callers import Caller
from envoy_both import Both, asks, condition, operation, policy
from envoy_judge import judging
from envoy_ours import compiled, filters, our_verdict
from mesh import Mesh, get, svid

from proxy.errors import ConfigError


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


# --- which request it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "mode"),
    [
        ("/a/..;/admin", "base"),
        ("/a/.;x=1/admin", "base"),
        ("/a/%2e%2E;/admin", "base"),
        ("/..;", "merge_slashes"),
        ("/a%2f..;/admin", "decode_and_merge_slashes"),
    ],
)
def test_dots_with_parameters_are_refused(both: Both, target: str, mode: str) -> None:
    """Some servers read `..;x` as `..`, others as a name. Envoy changed sides in 2026; a path with two readings is
    refused here whatever the version."""
    assert both.statuses([policy([{}])], asks(target), mode=mode) == (200, 400)


def test_an_encoded_nul_is_refused_in_every_mode(both: Both) -> None:
    """Without normalisation Envoy forwards `%00`; it ends a text for some applications, so it is refused here."""
    assert both.statuses([policy([{}])], asks("/a%00b"), mode="none") == (200, 400)
    assert both.statuses([policy([{}])], asks("/a%00b"), mode="base") == (400, 400)


def test_a_fragment_is_refused(both: Both) -> None:
    """A request target has no fragment (RFC 9112 section 3.2). Envoy in a mesh cuts it off; here it is 400."""
    assert both.statuses([operation(paths=["/a"])], asks("/a#b")) == (200, 400)


def test_a_path_that_decodes_to_escapes_is_refused(both: Both) -> None:
    """`/%%32e` decodes to `/%2e`, which the next reader decodes to `/.`. Envoy writes the stray `%` as `%25`; here a
    path that is not finished by one decoding is refused."""
    assert both.theirs([policy([{}])], asks("/%%32e")).path == "/%252e"
    assert both.statuses([policy([{}])], asks("/%%32e")) == (200, 400)


def test_a_half_escape_is_left_as_it_is(both: Both) -> None:
    """`%2` before `%41` is no escape, and decoding makes one of both. Envoy escapes its percent sign; here it stays:
    `%2A` is not decoded again by us, and it is judged as it is forwarded."""
    call = asks("/%2%41")
    theirs, ours = both.theirs([policy([{}])], call), our_verdict(compiled([policy([{}])]), call)
    assert (theirs.path, ours.path) == ("/%252A", "/%2A")


def test_slashes_alone_are_merged(both: Both) -> None:
    """Envoy merges slashes between names, but leaves `//` when there is no name; then a DENY of `/` is passed by
    `//`, which every application serves as `/`."""
    policies = [policy([{}], name="all"), operation("DENY", paths=["/"])]
    assert both.statuses(policies, asks("//"), mode="merge_slashes") == (200, 403)
    assert both.statuses(policies, asks("/"), mode="merge_slashes") == (403, 403)


@pytest.mark.parametrize("second", ["other", "h"])
def test_two_hosts_are_refused(both: Both, second: str) -> None:
    """RFC 9112 section 3.2 asks for 400. Envoy makes one host of both, `h,other`, which a DENY of `h` does not match,
    and applications exist that read the first."""
    policies = [policy([{}], name="all"), operation("DENY", hosts=["h"])]
    assert both.statuses(policies, asks("/", ("Host", second))) == (200, 400)
    assert both.statuses(policies, asks("/")) == (403, 403)


def test_a_target_and_a_host_that_differ_are_refused(both: Both) -> None:
    """Envoy follows the target, as RFC 9112 section 3.2.2 says; applications exist that read Host. Both must agree."""
    assert both.statuses([operation(hosts=["z"])], asks("http://z/p", host="h")) == (200, 400)
    assert both.statuses([operation(hosts=["z"])], asks("http://z/p", host="z")) == (200, 200)


def test_underscores_in_names_are_refused(both: Both) -> None:
    """Behind WSGI and CGI `x_role` and `x-role` are one variable, so a policy about the second is passed by the
    first. Envoy forwards both, unless told otherwise."""
    policies = [policy([{}], name="all"), condition("request.headers[x-role]", "admin", action="DENY")]
    assert both.statuses(policies, asks("/", ("x_role", "admin"))) == (200, 400)


def test_folded_header_lines_are_refused(both: Both) -> None:
    """RFC 9112 section 5.2: a server refuses folding or replaces it. Envoy replaces it."""
    assert both.statuses([policy([{}])], asks("/", ("x-role", "guest\r\n admin"))) == (200, 400)


# --- what stands in a request ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "x-envoy-original-path", "x-istio-attributes"])
def test_headers_of_the_mesh_are_not_the_callers_to_write(both: Both, name: str) -> None:
    """Only a sidecar says who called. What a caller writes there matches no rule and goes no further; with Istio a
    rule sees it."""
    policies = [condition(f"request.headers[{name}]", "me*")]
    assert both.statuses(policies, asks("/", (name, "me"))) == (200, 403)


@pytest.mark.asyncio
async def test_the_forwarded_certificate_is_ours_alone(mesh: Mesh, tmp_path: Path) -> None:
    """Envoy appends its element to what the caller sent (`APPEND_FORWARD`), so an application that reads the first
    one believes the caller. Here the header is replaced."""
    lie = "By=spiffe://cluster.local/ns/a/sa/x;URI=spiffe://cluster.local/ns/a/sa/admin"
    head = get("/", f"x-forwarded-client-cert: {lie}")
    async with judging(tmp_path / "envoy", [filters([])]) as judge:
        theirs = (await judge.request(0, head, Caller(certificate=svid("web")))).forwarded_certificate
    assert theirs.startswith(lie + ",By=")

    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(head)
    assert (await client.message()).status == 200
    [request] = backend.requests
    ours = (request.get("x-forwarded-client-cert") or b"").decode()
    assert "admin" not in ours
    assert "URI=spiffe://cluster.local/ns/demo/sa/web" in ours


@pytest.mark.parametrize("name", ["authorization", "user-agent", "accept", "origin", "x-forwarded-for"])
@pytest.mark.parametrize("lines", [("bad", "good"), ("good", "bad")])
def test_repeated_lines_of_well_known_headers_match_one_by_one(both: Both, name: str, lines: tuple[str, str]) -> None:
    """Since 1.37.1 Envoy matches the lines of a repeated header one by one (CVE-2026-26308), but some headers it joins
    with a comma when it reads them: a second line still hides the first from a DENY."""
    policies = [policy([{}], name="all"), condition(f"request.headers[{name}]", "bad", action="DENY")]
    assert both.statuses(policies, asks("/", *((name, line) for line in lines))) == (200, 403)
    assert both.statuses(policies, asks("/", (name, "bad"))) == (403, 403)


@pytest.mark.parametrize("name", ["x-request-id", "x-forwarded-proto"])
def test_headers_that_the_proxy_writes_are_not_the_callers(both: Both, name: str) -> None:
    """Envoy writes these before policy, so a condition on them holds for whoever calls. Here conditions see what the
    caller sent; what we write for the application comes later."""
    policies = [condition(f"request.headers[{name}]", "*")]
    assert both.statuses(policies, asks("/")) == (200, 403)
    assert both.statuses(policies, asks("/", (name, "x"))) == (200, 200)


@pytest.mark.parametrize(
    ("name", "value"), [("connection", "keep-alive"), ("keep-alive", "5"), ("te", "gzip"), ("expect", "100-continue")]
)
def test_headers_of_the_connection_can_be_seen(both: Both, name: str, value: str) -> None:
    """Envoy removes hop-by-hop headers before policy: a DENY of one denies nothing. Here conditions see them."""
    policies = [policy([{}], name="all"), condition(f"request.headers[{name}]", value, action="DENY")]
    assert both.statuses(policies, asks("/", (name, value))) == (200, 403)


def test_the_path_is_no_header(both: Both) -> None:
    """`request.headers[:path]` is the path with its query in Envoy, which nobody expects who knows `paths`; here it is
    an error that points there."""
    policies = [condition("request.headers[:path]", "/a?b")]
    assert both.theirs(policies, asks("/a?b")).status == 200
    with pytest.raises(ConfigError, match="paths"):
        compiled(policies)
