"""Asks an API server what `remora check` judges. Reads alone, and one pod that is admitted and not kept (dryRun).

Whoever checks may be allowed less than whoever installs: a call that is refused becomes a line that names the right,
and the rest goes on. Only a server that does not answer, or takes us for nobody, ends the look.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

from certs.kube import KubeAnswer, KubeError
from injector import check_cluster, check_control, names
from injector.check import Finding, fail, ok, warn
from injector.check_pods import pods
from injector.check_rights import rights
from injector.defaults import read_defaults
from injector.install.plan import container_security, pod_security
from injector.install.webhook import YES
from injector.settings import Settings
from injector.values import Document, mapping, names_of
from proxy.errors import ConfigError

WEBHOOKS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
DEPLOYED: Final = (names.AUTHORITY, names.INJECTOR)


class Phase(enum.Enum):
    """Of the installation."""

    BEFORE = "before"
    AFTER = "after"


class Client(Protocol):
    """The calls that are made: `certs.kube.KubeClient`, or a cluster in memory."""

    def get(self, kind: str, namespace: str, name: str) -> dict[str, object] | None: ...
    def read(self, path: str) -> KubeAnswer: ...
    def read_all(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, object]]: ...
    def may(self, attributes: Mapping[str, str]) -> bool: ...
    def try_create(self, kind: str, namespace: str, document: Mapping[str, object]) -> dict[str, object]: ...


class Checkup:
    """One look at a cluster. `namespace` is that of the control plane; `clock` gives the time, aware of its zone.

    `planned` are the defaults that an installation would have; one that stands has its own in a ConfigMap.
    """

    def __init__(
        self, client: Client, *, namespace: str, planned: Settings, clock: Callable[[], datetime.datetime]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._settings = planned
        self._image: str | None = None
        self._found: list[Finding] = []
        self._namespaces: list[dict[str, object]] = []
        self._webhook: Mapping[str, object] | None = None
        self._may_see_webhook = False
        self._deployments: dict[str, Mapping[str, object] | None] = {}

    def look(self, phase: Phase | None) -> list[Finding]:
        """Look at everything; without a phase, by whether our webhook is there.

        Raises KubeError when the API server does not answer at all, or does not know us.
        """
        begin = self._clock()
        answer = self._client.read("/version")
        end = self._clock()
        self._ask("webhook", f"get the MutatingWebhookConfiguration {names.INJECTOR}", self._find_webhook)
        is_after = phase is Phase.AFTER or (phase is None and self._webhook is not None)
        if is_after:
            self._ask("defaults", f"get the ConfigMap {names.DEFAULTS} in {self._namespace}", self._defaults)
        # Judged by the defaults, and told before them: it says that there is an API server at all.
        self._found.insert(0, check_cluster.version(answer.document, self._settings))
        self._found.append(check_cluster.clock(answer.date, begin + (end - begin) / 2))
        self._ask("nodes", "list nodes", self._nodes)
        self._ask("namespaces", "list namespaces", self._look_at_namespaces)
        self._ask("other-meshes", "list mutatingwebhookconfigurations", self._other_meshes)
        if is_after:
            self._after()
        else:
            self._ask("rights", "create selfsubjectaccessreviews", lambda: rights(self._client.may, self._namespace))
        return self._found

    def _after(self) -> None:
        here, now = self._namespace, self._clock()
        if self._may_see_webhook:
            self._found += check_control.webhook(self._webhook, here)
        self._ask("webhook-certificate", f"get the Secret {names.INJECTOR_TLS} in {here}", self._certificate)
        for name in DEPLOYED:
            self._ask("deployments", f"get deployments in {here}", partial(self._deployment, name))
            self._ask("endpoints", f"list endpointslices in {here}", partial(self._endpoints, name))
            self._ask("disruption-budgets", f"get poddisruptionbudgets in {here}", partial(self._budget, name))
        self._found += check_control.images(self._deployments, self._image)
        self._ask(
            "trust-bundle",
            f"get the ConfigMap {names.TRUST_BUNDLE_MAP} in {here}",
            lambda: check_control.trust_bundle(self._client.get("ConfigMap", here, names.TRUST_BUNDLE_MAP), here, now),
        )
        asking = [each for each in self._namespaces if check_cluster.asks_for_sidecars(each)]
        for each in asking:
            self._look_at_namespace(each)
        self._ask("pods", "list pods in every namespace", lambda: self._pods_that_ask({_name(each) for each in asking}))
        place = _name(asking[0]) if asking else "default"
        self._ask("webhook-call", f"create pods in {place}", lambda: self._admission(place))

    def _ask(self, check: str, right: str, judge: Callable[[], Iterable[Finding]]) -> None:
        """Take the findings of a judgment that makes calls; `right` is what its calls need."""
        try:
            self._found += judge()
        except KubeError as error:
            if error.status in (0, 401):
                raise
            if error.status == 403:
                self._found.append(
                    warn(check, f"not looked at: we may not {right}", f"check as a user who may {right}")
                )
            else:
                self._found.append(warn(check, f"not looked at: {error}", "look into the API server's log"))

    def _find_webhook(self) -> Iterable[Finding]:
        self._webhook = self._client.get("MutatingWebhookConfiguration", "", names.INJECTOR)
        self._may_see_webhook = True
        return ()

    def _defaults(self) -> Iterable[Finding]:
        found = self._client.get("ConfigMap", self._namespace, names.DEFAULTS)
        if found is None:
            yield fail("defaults", f"there is no ConfigMap {names.DEFAULTS} in {self._namespace}", check_control.APPLY)
            return
        text = str(mapping(found.get("data")).get(names.DEFAULTS_FILE, ""))
        try:
            self._settings = read_defaults(text.encode(), f"{names.DEFAULTS}/{names.DEFAULTS_FILE}")
        except ConfigError as error:
            mend = "correct that line: until then the injector keeps the defaults of before"
            for fault in error.faults:
                yield fail("defaults", str(fault), mend)
            return
        self._image = self._settings.image
        yield ok("defaults", f"the ConfigMap {names.DEFAULTS} can be read")

    def _nodes(self) -> Iterable[Finding]:
        return check_cluster.nodes(list(self._client.read_all("/api/v1/nodes")), self._settings)

    def _look_at_namespaces(self) -> Iterable[Finding]:
        self._namespaces = list(self._client.read_all("/api/v1/namespaces"))
        return check_cluster.namespaces(self._namespaces, self._settings)

    def _other_meshes(self) -> Iterable[Finding]:
        return check_cluster.other_meshes(list(self._client.read_all(WEBHOOKS)))

    def _certificate(self) -> Iterable[Finding]:
        secret = self._client.get("Secret", self._namespace, names.INJECTOR_TLS)
        return check_control.webhook_certificate(self._webhook, secret, self._namespace, self._clock())

    def _deployment(self, name: str) -> Iterable[Finding]:
        found = self._maybe_read(f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{name}")
        self._deployments[name] = found
        yield check_control.deployment(found, name, self._namespace)

    def _endpoints(self, name: str) -> Iterable[Finding]:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        slices = list(self._client.read_all(path, {"labelSelector": f"kubernetes.io/service-name={name}"}))
        yield check_control.endpoints(slices, name, self._namespace)

    def _budget(self, name: str) -> Iterable[Finding]:
        found = self._maybe_read(f"/apis/policy/v1/namespaces/{self._namespace}/poddisruptionbudgets/{name}")
        yield check_control.disruption_budget(found, name, self._namespace)

    def _look_at_namespace(self, namespace: Mapping[str, object]) -> None:
        name = _name(namespace)
        for wanted in (self._settings.policy_config_map, self._settings.services_config_map):
            self._ask("config-maps", f"get the ConfigMap {wanted} in {name}", partial(self._config_map, wanted, name))
        labels = mapping(mapping(namespace.get("metadata")).get("labels"))
        self._ask(
            "pods",
            f"list pods in {name}",
            lambda: self._pods(list(self._client.read_all(f"/api/v1/namespaces/{name}/pods")), name, labels),
        )

    def _config_map(self, wanted: str, namespace: str) -> Iterable[Finding]:
        yield check_control.config_map(self._client.get("ConfigMap", namespace, wanted), wanted, namespace)

    def _pods_that_ask(self, seen: set[str]) -> Iterable[Finding]:
        """Judge pods that ask for a sidecar themselves, where their namespace does not."""
        by_namespace: dict[str, list[Mapping[str, object]]] = {}
        query = {"labelSelector": f"{names.INJECT} in ({','.join(YES)})"}
        for pod in self._client.read_all("/api/v1/pods", query):
            namespace = str(mapping(pod.get("metadata")).get("namespace", ""))
            if namespace not in seen:
                by_namespace.setdefault(namespace, []).append(pod)
        for namespace, found in sorted(by_namespace.items()):
            yield from self._pods(found, namespace, {})

    def _pods(
        self, found: list[Mapping[str, object]], namespace: str, labels: Mapping[str, object]
    ) -> Iterable[Finding]:
        return pods(found, namespace=namespace, labels=labels, own_namespace=self._namespace, image=self._image)

    def _admission(self, namespace: str) -> Iterable[Finding]:
        """Have a pod admitted, which is not kept: whether the API server reaches the webhook, only it can tell."""
        check = "webhook-call"
        try:
            admitted = self._client.try_create("Pod", namespace, _probe(self._settings))
        except KubeError as error:
            said = error.said
            if error.status in (0, 401) or "cannot create resource" in said:
                raise
            logs = f"kubectl -n {self._namespace} logs deployment/{names.INJECTOR}"
            if "failed calling webhook" in said:
                mend = f"look at the lines above, and whether API servers reach pods in {self._namespace}"
                yield fail(check, f"the API server cannot call the webhook: {said}", mend)
            elif "injector.remora.io" in said:
                yield fail(check, f"the injector refuses a pod for trial in {namespace}: {said}", logs)
            elif "PodSecurity" in said:
                mend = f"set {names.PREFIX}capture: ports on its pods, or capture: ports in the defaults"
                yield fail(check, f"a pod with a sidecar is refused in {namespace}: {said}", mend)
            else:
                yield warn(
                    check, f"a pod for trial is refused in {namespace}: {said or error}", "look at what refuses it"
                )
            return
        spec = mapping(admitted.get("spec"))
        if names.PROXY in (*names_of(spec.get("containers")), *names_of(spec.get("initContainers"))):
            yield ok(check, f"the API server calls the webhook: a pod for trial in {namespace} got its sidecar")
        else:
            yield fail(
                check,
                f"a pod for trial in {namespace} got no sidecar",
                f"kubectl -n {self._namespace} logs deployment/{names.INJECTOR}",
            )

    def _maybe_read(self, path: str) -> dict[str, object] | None:
        try:
            return self._client.read(path).document
        except KubeError as error:
            if error.status == 404:
                return None
            raise


def _probe(settings: Settings) -> Document:
    """Make a pod that every pod security level allows, and that asks for a sidecar."""
    container: Document = {
        "name": "app",
        "image": settings.image,
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
        # Not our own user, as which no application may run.
        "securityContext": {**container_security(), "runAsUser": 1000, "runAsGroup": 1000},
    }
    security = {**pod_security(), "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "remora-check-", "labels": {names.INJECT: "enabled"}},
        "spec": {"automountServiceAccountToken": False, "securityContext": security, "containers": [container]},
    }


def _name(document: Mapping[str, object]) -> str:
    return str(mapping(document.get("metadata")).get("name", ""))
