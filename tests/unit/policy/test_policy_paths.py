"""Path templates, precedence, and paths in normal form."""

from __future__ import annotations

import pytest
from policy_world import allows, faults, policy, snapshot

from proxy.policy.templates import is_template, template_problem, template_test
from proxy.protocol.path import PathNormalization, normalize_path


def operation(action: str, *paths: str, name: str = "p") -> bytes:
    return policy([{"to": [{"operation": {"paths": list(paths)}}]}], action, name)


def normal(target: str, mode: PathNormalization = PathNormalization.BASE) -> str:
    """Give the path that policy sees for a target: without query, in normal form."""
    return normalize_path(target.partition("?")[0].encode(), mode).decode("latin-1")


class TestTemplates:
    COMPILED = snapshot(operation("ALLOW", "/allow/admin/{**}", "/foo/{*}/bar/{**}", "/store/{**}/cart"))

    @pytest.mark.parametrize(
        "path",
        [
            "/allow/admin/",
            "/allow/admin/temp",
            "/allow/admin/temp.txt",
            "/allow/admin/foo/temp.txt",
            "/foo/buzz/bar/bat.txt",
            "/foo/buzz/bar/bat.temp.txt",
            "/foo/buzz/bar/bat/fuzz.txt",
            "/foo/buzz/bar/bat",
            "/store//cart",
            "/store/foo/cart",
            "/store/foo/bar/cart",
        ],
    )
    def test_allowed(self, path: str) -> None:
        assert allows(self.COMPILED, path=path)

    @pytest.mark.parametrize(
        "path",
        [
            "/allow/admin",
            "/allow/user/",
            "/allow/admin?param=value",
            "/allow",
            "/foo/bar/bat.txt",
            "/foo//bar/bat.txt",
            "/store/cart",
            "/Store/foo/cart",
            "/store/foo/cart/",
            "/x/store/foo/cart",
        ],
    )
    def test_denied(self, path: str) -> None:
        assert not allows(self.COMPILED, path=normal(path))

    @pytest.mark.parametrize(
        ("template", "path", "matches"),
        [
            ("/{*}", "/a", True),
            ("/{*}", "/", False),
            ("/{*}", "/a/b", False),
            ("/{**}", "/", True),
            ("/{**}", "/a/b/", True),
            ("/{*}/b", "/a/b", True),
            ("/a/{*}/", "/a/x/", True),
            ("/a/{*}/", "/a/x", False),
            ("/a/{*}", "/a/-._~%41!$&'()+,;:@=*", True),
            ("/a/{*}", '/a/"', False),
            ("/a/{**}", "/a/x/é", False),
            ("/a/{*}/{*}", "/a/x/y", True),
            ("/a/{*}/{*}", "/a//y", False),
            ("/a/{*}/{**}", "/a/x/", True),
            ("/a/{**}/b/c", "/a/b/c", False),
            ("/a/{**}/b/c", "/a/x/b/c", True),
            ("/a/{**}/b/c", "/a/b/c/b/c", True),
            ("/a(b)/{*}", "/a(b)/x", True),
            ("/a.b/{*}", "/axb/x", False),
        ],
    )
    def test_a_template_is_a_full_match(self, template: str, path: str, matches: bool) -> None:
        assert template_problem(template) == ""
        assert template_test(template)(path) is matches

    @pytest.mark.parametrize("value", ["/foo/bar/*", "*", "/a", "/a/{buzz}", "/{}", "/a*b"])
    def test_what_is_no_template(self, value: str) -> None:
        assert not is_template(value)

    def test_a_very_long_path_takes_one_look(self) -> None:
        """64 KiB that nearly match, against a template that a backtracking matcher would try in every way."""
        compiled = snapshot(operation("ALLOW", "/a/{*}/{*}/{**}/end", "/" + "{*}/" * 5 + "{**}/end"))
        assert not allows(compiled, path="/a" + "/x" * 32_000)
        assert allows(compiled, path="/a" + "/x" * 32_000 + "/end")


class TestPrecedence:
    COMPILED = snapshot(operation("DENY", "/allow/admin", name="d"), operation("ALLOW", "/allow*", name="a"))

    @pytest.mark.parametrize(
        ("target", "allowed"),
        [
            ("/allow/admin", False),
            ("/allow/admin?param=value", False),
            ("/allow", True),
            ("/allow?param=value", True),
        ],
    )
    def test_deny_before_allow(self, target: str, allowed: bool) -> None:
        assert allows(self.COMPILED, path=normal(target)) is allowed


class TestNormalForm:
    """Advisories about paths that mean one thing to the proxy and another to the application."""

    @pytest.mark.parametrize("dots", ["..", ".%2E", "%2e.", "%2E%2e"])
    @pytest.mark.parametrize(
        ("target", "allowed"),
        [
            ("/public", True),
            ("/public/{dots}/public", True),
            ("/private", False),
            ("/public/{dots}/private", False),
            ("/public/./{dots}/private", False),
            ("/public/{dots}/./private", False),
            ("/public/%2E/{dots}/private", False),
        ],
    )
    def test_dot_segments(self, target: str, dots: str, allowed: bool) -> None:  # CVE-2019-9901
        compiled = snapshot(policy([{"to": [{"operation": {"methods": ["GET"], "paths": ["/public*"]}}]}]))
        assert allows(compiled, path=normal(target.format(dots=dots))) is allowed

    @pytest.mark.parametrize(
        ("target", "mode"),
        [
            ("//admin", PathNormalization.MERGE_SLASHES),
            ("/\\admin", PathNormalization.MERGE_SLASHES),
            ("/%2Fadmin", PathNormalization.DECODE_AND_MERGE_SLASHES),
            ("/%5cadmin", PathNormalization.DECODE_AND_MERGE_SLASHES),
            ("/admin#x", PathNormalization.BASE),  # CVE-2021-32779
        ],
    )
    def test_other_spellings_are_denied_alike(self, target: str, mode: PathNormalization) -> None:  # CVE-2021-31920
        compiled = snapshot(operation("DENY", "/admin"), default="allow-all")
        assert not allows(compiled, path=normal(target, mode))

    @pytest.mark.parametrize("target", ["/x", "/x?", "/x?y=1", "/x#"])
    def test_a_query_does_not_hide_a_path(self, target: str) -> None:  # CVE-2020-8595
        assert not allows(snapshot(operation("DENY", "/x"), default="allow-all"), path=normal(target))


@pytest.mark.parametrize("path", ["/a{", "/a}", "/{a}", "{", "/{*", "/a/{ *}"])
def test_a_brace_outside_a_template_is_a_fault(path: str) -> None:
    assert faults(operation("ALLOW", path))
