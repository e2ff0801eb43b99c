"""Puts a sidecar into a pod, and takes it out: values in, values out, nothing changed in place.

A pod or the template of a workload is a pair of metadata and spec. What cannot be injected right is refused with every
reason at once; what would go round the sidecar is a warning. `record` remembers enough for the exact inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from injector import names, sidecar
from injector.bypass import ways_round
from injector.ports import SIDECAR_PORTS, declared, mesh_ports
from injector.probes import ProbeError, rewrite
from injector.record import ABSENT, LISTS, Record, annotations_before, covered, read_record, take_out
from injector.settings import Capture, Settings
from injector.sidecar_config import Performed, pod_ports, sidecar_config
from injector.values import Document, mapping, mappings
from injector.yaml_text import dump
from proxy.documents import shown

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
SCRAPE, PORT, PATH, SCHEME = (f"prometheus.io/{word}" for word in ("scrape", "port", "path", "scheme"))
BATCH = ("Job", "CronJob")
DEFAULT_GRACE = 30
"""terminationGracePeriodSeconds of a pod that does not say."""


class InjectError(ValueError):
    """A pod that cannot have a sidecar as it is: a sentence for each reason."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """A pod with its sidecar, and what its author should know."""

    metadata: Document
    spec: Document
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """What is collected on the way through a pod's containers and annotations."""

    probes: list[Document] = field(default_factory=list)
    actions: dict[str, Mapping[str, object]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def inject_pod(
    metadata: object,
    spec: Mapping[str, object],
    *,
    settings: Settings,
    trust_bundle: str | None = None,
    owner_kind: str = "Pod",
) -> Injected:
    """Put the sidecar into a pod that has none; its metadata may be null or none at all (`record.ABSENT`).

    `trust_bundle` is PEM: the roots by which the authority is believed the first time; None when whoever injects does
    not know them. `owner_kind` is the kind of the manifest, for Jobs. Raises InjectError.
    """
    work = _Work()
    work.faults += _misshapen(metadata, spec)
    work.faults += _clashes(spec, settings)
    containers = {kind: _containers(spec, kind, settings, work) for kind in ("initContainers", "containers")}
    metrics = _metrics(mapping(mapping(metadata).get("annotations")), spec, settings, work)
    if work.faults:
        raise InjectError(tuple(work.faults))
    if trust_bundle is None:
        work.warnings.append(
            "no trust bundle is known: the sidecar does not believe its authority until the annotation "
            f"{names.TRUST_BUNDLE} is set; give --trust-bundle"
        )
    work.warnings += _grace(spec, settings)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    ends_with_job = owner_kind in BATCH and not settings.native_sidecar
    if ends_with_job:
        work.warnings.append(
            "a Job with a plain sidecar ends when its container calls POST "
            f"http://127.0.0.1:{names.HEALTH_PORT}/quitquitquit at its end; a native sidecar ends by itself"
        )
    performed = Performed(probes=tuple(work.probes), metrics=metrics, ends_with_job=ends_with_job)
    config = sidecar_config(settings, spec, str(account), performed)
    made = _spec_after(spec, containers, settings)
    added = _annotations(metadata, spec, dump(config), trust_bundle, settings)
    record = _record(metadata, spec, settings, added, work.actions)
    return Injected(
        metadata=_metadata_after(metadata, {**added, names.STATUS: record.text()}),
        spec=made,
        warnings=tuple(dict.fromkeys((*work.warnings, *ways_round(spec, settings)))),
    )


def uninject_pod(metadata: object, spec: Mapping[str, object]) -> tuple[object, Document] | None:
    """Take the sidecar out of a pod; None when it has none. Raises RecordError for a record that is none.

    Gives the metadata as it was (a mapping, None for null, `record.ABSENT` for none) and the spec.
    """
    known = mapping(metadata)
    record = read_record(mapping(known.get("annotations")))
    return None if record is None else take_out(known, spec, record)


def _grace(spec: Mapping[str, object], settings: Settings) -> Iterator[str]:
    seconds = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
    needed = sidecar.DRAIN_DELAY + settings.drain_timeout
    if isinstance(seconds, int) and seconds < needed:
        yield (
            f"terminationGracePeriodSeconds {seconds} is less than the {needed:.0f} s in which the sidecar drains: "
            f"what still runs then is cut; raise it, or lower {names.PREFIX}drain-timeout"
        )


def _misshapen(metadata: object, spec: Mapping[str, object]) -> Iterator[str]:
    """Name what no API server takes and no record could bring back."""
    if metadata not in (None, ABSENT) and not isinstance(metadata, Mapping):
        yield "metadata is no mapping: write keys and values"
    if not isinstance(mapping(metadata).get("annotations"), Mapping | None):
        yield "metadata.annotations is no mapping: write keys and values"
    for kind in LISTS:
        if not isinstance(spec.get(kind), list | None):
            yield f"spec.{kind} is no list: write its items with a dash"
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        whole = spec.get(kind)
        for place, container in enumerate(whole if isinstance(whole, list) else []):
            name = mapping(container).get("name")
            if not isinstance(name, str) or not name:
                yield f"spec.{kind}[{place}] has no name: give it one"
            elif name in seen:
                yield f"two containers have the name {shown(name)}: rename one"
            else:
                seen.add(name)


def _clashes(spec: Mapping[str, object], settings: Settings) -> Iterator[str]:
    ours = {str(volume["name"]) for volume in sidecar.volumes(settings)}
    for volume in mappings(spec.get("volumes")):
        if str(volume.get("name")) in ours:
            yield f"a volume has the name {volume['name']}, which the sidecar's has: rename it"
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in mappings(spec.get(kind)):
            if container.get("name") in (names.PROXY, names.CAPTURE):
                yield f"a container has the name {container['name']}, which the sidecar's has: rename it"
    taken = set(SIDECAR_PORTS)
    for port in declared(spec):
        if port.number in taken and port.protocol == "TCP":
            yield (
                f"container {port.container} listens on port {port.number}, which the sidecar needs: "
                "choose another port"
            )
    for number in settings.inbound_ports:
        if number in taken:
            yield f"{names.PREFIX}inbound-ports names {number}, which the sidecar needs: choose another port"
    if settings.capture is Capture.PORTS:
        listens = {*SIDECAR_PORTS, *mesh_ports(pod_ports(settings, spec)).values(), *pod_ports(settings, spec)}
        for service, number in settings.outbound_listeners.items():
            if number in listens:
                yield (
                    f"{names.PREFIX}outbound-listeners gives {shown(service)} the port {number}, which the pod uses "
                    "already: choose another port"
                )


def _containers(spec: Mapping[str, object], kind: str, settings: Settings, work: _Work) -> list[object]:
    made: list[object] = []
    whole = spec.get(kind)
    for container in whole if isinstance(whole, list) else []:
        is_app = isinstance(container, Mapping) and (kind == "containers" or container.get("restartPolicy") == "Always")
        if not is_app or not settings.rewrite_probes:
            made.append(container)
            continue
        try:
            rewritten = rewrite(container)
        except ProbeError as fault:
            work.faults.append(str(fault))
            continue
        work.probes += rewritten.probes
        work.warnings += rewritten.warnings
        if rewritten.before is None:
            made.append(container)
        else:
            made.append(rewritten.container)
            work.actions[str(container.get("name", ""))] = rewritten.before
    return made


def _spec_after(spec: Mapping[str, object], containers: Mapping[str, list[object]], settings: Settings) -> Document:
    first: list[object] = [sidecar.capture(settings)] if settings.capture is Capture.REDIRECT else []
    beside: list[object] = []
    # Native: before the pod's own init containers, which may then call out by it. Plain: before the application, so
    # that its postStart hook holds the application back.
    (first if settings.native_sidecar else beside).append(sidecar.proxy(settings))
    made = dict(spec)
    if first or isinstance(spec.get("initContainers"), list):
        made["initContainers"] = [*first, *containers["initContainers"]]
    made["containers"] = [*beside, *containers["containers"]]
    volumes = spec.get("volumes")
    made["volumes"] = [*(volumes if isinstance(volumes, list) else []), *sidecar.volumes(settings)]
    return made


def _annotations(
    metadata: object,
    spec: Mapping[str, object],
    config: str,
    trust_bundle: str | None,
    settings: Settings,
) -> dict[str, str]:
    """Give the annotations to set, but the record."""
    before = mapping(mapping(metadata).get("annotations"))
    made = {names.CONFIG: config}
    if trust_bundle is not None:
        made[names.TRUST_BUNDLE] = trust_bundle
    application = mappings(spec.get("containers"))
    if DEFAULT_CONTAINER not in before and application:
        made[DEFAULT_CONTAINER] = str(application[0].get("name", ""))
    if settings.merge_metrics and str(before.get(SCRAPE, "true")).lower() == "true":
        made |= {SCRAPE: "true", PORT: str(names.HEALTH_PORT), PATH: "/metrics"}
        if SCHEME in before:
            made[SCHEME] = "http"
    return {key: value for key, value in made.items() if before.get(key) != value}


def _metrics(
    annotations: Mapping[str, object], spec: Mapping[str, object], settings: Settings, work: _Work
) -> Document | None:
    """Give where the application's own metrics are, by the annotations that name them; None when nothing does."""
    if not settings.merge_metrics or str(annotations.get(SCRAPE, "")).lower() != "true":
        return None
    written = annotations.get(PORT)
    if written is None:
        declares = [port.number for port in declared(spec) if port.protocol == "TCP"]
        if not declares:
            work.warnings.append(
                f"{SCRAPE} is true and no port is known: name one by {PORT}; only the sidecar is scraped"
            )
            return None
        port = declares[0]
    else:
        text = str(written)
        if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= 65_535):
            work.faults.append(
                f"the annotation {PORT} is {shown(repr(written))}: write a port from 1 to 65535, in quotes"
            )
            return None
        port = int(text)
    if port in SIDECAR_PORTS:
        return None
    made: Document = {"port": port, "path": str(annotations.get(PATH) or "/metrics")}
    if str(annotations.get(SCHEME, "")).lower() == "https":
        made["scheme"] = "https"
    return made


def _record(
    metadata: object,
    spec: Mapping[str, object],
    settings: Settings,
    added: Mapping[str, str],
    actions: Mapping[str, Mapping[str, object]],
) -> Record:
    known = mapping(mapping(metadata).get("annotations"))
    ours = [names.CAPTURE, names.PROXY] if settings.capture is Capture.REDIRECT else [names.PROXY]
    lists = {kind: spec.get(kind, ABSENT) for kind in LISTS if not spec.get(kind)}
    return Record(
        containers=tuple(ours),
        volumes=tuple(str(volume["name"]) for volume in sidecar.volumes(settings)),
        annotations=(*(key for key in added if key not in known), names.STATUS),
        covers=covered(spec),
        annotations_before={key: known[key] for key in added if key in known},
        actions=actions,
        lists=lists,
        metadata=annotations_before(metadata),
    )


def _metadata_after(metadata: object, added: Mapping[str, str]) -> Document:
    known = mapping(metadata)
    return {**known, "annotations": {**mapping(known.get("annotations")), **added}}
