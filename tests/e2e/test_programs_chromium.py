"""The admin page in a real browser: it shows who this is and what was refused, and runs nothing that peers sent."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from admin_caller import ADMIN, admin_port
from mesh import Mesh, get, identity, policy
from programs import run

pytestmark = pytest.mark.debian

ONLY_WEB = policy("web-only", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}]}]')
PWNED = "document.title='owned'"
HOSTILE = (f"<script>{PWNED}</script>", f'"><img src=x onerror="{PWNED}">', f"</td><svg onload={PWNED}>")


class Dom(HTMLParser):
    """What the browser made of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.title = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._within = tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._within == "title":
            self.title += data
            self._within = ""


async def browse(address: str, directory: Path, name: str) -> Dom:
    """Open an address in a browser that has never been used, and give its document after the scripts have run."""
    result = await run(
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={directory / name}",
        "--virtual-time-budget=3000",  # milliseconds: the document is given when what its scripts wait for has come
        "--window-size=1300,1400",
        f"--screenshot={directory / name}.png",
        "--dump-dom",
        address,
    )
    return Dom(result.ok().text)


@pytest.mark.asyncio
async def test_the_page_opens_and_runs_nothing_that_a_peer_sent(mesh: Mesh, tmp_path: Path) -> None:
    directory = tmp_path / "browser"
    directory.mkdir()
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_WEB, admin=ADMIN)
    for account in ("batch", "web"):
        for hostile in HOSTILE:
            client = await mesh.client(orders, account)
            await client.send(get("/orders/7?'&lt;b&gt;", f"X-Request-Id: {hostile}"))
            assert (await client.message()).status == (403 if account == "batch" else 200)
    seen = await browse(f"http://127.0.0.1:{admin_port(orders)}/", directory, "page")
    assert seen.title == "demo/orders - Remora"
    for words in (identity("orders"), "denied_by_policy", "no ALLOW rule allows", "/orders/7?'&lt;b&gt;", *HOSTILE):
        assert words in seen.text
    assert not {"script", "img", "svg"} & seen.tags
    assert (directory / "page.png").stat().st_size > 10_000


@pytest.mark.asyncio
async def test_the_browser_would_have_run_it(tmp_path: Path) -> None:
    """The control: where such a text is not escaped, this browser runs it and the title tells."""
    for number, hostile in enumerate(HOSTILE):
        page = tmp_path / f"{number}.html"
        page.write_text(
            f'<!DOCTYPE html><title>before</title><table><tr><td title="{hostile}">{hostile}</td></tr></table>'
        )
        assert (await browse(page.as_uri(), tmp_path, f"control-{number}")).title == "owned"


@pytest.mark.asyncio
async def test_another_site_in_the_browser_gets_nothing_done(mesh: Mesh, tmp_path: Path) -> None:
    """A page of another origin posts a form and tries a script with the header: neither drains the sidecar."""
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    admin = f"http://127.0.0.1:{admin_port(orders)}"
    page = tmp_path / "evil.html"
    page.write_text(
        f"""<!DOCTYPE html><title>before</title><iframe name=f></iframe>
        <form method=post action="{admin}/drain" target=f></form><script>
        document.forms[0].submit();
        const tries = [
          fetch("{admin}/drain", {{method: "POST", headers: {{"X-Remora-Admin": "true"}}}}),
          fetch("{admin}/drain", {{method: "POST", mode: "no-cors"}}),
          fetch("{admin}/config").then(answer => answer.text()),
        ];
        Promise.allSettled(tries).then(all => document.title = all.map(one => one.status).join(" "));
        </script>"""
    )
    seen = await browse(page.as_uri(), tmp_path, "evil")
    assert seen.title == "rejected rejected rejected", "refused before (CORS), unreadable after (CORP)"
    assert not orders.app.sidecar.draining
