"""Whether a cluster can carry a mesh: versions, clock, nodes, namespaces, other meshes. Judgments alone, no calls."""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from injector import names
from injector.check import Finding, counted, fail, listed, ok, warn
from injector.install.webhook import YES
from injector.settings import Capture, Settings
from injector.values import mapping, mappings

Version = tuple[int, int]

NATIVE_SIDECARS: Final[Version] = (1, 29)
"""The first with init containers that stay (on unasked: the feature gate SidecarContainers is beta)."""
OLDEST: Final[Version] = (1, 21)
"""The first with EndpointSlices, PodDisruptionBudgets of policy/v1 and the name as a label of each namespace."""
NEWEST: Final[Version] = (1, 37)
"""The last against whose schemas everything that is printed was held."""

CLOCK_WARN: Final = datetime.timedelta(seconds=5)
CLOCK_FAIL: Final = datetime.timedelta(seconds=60)
"""Certificates are dated back by minutes, tokens by seconds: beyond a minute something is refused somewhere."""

OLDEST_KERNEL: Final[Version] = (4, 17)
"""The first whose nf_tables can redirect as the capture rules do. Pods use the node's kernel."""

ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_FORBIDDING: Final = ("baseline", "restricted")
"""Levels that do not allow NET_ADMIN, without which no init container can set capture rules."""

_MESHES: Final = {
    "istio": "Istio",
    "linkerd": "Linkerd",
    "consul": "Consul",
    "kuma": "Kuma",
    "openservicemesh": "Open Service Mesh",
}
_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\D|\Z)")


def version(document: Mapping[str, object], settings: Settings) -> Finding:
    """Judge what /version answers."""
    text = str(document.get("gitVersion", ""))
    found = version_of(text)
    name = "version"
    if found is None:
        return warn(name, f"the API server says {text!r} for its version", "check that it is a Kubernetes API server")
    what = f"the API server answers, Kubernetes {text}"
    if found < OLDEST:
        return fail(name, f"{what}: older than {_shown(OLDEST)}", f"update the cluster to {_shown(NATIVE_SIDECARS)}")
    if found < NATIVE_SIDECARS and settings.native_sidecar:
        return fail(
            name,
            f"{what}: it has no native sidecars, they came with {_shown(NATIVE_SIDECARS)}",
            "write `native-sidecar: false` into a file and give it to `remora install --defaults`",
        )
    if found > NEWEST:
        return warn(
            name,
            f"{what}: newer than {_shown(NEWEST)}, the last that was tried",
            "try it with one namespace first, and look for a newer remora",
        )
    return ok(name, what)


def version_of(text: str) -> Version | None:
    """Read major and minor of a version; None when it is none.

    >>> version_of("v1.31.4-gke.1372000")
    (1, 31)
    """
    match = _VERSION.match(text)
    return None if match is None else (int(match[1]), int(match[2]))


def clock(date: str | None, now: datetime.datetime) -> Finding:
    """Judge the header `Date` of an answer against our clock; `now` is the middle of the call."""
    try:
        theirs = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return warn("clock", "the API server does not say its time", "compare the clocks of the nodes by hand")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=datetime.UTC)
    # The header has whole seconds, cut off: half a second later is the best guess.
    skew = theirs + datetime.timedelta(milliseconds=500) - now
    seconds = abs(skew).total_seconds()
    if abs(skew) <= CLOCK_WARN:
        return ok("clock", f"the API server's clock and ours differ by {seconds:.0f} s")
    what = f"the API server's clock is {seconds:.0f} s {'ahead of' if skew > CLOCK_WARN else 'behind'} ours"
    mend = "run a time service (chrony, systemd-timesyncd) here and on every node"
    return (fail if abs(skew) > CLOCK_FAIL else warn)("clock", what, mend)


