"""A small Kubernetes API server for tests: **a stand-in for a real one**, which the tests cannot count on having.

It speaks HTTP or HTTPS on loopback and behaves like kube-apiserver in what the authority relies on: bearer tokens
(401), forbidden verbs (403), bodies of kind Status, resourceVersion and its conflicts (409), create of what exists
(409), TokenReview from a table of tokens, OIDC discovery and keys. Objects live in memory. It knows no watches, no
admission, no schemas beyond metadata, no quota, no RBAC but a set of forbidden calls: what passes here still has to
pass a real API server before it may be said to work there.
"""

from __future__ import annotations

import copy
import datetime
import ipaddress
import json
import re
import ssl
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

OBJECTS = re.compile(
    r"/(?:api|apis/(?:coordination\.k8s\.io|apps|discovery\.k8s\.io|policy))/v1/namespaces/([a-z0-9-]+)"
    r"/(secrets|configmaps|pods|serviceaccounts|leases|deployments|endpointslices|poddisruptionbudgets)"
    r"(?:/([a-z0-9.-]+))?"
)
CLUSTER_WIDE = re.compile(
    r"/(?:api|apis/admissionregistration\.k8s\.io)/v1()/(mutatingwebhookconfigurations|nodes|namespaces|pods)"
    r"(?:/([a-z0-9.-]+))?"
)
SELECTOR = re.compile(r"([a-z0-9./-]+)(?:=([A-Za-z0-9.-]+)| in \(([A-Za-z0-9.,-]+)\))")
Document = dict[str, Any]

MAX_DATA = 1024 * 1024
"""What the real one takes in a Secret or a ConfigMap, counted as it is kept: base64 decoded."""


