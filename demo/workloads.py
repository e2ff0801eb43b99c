"""The three applications: plain programs of the standard library that know nothing of TLS, identity or policy.

    web      HTTP  a front that passes on what it is asked to the orders API
    orders   HTTP  an API that looks up amounts in the ledger
    ledger   TCP   speaks first ("220 ledger ready"), then answers lines: AMOUNT <order>, ADD <order> <cents>, QUIT

Each calls the next on a port of 127.0.0.1, where its sidecar listens. All that they see of the mesh is one header,
x-forwarded-client-cert, in which the sidecar says who called.

Started by: python -m demo.workloads web --listen PORT --orders PORT --ledger PORT
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import socketserver
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Final

_HOST: Final = "127.0.0.1"
_SECONDS: Final = 5.0
_PASSED_ON: Final = ("x-request-id", "traceparent", "tracestate")
"""What ties the calls of one request together; only the application knows which call belongs to which request."""
_MAX_BODY: Final = 65_536


class LedgerError(Exception):
    """The ledger did not answer, or said no."""


def ask_ledger(port: int, command: str) -> tuple[str, str]:
    """Dial the ledger, hear its greeting, ask one thing; return the greeting and the answer.

    Raises LedgerError when it cannot be reached, hangs up before it has spoken, or says no.
    """
    try:
        with socket.create_connection((_HOST, port), timeout=_SECONDS) as sock, sock.makefile("rw", newline="\n") as io:
            greeting = io.readline().strip()
            if not greeting:
                raise LedgerError("the ledger hung up without a greeting")
            io.write(f"{command}\nQUIT\n")
            io.flush()
            # To the end: who closes with unread bytes resets the connection.
            code, _, answer = io.read().partition("\n")[0].partition(" ")
    except OSError as failure:
        raise LedgerError(f"the ledger cannot be reached: {failure.strerror or failure}") from failure
    if code != "200":
        raise LedgerError(f"the ledger says {answer or 'nothing'}")
    return greeting, answer


def caller_in(header: str) -> str:
    """Take the caller's identity out of x-forwarded-client-cert; "nobody" without one."""
    found = re.search(r"URI=([^;,]+)", header)
    return found[1] if found else "nobody"


class Application(BaseHTTPRequestHandler):
    """What both HTTP applications share: keep-alive, bodies by length, JSON answers."""

    protocol_version = "HTTP/1.1"
    server_version = "shop"
    ports: ClassVar[dict[str, int]] = {}

    def answer(self, status: int, content: object) -> None:
        self.send(status, "application/json", json.dumps(content).encode() + b"\n")

    def send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _MAX_BODY))


class Web(Application):
    """The front. `/ledger` is what a front must not do: it dials the database past the API."""

    def handle_any(self) -> None:
        if self.path == "/ledger":
            self.dial_ledger()
        elif self.path == "/":
            self.answer(200, {"shop": "try /orders/7"})
        else:
            self.pass_on()

    def pass_on(self) -> None:
        headers = {"Host": "orders"} | {name: self.headers[name] for name in _PASSED_ON if self.headers[name]}
        connection = http.client.HTTPConnection(_HOST, self.ports["orders"], timeout=_SECONDS)
        try:
            connection.request(self.command, self.path, self.body() or None, headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as failure:
            self.answer(502, {"error": f"orders cannot be reached: {failure}"})
        else:
            self.send(response.status, response.getheader("Content-Type", ""), body)
        finally:
            connection.close()

    def dial_ledger(self) -> None:
        try:
            greeting, _ = ask_ledger(self.ports["ledger"], "AMOUNT 7")
        except LedgerError as failure:
            self.answer(502, {"error": str(failure)})
        else:
            self.answer(200, {"ledger": greeting})

    do_GET = do_POST = do_PUT = do_DELETE = handle_any


class Orders(Application):
    """The API. It would delete orders for anybody: that nobody can is the policy's work."""

    items: ClassVar[dict[int, str]] = {7: "a pot of tea", 8: "two scones"}

    def handle_any(self) -> None:
        caller = caller_in(self.headers.get("x-forwarded-client-cert", ""))
        found = re.fullmatch(r"/orders/([0-9]{1,6})", self.path)
        if self.path == "/orders" and self.command == "POST":
            number = max(self.items, default=0) + 1
            self.items[number] = self.body().decode(errors="replace")[:80] or "a surprise"
            return self.with_amount(number, f"ADD {number} 350", caller, 201)
        if self.path == "/orders":
            return self.answer(200, {"orders": self.items, "caller": caller})
        if not found or int(found[1]) not in self.items:
            return self.answer(404, {"error": f"there is no {self.path}", "caller": caller})
        number = int(found[1])
        if self.command == "DELETE":
            return self.answer(200, {"deleted": self.items.pop(number), "caller": caller})
        return self.with_amount(number, f"AMOUNT {number}", caller, 200)

    def with_amount(self, number: int, command: str, caller: str, status: int) -> None:
        try:
            greeting, amount = ask_ledger(self.ports["ledger"], command)
        except LedgerError as failure:
            return self.answer(502, {"error": str(failure), "caller": caller})
        order = {"order": number, "item": self.items[number], "amount": amount, "ledger": greeting, "caller": caller}
        return self.answer(status, order)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any


class Ledger(socketserver.StreamRequestHandler):
    """The database: greets, then answers line by line until it is told to quit."""

    cents: ClassVar[dict[str, int]] = {"7": 420, "8": 610}

    def handle(self) -> None:
        self.say("220 ledger ready")
        while line := self.rfile.readline(256).decode(errors="replace").strip():
            match line.split():
                case ["AMOUNT", order] if order in self.cents:
                    self.say(f"200 {self.cents[order] / 100:.2f} EUR")
                case ["AMOUNT", order]:
                    self.say(f"404 no amount for {order}")
                case ["ADD", order, cents] if cents.isdecimal():
                    self.cents[order] = int(cents)
                    self.say(f"200 {int(cents) / 100:.2f} EUR")
                case ["QUIT"]:
                    return self.say("221 bye")
                case _:
                    self.say("500 say AMOUNT <order>, ADD <order> <cents> or QUIT")
        return None

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\n".encode())


class LedgerServer(socketserver.ThreadingTCPServer):
    """A thread for each connection, as a small database would."""

    allow_reuse_address = True
    daemon_threads = True


def main(argv: Sequence[str]) -> int:
    """Run one application until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m demo.workloads", description="An application of the demo.")
    parser.add_argument("name", choices=("web", "orders", "ledger"))
    parser.add_argument("--listen", type=int, required=True, help="the port of 127.0.0.1 to serve")
    parser.add_argument("--orders", type=int, default=0, help="where the sidecar takes calls to orders")
    parser.add_argument("--ledger", type=int, default=0, help="where the sidecar takes calls to the ledger")
    options = parser.parse_args(argv)
    address = (_HOST, options.listen)
    server: socketserver.BaseServer
    if options.name == "ledger":
        server = LedgerServer(address, Ledger)
    else:
        Application.ports = {"orders": options.orders, "ledger": options.ledger}
        server = ThreadingHTTPServer(address, Web if options.name == "web" else Orders)
    sys.stderr.write(f"{options.name} serves 127.0.0.1:{options.listen}\n")
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
