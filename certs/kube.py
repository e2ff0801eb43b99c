"""Talks to the Kubernetes API server: the few calls that authority and injector need, synchronous, for a thread.

One connection for each call: they are rare (a renewal a day for each sidecar, a Lease every two seconds), and none
can be found dead. Redirects are not followed, so the token goes to the configured server and nowhere else. It is read
from its file before each call, because the kubelet replaces it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_ANSWER: Final = 4 * 1024 * 1024
"""A Secret or ConfigMap holds at most 1 MiB, a third more in base64; beyond this it is no answer for us."""

PAGE: Final = 50
"""Members of a collection that are asked for at once: injected pods of 80 KiB each still fit MAX_ANSWER."""

DEFAULT_TIMEOUT: Final = 10.0
"""For each step of the network. Above the API server's ordinary second, below a Lease's duration."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_COLLECTIONS: Final = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
}
_CLUSTER_WIDE: Final = {
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}
_MENDS: Final = {
    401: "check that the token file holds a token of this cluster for the API server",
    403: "give our ServiceAccount this verb on this resource in its Role",
    404: "check the name and the namespace, and that the API is served by this cluster",
    409: "read the object again and write the change anew",
    422: "check the object against the API's schema",
    429: "wait and try again",
}


class KubeError(Exception):
    """A call that failed: `status` is HTTP's, 0 when there was no answer; `reason` is Kubernetes' word for it.

    `said` is the API server's sentence. It is not always in the message, because it may quote the object.
    """

    def __init__(self, status: int, reason: str, what: str, mend: str, said: str = "") -> None:
        super().__init__(f"{what}; {mend}")
        self.status = status
        self.reason = reason
        self.mend = mend
        self.said = said


class KubeConflict(KubeError):
    """Somebody else wrote first (another resourceVersion) or made the object already: read again, then decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeServer:
    """Where the API server is and how we prove ourselves; `ca_file` None means the system's roots."""

    url: str
    token_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    ca: str | None = None
    """The roots as PEM, instead of a file."""
    certificate: str | None = field(default=None, repr=False)
    """A client certificate and its key as PEM, one after the other: how a kubeconfig may prove its user."""
    timeout: float = DEFAULT_TIMEOUT
    user_agent: str = "remora-authority"


