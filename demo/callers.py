"""Those who call: each function makes one call and says what the caller saw of it.

They stand for programs outside the mesh, so they use Python's own TLS and nothing of the proxy. A caller that has an
identity verifies the server as a sidecar would: its chain by the roots of the mesh, and then its name. `LedgerCall`
alone stays: a connection that is held.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from certs.store import CERTIFICATE_FILE, KEY_FILE
from demo.layout import Layout, identity_of

_SECONDS: Final = 5.0
_HUNG_UP: Final = "hung up, no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a caller saw: `saw` in a few words ("403 Forbidden", "TLS alert unknown_ca"), `said` the answer's text."""

    saw: str
    said: str = ""


def ask_web(layout: Layout, method: str, path: str) -> Sight:
    """Ask the web front as its user does, in plain HTTP; what web does for it goes through web's sidecar."""
    connection = http.client.HTTPConnection("127.0.0.1", layout.port("web_app"), timeout=_SECONDS)
    try:
        return _ask(connection, method, path)
    except (OSError, http.client.HTTPException) as failure:
        return failed(failure)
    finally:
        connection.close()


def ask_over_tls(layout: Layout, callee: str, caller: str | None, path: str) -> Sight:
    """Ask the sidecar of `callee` over TLS, with the certificate of `caller`, or without any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a workload has no host name in its certificate, but an identity: see below
    context.load_verify_locations(layout.bundle)
    if caller is not None:
        files = layout.identity(caller)
        context.load_cert_chain(files / CERTIFICATE_FILE, files / KEY_FILE)
    connection = http.client.HTTPSConnection(
        "127.0.0.1", layout.port(f"{callee}_mesh"), timeout=_SECONDS, context=context
    )
    try:
        connection.connect()
        if not is_peer(connection.sock, identity_of(callee)):
            return Sight(saw="another server's identity")
        return _ask(connection, "GET", path)
    except (OSError, http.client.HTTPException) as failure:
        return failed(failure)
    finally:
        connection.close()


def ask_in_plain_text(layout: Layout, callee: str, path: str) -> Sight:
    """Speak plain HTTP to the port where the sidecar of `callee` takes mutual TLS."""
    connection = http.client.HTTPConnection("127.0.0.1", layout.port(f"{callee}_mesh"), timeout=_SECONDS)
    try:
        return _ask(connection, "GET", path)
    except (OSError, http.client.HTTPException) as failure:
        return failed(failure)
    finally:
        connection.close()


class LedgerCall:
    """A connection from orders to the ledger, as the program orders makes it: in plain text, through its sidecar.

    A context manager. Raises OSError when it cannot be made, and when the other side ends it before it has answered.
    """

    def __init__(self, layout: Layout) -> None:
        self._sock = socket.create_connection(("127.0.0.1", layout.port("orders_to_ledger")), timeout=_SECONDS)
        self._heard = self._sock.makefile("r", newline="\n")
        self.greeting = ""

    def __enter__(self) -> LedgerCall:
        try:
            self.greeting = self._line()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._heard.close()
        self._sock.close()

    def ask(self, command: str) -> str:
        """Say a line and hear one."""
        self._sock.sendall(f"{command}\n".encode())
        return self._line()

    def ends_within(self, seconds: float) -> bool:
        """Wait for the other side to end it."""
        self._sock.settimeout(seconds)
        try:
            return not self._heard.readline()
        except TimeoutError:
            return False
        except OSError:
            return True

    def _line(self) -> str:
        line = self._heard.readline().strip()
        if not line:
            raise ConnectionResetError
        return line


def _ask(connection: http.client.HTTPConnection, method: str, path: str) -> Sight:
    connection.request(method, path)
    response = connection.getresponse()
    return Sight(saw=f"{response.status} {response.reason}", said=response.read().decode(errors="replace").strip())


def is_peer(sock: socket.socket | ssl.SSLSocket, identity: str) -> bool:
    """Say whether a verified certificate names this identity."""
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    return certificate is not None and ("URI", identity) in certificate.get("subjectAltName", ())


def failed(failure: Exception) -> Sight:
    """Say in a caller's words how a call failed."""
    if isinstance(failure, ssl.SSLError) and (alert := alert_in(str(failure.reason), str(failure))):
        return Sight(saw=f"TLS alert {alert}")
    if isinstance(failure, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        return Sight(saw=_HUNG_UP)
    return Sight(saw=f"{type(failure).__name__}: {failure}")


def alert_in(reason: str, message: str) -> str:
    """Find the name of a TLS alert (RFC 8446 section 6.2) in what OpenSSL says of a failure; "" when it is none.

    >>> alert_in("TLSV1_ALERT_UNKNOWN_CA", ""), alert_in("None", "tlsv13 alert certificate required (_ssl.c:2580)")
    ('unknown_ca', 'certificate_required')
    """
    found = re.search(r"_ALERT_(\w+)$", reason) or re.search(r"\balert ([a-z ]*[a-z])", message)
    return found[1].lower().replace(" ", "_") if found else ""
