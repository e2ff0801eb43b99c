"""What the demo looks like in a terminal: lines of text, coloured only where somebody looks at them.

Nothing here is printed. Functions return lines that are no wider than the screen (a word that is wider than it, such
as a path, stays whole). Text is broken first and coloured then, so escape codes never count as width.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from demo.authority import told
from demo.layout import AUTHORITY, AUTHORITY_ID, PORTS, TOKEN, TRUST_DOMAIN, WORKLOADS, Layout, identity_of
from demo.records import Access, short_identity
from demo.revocation import REVOKED
from demo.rotation import Rotation
from demo.tour import Result

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
NARROWEST, WIDEST = 60, 100
_INDENT: Final = "    "
_LABEL: Final = 10
_OUTCOME: Final = 21
_ASCII: Final = str.maketrans("─│┌┐└┘├┤┬┴▼═▶→·…", "-|++++++++v=>>..")

_DRAWING: Final = """\
   you
    │ plain HTTP
 ┌──▼───────────────┐        ┌──────────────────┐        ┌──────────────────┐
 │ web       $web_app │        │ orders    $orders_app │        │ ledger    $ledger_app │
 │ HTTP, a front    │        │ HTTP, an API     │        │ TCP, greets      │
 ├──────────────────┤ mutual ├──────────────────┤ mutual ├──────────────────┤
 │ sidecar   $web_mesh │══TLS══▶│ sidecar   $orders_mesh │══TLS══▶│ sidecar   $ledger_mesh │
 └──────────────────┘        └──────────────────┘        └──────────────────┘
  spiffe://cluster.local      spiffe://cluster.local      spiffe://cluster.local
  /ns/shop/sa/web             /ns/shop/sa/orders          /ns/shop/sa/ledger
"""

_DRAWING_WIDTH: Final = 80
_NARROW_DRAWING: Final = """\
 you ─▶ web ══TLS══▶ orders ══TLS══▶ ledger

 web    $web_app  sidecar $web_mesh
  spiffe://cluster.local/ns/shop/sa/web
 orders $orders_app  sidecar $orders_mesh
  spiffe://cluster.local/ns/shop/sa/orders
 ledger $ledger_app  sidecar $ledger_mesh
  spiffe://cluster.local/ns/shop/sa/ledger
