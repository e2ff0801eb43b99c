"""Hundreds of hostile reviews over sockets, and bytes that are no HTTP and no TLS: the process lives and answers."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from injector_process import InjectorProcess

from tests.reviews import encoded, hostile, response_of, review_of

REVIEWS = 600


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[InjectorProcess]:
    made = InjectorProcess(tmp_path)
    made.issue()
    made.start(*made.mount())
    try:
        yield made
    finally:
        made.stop()


def test_every_hostile_review_gets_an_answer_and_an_audit_line(injector: InjectorProcess) -> None:
    with injector.api_server() as api:
        for number in range(REVIEWS):
            status, body = api.post(hostile(number))
            assert status in (200, 400)
            response_of(body)
    lines = injector.audit()
    assert len(lines) == REVIEWS
    assert {line["verdict"] for line in lines} >= {"injected", "skipped", "refused", "error"}
    assert [line for line in lines if line["reason"] == "internal"] == []
    assert "Traceback" not in injector.log_file.read_text()


def test_noise_instead_of_http_or_tls_leaves_it_as_it_was(injector: InjectorProcess) -> None:
    chance = random.Random(7)
    context = ssl.create_default_context(cadata=injector.ca.decode())
    head = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for number in range(60):
        with socket.create_connection(("127.0.0.1", injector.port), timeout=10) as sock:
            if number % 3 == 0:
                sock.sendall(chance.randbytes(200))
                continue
            with context.wrap_socket(sock, server_hostname="remora-injector.remora-system.svc") as tls:
                noise = (
                    chance.randbytes(100) + b"\r\n\r\n",
                    head + b"content-length: 99999999999999999999\r\n\r\n",
                    head + b"content-length: 50\r\n\r\n{",
                    head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
                    head + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
                )
                with contextlib.suppress(OSError):
                    tls.sendall(chance.choice(noise))
                    if chance.random() < 0.5:
                        tls.settimeout(0.2)
                        tls.recv(100)
    with injector.api_server() as api:
        assert response_of(api.post(encoded(review_of()))[1])["allowed"]
    assert injector.page("/livez")[0] == 200
    assert "Traceback" not in injector.log_file.read_text()
