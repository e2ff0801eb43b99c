"""Which files a configuration is: the file itself, and the directories that it names for what changes by itself.

    main        the file of --config
    pod         workload.directory: what Kubernetes' downward API says of the pod, one file for each fact
    services    outbound.directory: files with services, as `remora services generate` writes them

All of them are judged as one, so that a sidecar never runs with half of a change. They go to worker processes as they
were read (`pack`), so that every process judges the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.documents import Node, parse, shown
from proxy.errors import Fault

POD_FILES: Final = ("name", "namespace", "labels", "service_account")
"""What is read of `workload.directory`; the last may be missing, since the downward API has no such file in volumes."""

_PACKED: Final = b"\0"
"""What a packed configuration begins with; no YAML file may."""
_LABEL = re.compile(r'([A-Za-z0-9](?:[A-Za-z0-9._/-]{0,315}[A-Za-z0-9])?)="([A-Za-z0-9._-]{0,63})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFiles:
    """The bytes of a configuration: `pod` by the file's name, `services` by path; None for a directory not read."""

    main: bytes
    pod: Mapping[str, bytes] | None = None
    services: Mapping[str, bytes] | None = None

    def pack(self) -> bytes:
        """Write all of it as one; a configuration of one file is that file."""
        if self.pod is None and self.services is None and not self.main.startswith(_PACKED):
            return self.main
        whole = {"main": _text(self.main), "pod": _texts(self.pod), "services": _texts(self.services)}
        return _PACKED + json.dumps(whole).encode()

    @classmethod
    def unpack(cls, data: bytes) -> ConfigFiles:
        """Read what `pack` wrote.

        >>> files = ConfigFiles(main=b"a: 1", pod={"name": b"web-1"})
        >>> ConfigFiles.unpack(files.pack()) == files
        True
        """
        if not data.startswith(_PACKED):
            return cls(main=data)
        whole = json.loads(data[len(_PACKED) :])
        return cls(main=base64.b64decode(whole["main"]), pod=_bytes(whole["pod"]), services=_bytes(whole["services"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What the downward API says of a pod; `service_account` is "" where it does not."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    service_account: str = ""


def directories(main: bytes, file: str) -> tuple[str, str]:
    """Give `workload.directory` and `outbound.directory`, "" for one that is not there. Faults are for others to find.

    >>> directories(b"workload: {directory: /etc/remora/pod}", "remora.yaml")
    ('/etc/remora/pod', '')
    """
    if b"directory" not in main:
        return "", ""
    documents, _ = parse(main, file)
    root = documents[0] if documents else None
    return _directory(root, "workload"), _directory(root, "outbound")


def pod_facts(files: Mapping[str, bytes], directory: str) -> tuple[PodFacts, list[Fault]]:
    """Read the files of the downward API; gives the facts and what is wrong with them."""
    faults: list[Fault] = []
    name = _word(files, directory, "name", faults)
    namespace = _word(files, directory, "namespace", faults)
    account = _word(files, directory, "service_account", faults) if "service_account" in files else ""
    labels: dict[str, str] = {}
    path = f"{directory}/labels"
    if "labels" not in files:
        faults.append(Fault(file=path, message="the file is missing", hint="mount metadata.labels there"))
    for number, line in enumerate(files.get("labels", b"").decode("utf-8", "replace").splitlines(), 1):
        match = _LABEL.fullmatch(line)
        if match is None:
            message = f"{shown(line)!r} is no label"
            hint = 'write key="value", as the downward API does'
            faults.append(Fault(file=path, line=number, column=1, message=message, hint=hint))
        else:
            labels[match[1]] = match[2]
    return PodFacts(name=name, namespace=namespace, labels=labels, service_account=account), faults


def _word(files: Mapping[str, bytes], directory: str, name: str, faults: list[Fault]) -> str:
    path = f"{directory}/{name}"
    if name not in files:
        faults.append(Fault(file=path, message="the file is missing", hint=f"mount metadata.{name} there"))
        return ""
    text = files[name].decode("utf-8", "replace").strip()
    if not text or len(text) > 253 or not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", text):
        message = f"{shown(text)!r} is no name of Kubernetes"
        faults.append(Fault(file=path, line=1, column=1, message=message, hint="mount the downward API there"))
        return ""
    return text


def _directory(root: Node | None, section: str) -> str:
    if root is None or not isinstance(root.value, dict):
        return ""
    part = root.value.get(section)
    node = part.value.get("directory") if part is not None and isinstance(part.value, dict) else None
    return node.value if node is not None and isinstance(node.value, str) else ""


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _texts(files: Mapping[str, bytes] | None) -> dict[str, str] | None:
    return None if files is None else {name: _text(content) for name, content in files.items()}


def _bytes(files: Mapping[str, str] | None) -> dict[str, bytes] | None:
    return None if files is None else {name: base64.b64decode(content) for name, content in files.items()}