def nodes(found: Sequence[Mapping[str, object]], settings: Settings) -> Iterator[Finding]:
    """Judge nodes: their systems, kernels and kubelets."""
    windows, kernels, kubelets = [], [], []
    for node in found:
        name = _name(node)
        facts = mapping(mapping(node.get("status")).get("nodeInfo"))
        if facts.get("operatingSystem") == "windows":
            windows.append(name)
            continue
        kernel = str(facts.get("kernelVersion", ""))
        if (version_of(kernel) or OLDEST_KERNEL) < OLDEST_KERNEL:
            kernels.append(f"{name} ({kernel})")
        kubelet = str(facts.get("kubeletVersion", ""))
        if (version_of(kubelet) or NATIVE_SIDECARS) < NATIVE_SIDECARS:
            kubelets.append(f"{name} ({kubelet})")
    if windows:
        yield warn(
            "nodes",
            f"{counted(len(windows), 'node')} with Windows: {listed(windows)}; pods there get no sidecar",
            "keep what needs the mesh on Linux (nodeSelector kubernetes.io/os: linux)",
        )
    if kernels and settings.capture is Capture.REDIRECT:
        yield warn(
            "nodes",
            f"{counted(len(kernels), 'node')} with a kernel before {_shown(OLDEST_KERNEL)}: {listed(kernels)}; "
            "capture rules may not work there",
            f"give these nodes a newer kernel, or set {names.PREFIX}capture: ports",
        )
    if kubelets and settings.native_sidecar:
        yield fail(
            "nodes",
            f"{counted(len(kubelets), 'node')} with a kubelet before {_shown(NATIVE_SIDECARS)}: {listed(kubelets)}; "
            "no native sidecar runs there",
            "update them, or set `native-sidecar: false` in the defaults",
        )
    if found and not windows and not kernels and not kubelets:
        yield ok("nodes", f"{counted(len(found), 'node')}, all with Linux and a kernel that can capture")


def asks_for_sidecars(namespace: Mapping[str, object]) -> bool:
    """Say whether a namespace has the label by which its pods get sidecars."""
    return _labels(namespace).get(names.INJECT) in YES and _name(namespace) not in names.NEVER


def namespaces(found: Sequence[Mapping[str, object]], settings: Settings) -> Iterator[Finding]:
    """Judge namespaces: which ask for sidecars, and whether their pod security level lets the pods start."""
    for namespace in found:
        name, labels = _name(namespace), _labels(namespace)
        if name in names.NEVER and labels.get(names.INJECT) in YES:
            yield warn(
                "namespaces",
                f"namespace {name} has the label {names.INJECT}, and its pods never get a sidecar",
                f"kubectl label namespace {name} {names.INJECT}-",
            )
        level = labels.get(ENFORCE)
        if not asks_for_sidecars(namespace):
            continue
        if level in _FORBIDDING and settings.capture is Capture.REDIRECT:
            yield warn(
                "namespaces",
                f"namespace {name} asks for sidecars, and its pod security level {level} forbids the NET_ADMIN of "
                "their capture step",
                f"set {names.PREFIX}capture: ports on its pods, or capture: ports in the defaults",
            )
        else:
            yield ok("namespaces", f"namespace {name} asks for sidecars, and its pod security level allows them")
    if not any(asks_for_sidecars(namespace) for namespace in found):
        yield warn(
            "namespaces",
            "no namespace asks for sidecars",
            f"kubectl label namespace NAME {names.INJECT}=enabled",
        )


def other_meshes(webhooks: Sequence[Mapping[str, object]]) -> Iterator[Finding]:
    """Name other meshes that put sidecars into pods, by their webhook configurations."""
    found = []
    for configuration in webhooks:
        texts = [_name(configuration), *(str(entry.get("name")) for entry in mappings(configuration.get("webhooks")))]
        for word, mesh in _MESHES.items():
            if any(word in text for text in texts):
                found.append((mesh, _name(configuration)))
                break
    for mesh, name in found:
        yield warn(
            "other-meshes",
            f"{mesh} is here too: its webhook {name} puts sidecars into pods",
            "let no namespace ask for both: two sidecars in one pod capture from each other",
        )
    if not found:
        yield ok("other-meshes", "no other mesh puts sidecars into pods")


def _name(document: Mapping[str, object]) -> str:
    return str(mapping(document.get("metadata")).get("name", ""))


def _labels(document: Mapping[str, object]) -> Mapping[str, object]:
    return mapping(mapping(document.get("metadata")).get("labels"))


def _shown(found: Version) -> str:
    return f"{found[0]}.{found[1]}"