def in_cluster(environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> KubeServer:
    """Finds the API server as a pod sees it. Raises KubeError outside of a pod.

    >>> in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}).url
    'https://[fd00::1]:443'
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeError(
            0,
            "NotInCluster",
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set",
            "run in a pod, or give the API server's address",
        )
    shown = f"[{host}]" if ":" in host else host
    return KubeServer(url=f"https://{shown}:{port}", token_file=directory / "token", ca_file=directory / "ca.crt")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeAnswer:
    """What a path answered: the document, and the header `Date`, by which its clock can be held against ours."""

    document: dict[str, object]
    date: str | None


class KubeClient:
    """Calls one API server. Every method may raise KubeError; a get answers None where there is no such object.

    Objects are JSON documents as the API has them. `update` needs the resourceVersion that was read in its metadata
    and raises KubeConflict when the object changed meanwhile; `create` does when it exists. Blocks: call it from a
    thread. May be used by several threads.

    >>> KubeClient(KubeServer(url="http://192.0.2.1"))
    Traceback (most recent call last):
    certs.kube.KubeError: http://192.0.2.1 is no address of an API server; write https://<host>:<port>
    """

    def __init__(self, server: KubeServer) -> None:
        try:
            parts = urllib.parse.urlsplit(server.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urllib.parse.SplitResult("", "", "", "", "")
        plain = parts.scheme == "http" and host in ("127.0.0.1", "::1")
        # Without TLS the token would be read on the way; only a proxy on this very machine may be spoken to so.
        if (
            not host
            or (parts.scheme != "https" and not plain)
            or parts.path.strip("/")
            or parts.query
            or "@" in parts[1]
        ):
            shown = server.url if "@" not in server.url else "the given URL"
            raise KubeError(0, "BadAddress", f"{shown} is no address of an API server", "write https://<host>:<port>")
        self._server, self._host, self._plain = server, host, plain
        self._port = port or (80 if plain else 443)

    def create_token_review(self, review: Mapping[str, object]) -> dict[str, object]:
        """Has a token judged (certs.callers.tokenreview makes the document and reads the answer)."""
        return self._call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None:
        """Reads an object; None when there is none (404). `namespace` is "" for a kind that has none."""
        try:
            return self._call("GET", f"{_collection(kind, namespace)}/{_name(name)}")
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def get_pod(self, namespace: str, name: str) -> dict[str, object] | None:
        """Reads a Pod; None when there is none."""
        return self.get("Pod", namespace, name)

    def create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]:
        """Makes a Secret, ConfigMap or Lease and returns it with its resourceVersion."""
        return self._call("POST", _collection(kind, namespace), document)

    def try_create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]:
        """Has an object admitted and returns it as it would be kept; nothing is kept (dryRun=All)."""
        return self._call("POST", f"{_collection(kind, namespace)}?dryRun=All", document)

    def read(self, path: str) -> KubeAnswer:
        """Reads a path of the API, such as /version; the caller answers for what it is made of."""
        return self._answer("GET", path, None)

    def read_all(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, object]]:
        """Reads the members of a collection, PAGE at a time; `query` may have a labelSelector."""
        wanted = {**(query or {}), "limit": str(PAGE)}
        while True:
            document = self._call("GET", f"{path}?{urllib.parse.urlencode(wanted)}")
            items, metadata = document.get("items"), document.get("metadata")
            yield from (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
            token = metadata.get("continue") if isinstance(metadata, dict) else None
            if not token:
                return
            wanted["continue"] = str(token)

    def may(self, attributes: Mapping[str, str]) -> bool:
        """Asks whether we may do something (SelfSubjectAccessReview; `attributes` are its resourceAttributes)."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": dict(attributes)},
        }
        answer = self._call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        status = answer.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    def update(self, kind: str, namespace: str, name: str, document: Mapping[str, object]) -> dict[str, object]:
        """Replaces an object (`namespace` as for `get`).

        A document without resourceVersion is refused here: it would overwrite blindly.
        """
        metadata = document.get("metadata")
        if not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
            raise KubeError(
                0, "NoResourceVersion", f"{kind} {name} has no resourceVersion to replace", "read it before writing it"
            )
        return self._call("PUT", f"{_collection(kind, namespace)}/{_name(name)}", document)

    def patch(self, kind: str, namespace: str, name: str, changes: Mapping[str, object]) -> dict[str, object]:
        """Merges changes into an object (RFC 7386); metadata.resourceVersion among them makes it conditional."""
        return self._call("PATCH", f"{_collection(kind, namespace)}/{_name(name)}", changes)

    def delete(self, kind: str, namespace: str, name: str) -> bool:
        """Removes a Secret or ConfigMap; False when there was none."""
        try:
            self._call("DELETE", f"{_collection(kind, namespace)}/{_name(name)}")
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    def discovery(self) -> dict[str, object]:
        """Reads the OIDC discovery document of the cluster; its `issuer` is what tokens name."""
        return self._call("GET", "/.well-known/openid-configuration")

    def jwks(self) -> bytes:
        """Reads the cluster's public keys, for certs.callers.oidc.parse_keys."""
        return self._exchange("GET", "/openid/v1/jwks", None)[0]

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        return self._answer(method, path, body).document

    def _answer(self, method: str, path: str, body: Mapping[str, object] | None) -> KubeAnswer:
        content, date = self._exchange(method, path, body)
        try:
            document: object = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise KubeError(
                0, "BadAnswer", f"{method} {path}: the answer is no JSON object", f"check that {self._server.url} is it"
            )
        return KubeAnswer(document=document, date=date)

    def _exchange(self, method: str, path: str, body: Mapping[str, object] | None) -> tuple[bytes, str | None]:
        headers = {"Accept": "application/json", "User-Agent": self._server.user_agent}
        token = self._token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = self._connection()
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER + 1)
        except ssl.SSLCertVerificationError as error:
            raise KubeError(
                0,
                "CertificateRefused",
                f"{method} {path}: the certificate of {self._server.url} is not good ({error.verify_message})",
                "give the cluster's own CA file",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise KubeError(
                0,
                "Unreachable",
                f"{method} {path}: no answer from {self._server.url} ({type(error).__name__})",
                "check the address, the network policy, and that the API server runs",
            ) from None
        finally:
            connection.close()
        if len(content) > MAX_ANSWER:
            raise KubeError(
                answer.status, "TooLarge", f"{method} {path}: the answer is over {MAX_ANSWER} bytes", "make it smaller"
            )
        if not 200 <= answer.status < 300:
            raise _error(answer.status, content, f"{method} {path}")
        return content, answer.headers.get("Date")

    def _token(self) -> str | None:
        file = self._server.token_file
        if file is None:
            return self._server.token
        try:
            token = file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise KubeError(
                0, "NoToken", f"{file}: the token cannot be read ({type(error).__name__})", "mount the token there"
            ) from None
        if not token or not token.isprintable():
            raise KubeError(0, "NoToken", f"{file}: it holds no token", "mount the token there")
        return token

    def _connection(self) -> http.client.HTTPConnection:
        timeout = self._server.timeout
        if self._plain:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        file = self._server.ca_file
        try:
            context = ssl.create_default_context(cafile=file, cadata=self._server.ca)
        except (OSError, ssl.SSLError) as error:
            raise KubeError(
                0,
                "NoRoots",
                f"{file or 'the given roots'}: no CA certificate can be read ({type(error).__name__})",
                "mount the cluster's CA" if file else "give the cluster's CA as PEM",
            ) from None
        if self._server.certificate is not None:
            _show_certificate(context, self._server.certificate)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)