class KubeServer:
    """One API server on loopback; a context manager. `with KubeServer() as kube: kube.url`.

    `token` is what callers must bring; with `by_certificate` they bring the pair `kube-server.pem` of the TLS directory
    as a client certificate instead. `reviews` maps a token to the `status` that its TokenReview gets; others are
    not authenticated. `forbidden` holds (verb, resource) pairs that are answered with 403. `answer_with` overrides
    every answer (status, bytes), for servers that are broken. `version` is what /version says. Who asks whether they
    may do something may, but for `not_allowed`, pairs of verb and resource. `admit` is asked for the answer to a create
    with dryRun, in the place of webhooks. `lost` holds (verb, resource) pairs that are done and
    whose answer is lost on the way. While `silent` is an event, calls wait for it and
    get no answer. `calls` records method and path.
    """

    def __init__(
        self, tls_directory: Path | None = None, token: str = "kube-token", *, by_certificate: bool = False
    ) -> None:
        self.token = token
        self.reviews: dict[str, Document] = {}
        self.forbidden: set[tuple[str, str]] = set()
        self.lost: set[tuple[str, str]] = set()
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.jwks = b'{"keys": []}'
        self.issuer = "https://kubernetes.default.svc"
        self.version = "v1.31.4"
        self.not_allowed: set[tuple[str, str]] = set()
        self.admit: Callable[[Document], tuple[int, Document]] = lambda document: (201, document)
        self.answer_with: tuple[int, bytes] | None = None
        self.silent: threading.Event | None = None
        self.calls: list[tuple[str, str]] = []
        self.by_certificate = by_certificate
        self.ca_file = None if tls_directory is None else tls_directory / "kube-ca.crt"
        self._lock = threading.Lock()
        self._version = 100
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        if tls_directory is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_self_signed(tls_directory))
            if by_certificate:
                context.load_verify_locations(self.ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="kube-server")

    @property
    def url(self) -> str:
        scheme = "http" if self.ca_file is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> KubeServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, resource: str, namespace: str, name: str, document: Document) -> Document:
        """Place an object as another client would, with a new resourceVersion."""
        with self._lock:
            return self._store(resource, namespace, name, document)

    def remove(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object."""
        with self._lock:
            del self.objects[resource, namespace, name]

    def handle(self, method: str, path: str, authorization: str | None, body: bytes) -> tuple[int, Document]:
        """Answer one call; the status and the document."""
        if not self.by_certificate and authorization != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        with self._lock:
            self.calls.append((method, path))
            if path == "/.well-known/openid-configuration" and method == "GET":
                return 200, {"issuer": self.issuer, "jwks_uri": f"{self.url}/openid/v1/jwks"}
            if path == "/openid/v1/jwks" and method == "GET":
                return 200, json.loads(self.jwks)
            if path == "/apis/authentication.k8s.io/v1/tokenreviews" and method == "POST":
                if ("POST", "tokenreviews") in self.forbidden:
                    return _status(403, "Forbidden", "cannot create resource tokenreviews in API group")
                return self._review(json.loads(body))
            if path == "/version" and method == "GET":
                return 200, {"gitVersion": self.version}
            if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" and method == "POST":
                return self._access(json.loads(body))
            path, _, query = path.partition("?")
            match = OBJECTS.fullmatch(path) or CLUSTER_WIDE.fullmatch(path)
            if match is None:
                return _status(404, "NotFound", "the server could not find the requested resource")
            namespace, resource, name = match.groups()
            if (method, resource) in self.forbidden:
                return _status(403, "Forbidden", f"{resource} is forbidden: cannot {method} in namespace {namespace}")
            if method == "GET" and name is None:
                return self._list(resource, namespace, urllib.parse.parse_qs(query))
            document = json.loads(body) if body else {}
            if query == "dryRun=All":
                return self.admit(document)
            return self._object(method, resource, namespace, name, document)

    def _access(self, review: Document) -> tuple[int, Document]:
        asked = review["spec"]["resourceAttributes"]
        whole = asked["verb"] == "*" and bool(self.not_allowed)
        allowed = not whole and (asked["verb"], asked["resource"]) not in self.not_allowed
        return 201, {**review, "status": {"allowed": allowed}}

    def _list(self, resource: str, namespace: str, query: dict[str, list[str]]) -> tuple[int, Document]:
        """Give the members by name, in pages, as the real one does: the token of the next page is opaque."""
        found = sorted(
            (key, document)
            for key, document in self.objects.items()
            if key[0] == resource and (not namespace or key[1] == namespace)
        )
        selector = SELECTOR.fullmatch(query.get("labelSelector", [""])[0])
        if selector is not None:
            values = [selector[2]] if selector[2] else selector[3].split(",")
            found = [
                (key, document)
                for key, document in found
                if document["metadata"].get("labels", {}).get(selector[1]) in values
            ]
        begin, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["0"])[0])
        end = begin + limit if limit else len(found)
        metadata = {"continue": str(end)} if end < len(found) else {}
        items = [copy.deepcopy(document) for _, document in found[begin:end]]
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}

    def _review(self, review: Document) -> tuple[int, Document]:
        status = self.reviews.get(review["spec"]["token"], {"authenticated": False, "error": "invalid bearer token"})
        if status.get("authenticated"):
            wanted = set(review["spec"].get("audiences", []))
            common = sorted(wanted & set(status.get("audiences", [])))
            # What the real one does for a token of another audience.
            status = {**status, "audiences": common} if common else {"error": "token audiences are invalid"}
        return 201, {**review, "status": status}

    def _object(
        self, method: str, resource: str, namespace: str, name: str | None, document: Document
    ) -> tuple[int, Document]:
        if method == "POST" and name is None:
            name = document.get("metadata", {}).get("name")
            if not name:
                return _status(422, "Invalid", "metadata.name: Required value: name or generateName is required")
            if (resource, namespace, name) in self.objects:
                return _status(409, "AlreadyExists", f'{resource} "{name}" already exists')
            return _too_large(document) or (201, self._store(resource, namespace, name, document))
        if name is None or method not in ("GET", "PUT", "PATCH", "DELETE"):
            return _status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        now = self.objects.get((resource, namespace, name))
        if now is None:
            return _status(404, "NotFound", f'{resource} "{name}" not found')
        if method == "GET":
            return 200, copy.deepcopy(now)
        if method == "DELETE":
            del self.objects[resource, namespace, name]
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if method == "PATCH":
            document = _merge(now, document)
        version = document.get("metadata", {}).get("resourceVersion")
        if version is not None and version != now["metadata"]["resourceVersion"]:
            return _status(
                409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": the object has been modified'
            )
        return _too_large(document) or (200, self._store(resource, namespace, name, document))

    def _store(self, resource: str, namespace: str, name: str, document: Document) -> Document:
        before = self.objects.get((resource, namespace, name))
        self._version += 1
        kept = copy.deepcopy(document)
        metadata = kept.setdefault("metadata", {})
        metadata.update(name=name, namespace=namespace, resourceVersion=str(self._version))
        metadata["uid"] = before["metadata"]["uid"] if before else metadata.get("uid", str(uuid.uuid4()))
        self.objects[resource, namespace, name] = kept
        return copy.deepcopy(kept)


def _too_large(document: Document) -> tuple[int, Document] | None:
    """Refuse what the real one refuses to keep: a Secret's or ConfigMap's data above MAX_DATA."""
    scale = 3 / 4 if document.get("kind") == "Secret" else 1
    size = sum(len(value) for value in document.get("data", {}).values()) * scale
    size += sum(len(value) for value in document.get("binaryData", {}).values()) * 3 / 4
    if size <= MAX_DATA:
        return None
    return _status(422, "Invalid", f"data: Too long: may not be more than {MAX_DATA} bytes")


def _merge(target: Any, changes: Any) -> Any:
    """Merge as RFC 7386 says: null removes, objects merge, all else replaces."""
    if not isinstance(changes, dict):
        return copy.deepcopy(changes)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _status(code: int, reason: str, message: str) -> tuple[int, Document]:
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _handler(kube: KubeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if kube.silent is not None:
                kube.silent.wait(self.timeout)
                self.close_connection = True
                return
            if kube.answer_with is not None:
                status, content = kube.answer_with
            else:
                status, document = kube.handle(self.command, self.path, self.headers.get("Authorization"), body)
                content = json.dumps(document).encode()
            if any(self.command == verb and f"/{resource}" in self.path for verb, resource in kube.lost):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent: a test looks at `calls`."""

    return Handler


def _self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-server of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(ski, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    (directory / "kube-ca.crt").write_bytes(pem)
    pair = directory / "kube-server.pem"
    pair.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    return pair
