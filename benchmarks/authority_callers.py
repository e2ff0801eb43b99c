"""Simulates sidecars that ask an authority, so many at a time, each as a sidecar asks (proxy.enrolment.authority).

    first certificate   a connection without a certificate, `POST /v1/sign` with a ServiceAccount's token
    renewal             a connection with the certificate, `POST /v1/sign` with the token as it is mounted then
    poll                a connection with the certificate, `GET /v1/bundle` that confirms the one held, `GET /v1/crl`;
                        both are answered 304, for what is held is what would come

Each connection is one TLS 1.3 handshake with X25519MLKEM768, and ends after its answers. Keys, requests and contexts
are made before anything is timed, and what is left of a caller is OpenSSL: it must not be what the authority waits for.

Every sidecar has two certificates, the first and one that it got by a renewal, and loads go round over all of them.
An authority remembers the chains that it judged last (1,024), and of 100,000 sidecars it remembers nearly none: with
more than 512 of ours it does not remember them either.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509

from benchmarks.alone import CoreWatch
from benchmarks.authority_report import Load, percentile
from benchmarks.authority_service import AuthorityDirectory, Serving
from benchmarks.peers import Line, tls_context
from benchmarks.processes import BenchError
from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.keys import PrivateKey, generate_key
from proxy.enrolment.authority_messages import CRL_PATH, SIGN_PATH, bundle_path, unless, write_sign_request

_GET: Final = {"user-agent": "remora", "accept-encoding": "identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """One simulated sidecar: what it sends for its first certificate and for a renewal, ready to go out."""

    name: str
    pod: str
    key: PrivateKey = field(repr=False)
    next_key: PrivateKey = field(repr=False)
    first: bytes = field(repr=False)
    renewal: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A sidecar with one of its certificates; `poll` are its two questions."""

    sidecar: Sidecar
    context: SSL.Context = field(repr=False)
    poll: tuple[bytes, bytes] = field(repr=False)


def make_sidecars(directory: AuthorityDirectory, count: int) -> list[Sidecar]:
    """Make sidecars, each with an identity, a token and two keys of its own."""
    made = []
    for number in range(count):
        account = f"account-{number}"
        pod = f"{account}-7d9f8c6b5-x2k4q"
        token, key, next_key = directory.cluster.token(account, pod), generate_key(), generate_key()
        first, renewal = (
            _post(write_sign_request(each, token=token, lifetime=None, bundle_sequence=sequence, instance=pod))
            for each, sequence in ((key, None), (next_key, directory.bundle.sequence))
        )
        made.append(Sidecar(name=account, pod=pod, key=key, next_key=next_key, first=first, renewal=renewal))
    return made


class Crowd:
    """All sidecars of one authority. `enrol` first; every load then goes round over what they hold."""

    def __init__(self, sidecars: Sequence[Sidecar], bundle: TrustBundle, callers: int) -> None:
        self._sidecars = sidecars
        self._bundle = bundle
        self._callers = callers
        self._holders: list[Holder] = []
        self._next = itertools.count()
        self.certificates = 0
        """How many were answered, by the callers' count."""

    def enrol(self, serving: Serving, core: int) -> Load:
        """Get every sidecar its first certificate, which is timed, and then, which is not, a second by a renewal."""
        nobody = _nobody(self._bundle)
        chains: dict[str, bytes] = {}

        def first(number: int) -> None:
            sidecar = self._sidecars[number]
            line = Line.call(serving.port, sidecar.name, nobody)
            line.send(sidecar.first)
            chains[sidecar.name] = line.read_whole()[1]
            line.close()

        load = drive(first, serving, core, callers=self._callers, count=len(self._sidecars))
        tags = self._tags(serving, nobody)
        held = [self._holder(each, each.key, chains[each.name], tags) for each in self._sidecars]

        def second(number: int) -> None:
            sidecar = self._sidecars[number]
            line = Line.call(serving.port, sidecar.name, held[number].context)
            line.send(sidecar.renewal)
            chains[sidecar.name] = line.read_whole()[1]
            line.close()

        drive(second, serving, core, callers=self._callers, count=len(self._sidecars))
        held += [self._holder(each, each.next_key, chains[each.name], tags) for each in self._sidecars]
        self._holders = held
        self.certificates += 2 * len(self._sidecars)
        return load

    def renewals(self, serving: Serving, core: int, seconds: float, *, callers: int, kept: bool = False) -> Load:
        """Renew for so long, each time on a new connection or, `kept`, one caller always on the same."""
        load = self._load(serving, core, seconds, callers, kept, _renew)
        self.certificates += load.asked
        return load

    def polls(self, serving: Serving, core: int, seconds: float, *, callers: int, kept: bool = False) -> Load:
        """Poll for so long."""
        return self._load(serving, core, seconds, callers, kept, _poll)

    def _load(
        self,
        serving: Serving,
        core: int,
        seconds: float,
        callers: int,
        kept: bool,
        ask: Callable[[Line, Holder], None],
    ) -> Load:
        mine = threading.local()
        lines: list[Line] = []

        def on_a_new_one(_: int) -> None:
            holder = self._take()
            line = Line.call(serving.port, holder.sidecar.name, holder.context)
            ask(line, holder)
            line.close()

        def on_a_kept_one(_: int) -> None:
            if not hasattr(mine, "line"):
                mine.holder = self._take()
                mine.line = Line.call(serving.port, mine.holder.sidecar.name, mine.holder.context)
                lines.append(mine.line)
            ask(mine.line, mine.holder)

        work = on_a_kept_one if kept else on_a_new_one
        try:
            return drive(work, serving, core, callers=callers, seconds=seconds)
        finally:
            for line in lines:
                line.close()

    def _take(self) -> Holder:
        return self._holders[next(self._next) % len(self._holders)]

    def _holder(self, sidecar: Sidecar, key: PrivateKey, answer: bytes, tags: tuple[str, str]) -> Holder:
        chain = tuple(x509.load_pem_x509_certificates(json.loads(answer)["chain"].encode("ascii")))
        bundle_tag, list_tag = tags
        poll = (
            _get(bundle_path(self._bundle.sequence, sidecar.pod), {"accept": "application/json"} | unless(bundle_tag)),
            _get(CRL_PATH, unless(list_tag)),
        )
        context = tls_context(Svid(chain=chain, key=key), self._bundle, server=False)
        return Holder(sidecar=sidecar, context=context, poll=poll)

    def _tags(self, serving: Serving, nobody: SSL.Context) -> tuple[str, str]:
        """Learn by which tags the authority knows its bundle and its list."""
        line = Line.call(serving.port, "a caller", nobody)
        tags = []
        for path in (bundle_path(None, ""), CRL_PATH):
            line.send(_get(path, {}))
            tags.append(etag_of(line.read_whole()[0]))
        line.close()
        return tags[0], tags[1]


