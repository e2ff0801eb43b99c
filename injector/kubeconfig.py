"""A kubeconfig read as kubectl reads it: the address of a cluster, the roots to believe it by, what proves its user.

What would weaken the call or run another program is refused by name, with what to do instead: a check that talks to
whoever answers, or that starts programs named in a file, is not worth its answer.

Several files (KUBECONFIG) are one: of a name that stands twice, the first counts, and the first current context.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from certs.kube import KubeServer
from proxy.documents import Checker, Node, did_you_mean, parse, quoted
from proxy.errors import ConfigError

PROXY_MEND: Final = "run `kubectl proxy` and give --kube http://127.0.0.1:8001"
TOKEN_MEND: Final = (
    f"{PROXY_MEND}, or give --kube, --kube-ca-file, and by --kube-token-file what `kubectl create token` prints"
)
_REFUSED_OF_CLUSTERS: Final = {
    "proxy-url": PROXY_MEND,
    "tls-server-name": "name the server by a name of its certificate",
}
_REFUSED_OF_USERS: Final = {
    "exec": TOKEN_MEND,
    "auth-provider": TOKEN_MEND,
    "username": "API servers have taken no passwords since Kubernetes 1.19: use a token",
    "password": "API servers have taken no passwords since Kubernetes 1.19: use a token",
    "as": PROXY_MEND,
    "as-uid": PROXY_MEND,
    "as-groups": PROXY_MEND,
    "as-user-extra": PROXY_MEND,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A kubeconfig and its path, from which the files that it names are found."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A cluster, user or context: its members, where it stands, and how it is called in messages."""

    checker: Checker
    path: str
    at: Node
    fields: Mapping[str, Node]
    where: str


Load = Callable[[str, str], bytes]
"""Takes a kubeconfig's path and a file as it names it, relative to itself, and reads that; raises OSError."""


def read_kubeconfig(sources: Sequence[Source], context: str | None, load: Load) -> KubeServer:
    """Give how to call the API server of a context, None being the current one.

    Raises ConfigError with a line for each fault, of all that the context uses.

    >>> text = b"contexts: [{name: a, context: {cluster: c, user: u}}]\\ncurrent-context: a\\n"
    >>> read_kubeconfig([Source(path="config", data=text)], None, lambda path, name: b"")
    Traceback (most recent call last):
    proxy.errors.ConfigError: config:1:12: context "a" names the cluster "c", and there is none; add it under `clusters`
    config:1:12: context "a" names the user "u", and there is none; add it under `users`
    """
    files = [_File(source) for source in sources]
    faults = [fault for file in files for fault in file.checker.faults]
    if faults:
        raise ConfigError(faults)
    server = _server(files, context, load)
    faults = [fault for file in files for fault in file.checker.faults]
    if faults or server is None:
        raise ConfigError(faults)
    return server


class _File:
    """One kubeconfig with its named entries."""

    def __init__(self, source: Source) -> None:
        documents, faults = parse(source.data, source.path)
        self.path = source.path
        self.checker = Checker(source.path)
        self.checker.faults += faults
        if len(documents) > 1:
            self.checker.fault(documents[1], "a kubeconfig has one document", "join the documents")
        self.root = documents[0] if documents and documents[0].value is not None else None
        fields = self.checker.any_mapping(self.root, "the kubeconfig")
        self.current = self.checker.string(fields.get("current-context"), "current-context", may_be_empty=True)
        self.entries = {
            plural: dict(self._entries(fields.get(plural), plural, singular))
            for plural, singular in (("clusters", "cluster"), ("users", "user"), ("contexts", "context"))
        }

    def _entries(self, node: Node | None, plural: str, singular: str) -> Iterator[tuple[str, _Entry]]:
        if node is not None and node.value is None:
            return  # kubectl writes `contexts: null` where there is none
        for number, item in enumerate(self.checker.sequence(node, plural)):
            where = f"{plural}[{number}]"
            fields = self.checker.any_mapping(item, where)
            name = self.checker.string(fields.get("name"), f"{where}.name")
            if "name" not in fields:
                self.checker.fault(item, f"`{where}` lacks the key `name`")
                continue
            inner = fields.get(singular)
            # `user: {}` and `user:` are a user without any proof: an API server may take nobody.
            members = {} if inner is None or inner.value is None else self.checker.any_mapping(inner, where)
            shown = f"{singular} {quoted(name)}"
            yield name, _Entry(checker=self.checker, path=self.path, at=item, fields=members, where=shown)


