"""Who may ask the admin listener: a table of what browsers and programs send."""

from __future__ import annotations

import pytest

from proxy.admin.guard import names_loopback, refusal

LOOPBACK = ("127.0.0.1", "127.0.0.1:15000", "127.9.9.9:1", "[::1]", "[::1]:15000", "localhost", "LocalHost:80")
STRANGE = (
    "",
    "h",
    "example.org",
    "localhost.example.org",
    "127.0.0.1.nip.io:15000",
    "127.0.0.1:15000:80",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.1",
    "2130706433",
    "0.0.0.0:15000",
    "10.0.0.7:15000",
    "169.254.169.254",
    "::1",
    "[::1",
    "[127.0.0.1]",
    "[::]:15000",
    "[fe80::1]",
    "[::1%lo]",
    "localhost@example.org",
    "127.0.0.1:\u0661",
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_may_ask(host: str) -> None:
    assert names_loopback(host)
    assert refusal(method="GET", headers={"host": host}, unix=False) is None
    assert refusal(method="POST", headers={"host": host, "x-remora-admin": "true"}, unix=False) is None


@pytest.mark.parametrize("host", STRANGE)
def test_another_name_is_refused_for_data_and_for_actions(host: str) -> None:
    for method in ("GET", "POST"):
        refused = refusal(method=method, headers={"host": host, "x-remora-admin": "true"}, unix=False)
        assert refused is not None
        assert refused.status == 403
    assert refusal(method="GET", headers={"host": host}, unix=True) is None, "no browser speaks to a unix socket"


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:15000", "http://localhost:3000", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_in_a_browser_is_refused(method: str, origin: str, unix: bool) -> None:
    headers = {"host": "127.0.0.1:15000", "origin": origin, "x-remora-admin": "true"}
    refused = refusal(method=method, headers=headers, unix=unix)
    assert refused is not None
    assert b"Origin" in refused.body


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize("value", [None, "", "1", "True", "false"])
def test_an_action_takes_the_header_that_a_form_cannot_send(value: str | None, unix: bool) -> None:
    headers = {"host": "localhost"} | ({} if value is None else {"x-remora-admin": value})
    refused = refusal(method="POST", headers=headers, unix=unix)
    assert refused is not None
    assert b"X-Remora-Admin: true" in refused.body
    assert refusal(method="GET", headers=headers, unix=unix) is None