def drive(
    ask: Callable[[int], None],
    serving: Serving,
    core: int,
    *,
    callers: int,
    seconds: float | None = None,
    count: int | None = None,
) -> Load:
    """Have `callers` threads ask again and again, for so many seconds or so often, and take the authority's account.

    `ask` is called with ever higher numbers from 0. Raises what it raises.
    """
    numbers, waits = itertools.count(), list[float]()
    watch, cpu, ours = CoreWatch(core), serving.cpu(), time.process_time()
    began = time.perf_counter()
    end = None if seconds is None else began + seconds

    def call() -> None:
        while True:
            number, asked_at = next(numbers), time.perf_counter()
            if (count is not None and number >= count) or (end is not None and asked_at >= end):
                return
            ask(number)
            waits.append(time.perf_counter() - asked_at)

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call) for _ in range(callers)]
    took = time.perf_counter() - began
    used, ours = serving.cpu() - cpu, time.process_time() - ours
    for each in calls:
        each.result()
    if not waits:
        raise BenchError("not one question was answered in time; ask for more seconds")
    waits.sort()
    return Load(
        asked=len(waits),
        seconds=took,
        cpu=used,
        callers_cpu=ours,
        p50_ms=percentile(waits, 0.5) * 1000,
        p99_ms=percentile(waits, 0.99) * 1000,
        foreign_share=watch.foreign(used),
    )


def etag_of(head: bytes) -> str:
    r"""Find the tag in the head of an answer. Raises BenchError.

    >>> etag_of(b'HTTP/1.1 200 OK\r\netag: "7"\r\ncontent-length: 0')
    '"7"'
    """
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"etag":
            return value.strip().decode("ascii")
    raise BenchError("the authority gave an answer without an ETag")


def _renew(line: Line, holder: Holder) -> None:
    line.send(holder.sidecar.renewal)
    line.read_whole()


def _poll(line: Line, holder: Holder) -> None:
    for question in holder.poll:
        line.send(question)
        line.read_whole(due=304)


def _post(body: bytes) -> bytes:
    return _head("POST", SIGN_PATH, {"content-type": "application/json", "content-length": str(len(body))}) + body


def _get(path: str, headers: dict[str, str]) -> bytes:
    return _head("GET", path, headers)


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    fields = {"host": "authority", **_GET, **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _nobody(bundle: TrustBundle) -> SSL.Context:
    """Make what a caller without a certificate needs; it believes `bundle` alone."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    store = context.get_cert_store()
    if store is None:
        raise BenchError("OpenSSL gave a context without a certificate store")
    for anchor in bundle.certificates:
        store.add_cert(X509.from_cryptography(anchor))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_alpn_protos([b"http/1.1"])
    return context