"""

_OTHERS: Final = (
    ("batch", "is a workload, /ns/shop/sa/batch, without a sidecar; no policy names it"),
    ("stranger", "says that it is /ns/shop/sa/web, by an authority of its own"),
    ("somebody", "has no certificate"),
)

_ALLOWED: Final = (
    ("orders", "web may GET and POST /orders, /orders/{*}; /admin is shut"),
    ("ledger", "orders may connect"),
    ("web", "nobody in the mesh: no policy names it"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What the terminal can do: `width` in columns, colours or none, letters beyond ASCII or none."""

    width: int
    colour: bool
    unicode: bool = True

    def paint(self, text: str, *codes: str) -> str:
        """Colour a text that is not broken any more."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colour and text else text

    def encode(self, line: str) -> str:
        """Write a line with the letters that the terminal has."""
        return line if self.unicode else line.translate(_ASCII).encode("ascii", "replace").decode()

    def title(self, text: str) -> list[str]:
        """A heading with a blank line before it."""
        return ["", self.paint(text, BOLD)]

    def wrapped(self, text: str, indent: str, *codes: str, first: str = "") -> list[str]:
        """Break a text; `first` is painted already and stands in the place of the first line's indent."""
        lines = textwrap.wrap(text, self.width - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
        painted = [self.paint(line, *codes) for line in lines]
        return [(first or indent) + painted[0], *(indent + line for line in painted[1:])]

    def labelled(self, label: str, text: str, *codes: str) -> list[str]:
        """A text with a word before it that says what it is."""
        first = _INDENT + self.paint(f"{label:<{_LABEL}}", DIM)
        return self.wrapped(text, _INDENT + " " * _LABEL, *codes, first=first)


def topology(screen: Screen, layout: Layout, *, shipped_policies: bool) -> list[str]:
    """Draw who is there, with identities and ports, and say who may call whom."""
    # Every port has five digits, so the drawing keeps its columns.
    template = _DRAWING if screen.width >= _DRAWING_WIDTH else _NARROW_DRAWING
    drawing = Template(template).substitute({name: f":{layout.port(name)}" for name in PORTS}).splitlines()
    lines = ["", *(_painted_drawing(screen, line) for line in drawing)]
    lines += screen.title("Others who will try")
    for name, text in _OTHERS:
        lines += screen.labelled(name, text)
    lines += screen.title("Who may call whom: policies/, deny by default")
    if shipped_policies:
        for name, text in _ALLOWED:
            lines += screen.labelled(name, text)
    else:
        lines += screen.wrapped("the policies in this directory are yours: the tour may come out otherwise", _INDENT)
    return lines


def identities(
    screen: Screen, layout: Layout, roots: Sequence[str], audit: Sequence[dict[str, Any]], lifetime: str
) -> list[str]:
    """Say who gave them their identities, on what ground, and show the audit line of one."""
    lines = screen.title("Who gives them identities: remora authority")
    lines += screen.labelled("serves", layout.url("authority", scheme="https"), CYAN)
    lines += screen.labelled("as", f"{short_identity(AUTHORITY_ID)} of {TRUST_DOMAIN}", CYAN)
    lines += screen.labelled("root", f"{', '.join(roots)}…, which everybody holds in bundle.pem")
    lines += screen.labelled(
        "admits",
        "whoever brings a join token: one each, good for one certificate. In a cluster: a ServiceAccount's token",
    )
    lines += screen.labelled("issues", f"certificates for {lifetime} each, so that you see them change; 24 h is usual")
    first = next(
        (line for line in audit if line["event"] == "issued" and line["identity"] == identity_of("orders")), None
    )
    if first is not None:
        lines += screen.labelled("audit.log", told(first), DIM)
    return lines


def _painted_drawing(screen: Screen, line: str) -> str:
    for name in (*WORKLOADS, "you"):
        line = line.replace(f" {name} ", f" {screen.paint(name, BOLD)} ")
    for link in ("══TLS══▶", "mutual"):
        line = line.replace(link, screen.paint(link, GREEN))
    return screen.paint(line, CYAN) if line.startswith("  spiffe") or line.startswith("  /ns") else line


def step(screen: Screen, number: int, result: Result, layout: Layout) -> list[str]:
    """Show one step: what was tried, each hop with both identities, the verdict and its reason, what the caller saw."""
    colour = GREEN if result.step.allowed else RED
    lines = heading(screen, number, result.step.outcome, result.step.story, colour)
    for access in result.accesses:
        lines += hop(screen, access, layout)
    said = f"  {result.sight.said}" if result.sight.said else ""
    lines += screen.labelled("caller", f"saw {result.sight.saw}{said}")
    return lines + faults(screen, result.faults)


def heading(screen: Screen, number: int, outcome: str, story: str, colour: str) -> list[str]:
    """Begin a part of the tour, a blank line before it."""
    first = f"{number:>2}  " + screen.paint(f"{outcome.upper():<{_OUTCOME}}", BOLD, colour)
    return ["", *screen.wrapped(story, _INDENT + " " * _OUTCOME, BOLD, first=first)]


def faults(screen: Screen, sentences: Sequence[str]) -> list[str]:
    """Say what did not come out as it should."""
    return [line for sentence in sentences for line in screen.labelled("FAULT", sentence, BOLD, YELLOW)]


def hop(screen: Screen, access: Access, layout: Layout) -> list[str]:
    """Show one access: the identities of both ends, what was asked, and the sidecar's own words about it."""
    status = f" → {access.status}" if access.status else ""
    lines = screen.labelled("hop", f"{access.hop}  {access.what}{status}", CYAN)
    if access.allowed and access.reason == "ok":
        return lines + screen.labelled("by", f"{access.policy}, {access.micros / 1000:.1f} ms")
    why = access.why or f"{access.policy} had let it in, {access.micros / 1000:.0f} ms before"
    lines += screen.labelled("reason", f"{access.reason}: {layout.short(why)}")
    # A rule that denies is the explanation; which rule would have allowed is then beside the point.
    if access.nearest and access.policy == "none":
        lines += screen.labelled("nearest", layout.short(access.nearest))
    return lines


def verdict(screen: Screen, results: Sequence[Result | Rotation]) -> list[str]:
    """Say how the tour came out."""
    wrong = [str(number) for number, result in enumerate(results, start=1) if result.faults]
    if not wrong:
        calls = [result.step.allowed for result in results if isinstance(result, Result)]
        text = f"All {len(results)} came out as they should: {sum(calls)} allowed, {len(calls) - sum(calls)} denied" + (
            ", the root and every certificate rotated." if len(calls) < len(results) else "."
        )
        return ["", screen.paint(text, BOLD, GREEN)]
    text = f"{len(wrong)} of {len(results)} did not come out as they should: {', '.join(wrong)}."
    return ["", screen.paint(text, BOLD, RED)]


def places(screen: Screen, layout: Layout, counts: Mapping[str, int], *, kept: bool) -> list[str]:
    """Say where files, logs and metrics are and how many records were written."""
    fate = "kept at the end" if kept else "removed at the end; --keep keeps it"
    lines = screen.title("Where it all is")
    lines += screen.labelled("files", f"{layout.directory} ({fate})")
    lines += screen.labelled(
        "records",
        f"{sum(counts.values())}, one for each request and connection, in "
        + _join(f"{name}/access.log ({counts[name]})" for name in WORKLOADS),
    )
    lines += screen.labelled("logs", _join(f"{name}/sidecar.log" for name in WORKLOADS) + ", app.log beside each")
    lines += screen.labelled("authority", "audit.log (who got what, who was refused), authority.log")
    lines += screen.labelled("config", _join(f"{name}/sidecar.yaml" for name in WORKLOADS) + ", policies/*.yaml")
    lines += screen.labelled("pages", _join(layout.url(f"{name}_admin", "/") for name in WORKLOADS))
    lines += screen.labelled("metrics", _join(layout.url(f"{name}_health", "/metrics") for name in WORKLOADS))
    return lines


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def commands(screen: Screen, layout: Layout, remora: str) -> list[str]:
    """Give commands to try, each as it can be pasted into a shell; `remora` is how the command is called here."""
    certificate = "--cert batch/identity/tls.crt --key batch/identity/tls.key"
    authority, where, orders = f"{remora} authority", f"--directory {AUTHORITY}", f"--identity {identity_of(REVOKED)}"
    tries = (
        ("all paths below begin here", f"cd {shlex.quote(str(layout.directory))}"),
        ("allowed: web, orders and the ledger", f"curl {layout.url('web_app', '/orders/7')}"),
        ("403: no rule lets web delete", f"curl -i -X DELETE {layout.url('web_app', '/orders/7')}"),
        ("what web itself does: plain text to its own sidecar", f"curl {layout.url('web_to_orders', '/orders/8')}"),
        (
            "403: batch has an identity and no leave",
            f"curl -ik {certificate} {layout.url('orders_mesh', '/orders/7', 'https')}",
        ),
        ("refused in the handshake: no certificate", f"curl -k {layout.url('orders_mesh', '/orders/7', 'https')}"),
        ("identity, traffic and denials of orders' sidecar", f"{remora} status --admin {layout.admin('orders')}"),
        ("is it ready", f"curl {layout.url('orders_health', '/readyz')}"),
        ("what it has counted", f"curl -s {layout.url('orders_health', '/metrics')} | grep ^remora_"),
        ("its last record", "tail -n 1 orders/access.log"),
        ("whose certificate is this", f"{remora} certs inspect batch/identity/tls.crt --bundle batch/identity/ca.crt"),
        ("edit a policy: web may delete now", """sed -i 's/"POST"/"POST","DELETE"/' policies/orders.yaml"""),
        ("a second later the next request is answered", f"curl -X DELETE {layout.url('web_app', '/orders/8')}"),
        ("replace the root: the authority tells each step below", f"{authority} rotate root {where}"),
        ("who has not confirmed it, and when the old one leaves", f"{authority} status {where}"),
        ("orders is nobody any more: soon web cannot reach it", f"{authority} revoke {where} {orders}"),
        ("take that back: certificates from before stay refused", f"{authority} lift {where} {orders}"),
        (
            "so it needs a token, as on its first day",
            f"{authority} token create {where} {orders} > {REVOKED}/{TOKEN}",
        ),
        ("who got a certificate, and who was refused", "tail -n 3 audit.log"),
    )
    lines = screen.title("Try it, in another terminal")
    for why, command in tries:
        lines.append(_INDENT + screen.paint(f"# {why}", DIM))
        lines += shell_lines(command, screen.width)
    lines += [
        "",
        *screen.wrapped(
            "Edit policies/*.yaml in any editor while this runs: the next request follows, and a connection that a new "
            "rule forbids is cut. A file with a mistake changes nothing, and is told below. `--directory my-mesh` "
            "keeps what you write for the next tour.",
            "",
        ),
    ]
    return lines


def shell_lines(command: str, width: int) -> list[str]:
    """Break a command between words so that it can still be pasted.

    >>> shell_lines("curl -k --cert a.crt --key a.key https://127.0.0.1", 40)
    ['    curl -k --cert a.crt --key a.key \\\\', '      https://127.0.0.1']
    """
    lines = textwrap.wrap(command, width - 8, break_long_words=False, break_on_hyphens=False)
    continued = [*(f"{line} \\" for line in lines[:-1]), lines[-1]]
    return [_INDENT + continued[0], *(f"{_INDENT}  {line}" for line in continued[1:])]


def live(screen: Screen, access: Access, layout: Layout, at: str) -> list[str]:
    """Show an access that somebody just made: one line, and a second with the reason when it was denied."""
    sign = screen.paint("allow", GREEN) if access.allowed else screen.paint("deny ", RED)
    status = f" → {access.status}" if access.status else ""
    lines = screen.wrapped(f"{access.hop}  {access.what}{status}", " " * 18, first=f"  {at}  {sign} ")
    if not access.allowed:
        lines += screen.wrapped(f"{access.reason}: {layout.short(access.why)}", " " * 18, DIM)
    return lines


def news(screen: Screen, said: Mapping[str, Sequence[str]], layout: Layout, at: str) -> list[str]:
    """Show what sidecars took of what is mounted, or rejected, each thing once with those who say it."""
    lines: list[str] = []
    for text, workloads in said.items():
        is_fault = " rejected, " in text or "cannot be renewed" in text or text.startswith("refused ")
        sign = screen.paint("fault", YELLOW) if is_fault else screen.paint("new  ", CYAN)
        lines += screen.wrapped(f"{layout.short(text)} ({_join(workloads)})", " " * 18, first=f"  {at}  {sign} ")
    return lines