def _server(files: Sequence[_File], context: str | None, load: Load) -> KubeServer | None:
    wanted = context or next((file.current for file in files if file.current), "")
    first = files[0]
    begin = first.root if first.root is not None else (1, 1)
    known = [name for file in files for name in file.entries["contexts"]]
    if not wanted:
        hint = f"give --context, one of {', '.join(known)}" if known else "give another file by --kubeconfig"
        first.checker.fault(begin, "there is no current-context", hint)
        return None
    chosen = _find(files, "contexts", wanted)
    if chosen is None:
        first.checker.fault(begin, f"there is no context {quoted(wanted)}", did_you_mean(wanted, known))
        return None
    cluster, user = _part(files, chosen, "cluster"), _part(files, chosen, "user")
    _refuse(cluster, _REFUSED_OF_CLUSTERS)
    _refuse(user, _REFUSED_OF_USERS)
    url, ca = ("", None) if cluster is None else _cluster(cluster, load)
    token, certificate = (None, None) if user is None else _user(user, load)
    return KubeServer(url=url, token=token, ca=ca, certificate=certificate)


def _find(files: Sequence[_File], plural: str, name: str) -> _Entry | None:
    return next((file.entries[plural][name] for file in files if name in file.entries[plural]), None)


def _part(files: Sequence[_File], context: _Entry, key: str) -> _Entry | None:
    name = context.checker.string(context.fields.get(key), f"{context.where}.{key}")
    if not name:
        context.checker.fault(context.at, f"{context.where} lacks the key `{key}`")
        return None
    found = _find(files, f"{key}s", name)
    if found is None:
        message = f"{context.where} names the {key} {quoted(name)}, and there is none"
        context.checker.fault(context.at, message, f"add it under `{key}s`")
    return found


def _refuse(entry: _Entry | None, refused: Mapping[str, str]) -> None:
    for key, mend in refused.items():
        if entry is not None and key in entry.fields:
            entry.checker.fault(entry.fields[key], f"`{key}` of {entry.where} is not supported", mend)


def _cluster(entry: _Entry, load: Load) -> tuple[str, str | None]:
    unchecked = entry.fields.get("insecure-skip-tls-verify")
    if entry.checker.boolean(unchecked, f"insecure-skip-tls-verify of {entry.where}") and unchecked is not None:
        entry.checker.fault(
            unchecked,
            f"`insecure-skip-tls-verify` of {entry.where} would show our token to whoever answers",
            "write the cluster's roots as `certificate-authority-data`",
        )
    if "server" not in entry.fields:
        entry.checker.fault(entry.at, f"{entry.where} lacks the key `server`")
    url = entry.checker.string(entry.fields.get("server"), f"server of {entry.where}").rstrip("/")
    return url, _pem(entry, "certificate-authority", load)


def _user(entry: _Entry, load: Load) -> tuple[str | None, str | None]:
    # As in client-go: of a file and a token, the file counts, because it is the one that is renewed.
    token = _text(entry, "tokenFile", load) or entry.checker.string(
        entry.fields.get("token"), f"token of {entry.where}"
    )
    certificate, key = _pem(entry, "client-certificate", load), _pem(entry, "client-key", load)
    if (certificate is None) != (key is None) and not entry.checker.faults:
        entry.checker.fault(entry.at, f"{entry.where} needs client-certificate and client-key, and has one of them")
    return token.strip() or None, f"{certificate}\n{key}" if certificate and key else None


def _pem(entry: _Entry, key: str, load: Load) -> str | None:
    """Take what stands in `KEY-data` as base64, or in the file that `KEY` names; the data counts, as in kubectl."""
    node = entry.fields.get(f"{key}-data", entry.fields.get(key))
    if node is None:
        return None
    if f"{key}-data" not in entry.fields:
        before = len(entry.checker.faults)
        text = _text(entry, key, load)
        # Nothing must not count as nothing said: the system's roots would be believed instead.
        if not text and len(entry.checker.faults) == before:
            entry.checker.fault(node, f"the file of `{key}` of {entry.where} is empty", "write the PEM into it")
        return text or None
    encoded = entry.checker.string(node, f"{key}-data of {entry.where}")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True).decode("ascii") or None
    except (binascii.Error, ValueError):
        message = f"`{key}-data` of {entry.where} is no PEM in base64"
        entry.checker.fault(node, message, f"write what `base64 -w0 FILE` prints, or name the file by `{key}`")
        return None


def _text(entry: _Entry, key: str, load: Load) -> str:
    """Take the text of the file that a key names, relative to the kubeconfig; "" without the key."""
    node = entry.fields.get(key)
    if node is None:
        return ""
    named = entry.checker.string(node, f"{key} of {entry.where}")
    try:
        return load(entry.path, named).decode("ascii") if named else ""
    except OSError as error:
        what = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        what = "it is no text"
    entry.checker.fault(node, f"`{key}` of {entry.where}: {named} cannot be read ({what})", "put the file there")
    return ""