def _show_certificate(context: ssl.SSLContext, pem: str) -> None:
    # The ssl module reads a key from a file alone; this one only we may read, and it is gone at once.
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name, password=lambda: "")
    except (OSError, ssl.SSLError, UnicodeEncodeError) as error:
        raise KubeError(
            0,
            "BadClientCertificate",
            f"the client certificate and its key cannot be used ({type(error).__name__})",
            "check that they are PEM, belong together, and that the key has no passphrase",
        ) from None


def _collection(kind: str, namespace: str) -> str:
    if kind in _CLUSTER_WIDE:
        return _CLUSTER_WIDE[kind]
    if kind not in _COLLECTIONS:
        raise KubeError(
            0,
            "BadKind",
            f"{kind[:60]!r} is no kind that is used here",
            f"use {', '.join((*_COLLECTIONS, *_CLUSTER_WIDE))}",
        )
    return _COLLECTIONS[kind].format(_name(namespace))


def _name(name: str) -> str:
    # A name becomes part of a path: a slash or two dots in it would read another object.
    if not _NAME.fullmatch(name) or ".." in name:
        raise KubeError(0, "BadName", f"{name[:60]!r} is no name in Kubernetes", "use a-z 0-9 - and single dots")
    return name


def _error(status: int, content: bytes, what: str) -> KubeError:
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    members = document if isinstance(document, dict) and document.get("kind") == "Status" else {}
    reason, message = str(members.get("reason", "")), str(members.get("message", ""))
    # A complaint about the object itself (400, 422) may quote what is in it: a Secret, or a token under review.
    said = _printable(message)
    told = f" ({said})" if message and status in (401, 403, 404, 409, 429) else ""
    made = KubeConflict if status == 409 else KubeError
    mend = _MENDS.get(status, "look into the API server's log")
    return made(status, _printable(reason) or "Unknown", f"{what}: the API server answers {status}{told}", mend, said)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])
