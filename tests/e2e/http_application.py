"""A plain application on Python's http.server, run as a program of its own: `http_application.py PORT`.

GET  /bytes/<n>     n bytes
GET  /headers       the request's header lines as JSON
GET  /until-close   an answer without a length
POST /digest        SHA-256 of the body, its length, and how it was framed, as JSON
POST /early         413 before the body has been read, and the connection is closed
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def content(size: int) -> bytes:
    """What /bytes/<size> gives."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


class Application(BaseHTTPRequestHandler):
    """Answers over HTTP/1.1 with keep-alive; http.server sends the 100 that Expect asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/bytes/"):
            self._answer(200, content(int(self.path.rpartition("/")[2])))
        elif self.path == "/until-close":
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until I close")
        else:
            self._answer(200, json.dumps(self.headers.items()).encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        digest, size = hashlib.sha256(), 0
        chunked = self.headers.get("transfer-encoding") == "chunked"
        for part in self._chunks() if chunked else self._counted():
            digest.update(part)
            size += len(part)
        answer = {"sha256": digest.hexdigest(), "size": size, "chunked": chunked}
        self._answer(200, json.dumps(answer).encode())

    def handle_expect_100(self) -> bool:
        if self.path == "/early":
            self.close_connection = True
            self._answer(413, b"too much")
            return False
        return super().handle_expect_100()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _counted(self) -> list[bytes]:
        left, parts = int(self.headers.get("content-length") or 0), []
        while left and (part := self.rfile.read(min(left, 65_536))):
            parts.append(part)
            left -= len(part)
        return parts

    def _chunks(self) -> list[bytes]:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return parts

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application)
    server.daemon_threads = True
    server.serve_forever()
