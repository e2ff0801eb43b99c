"""Whether the control plane works: webhook, its certificate, what runs, what sidecars mount. Judgments, no calls."""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certs.store import read_chain
from injector import names
from injector.certificate import CHAIN, LEAF_LIFETIME, RENEW_AT, dns_names
from injector.check import Finding, counted, fail, listed, ok, warn
from injector.install.plan import Plan
from injector.install.webhook import webhook as webhook_of
from injector.values import mapping, mappings

APPLY: Final = "apply what `remora install` prints"
OVERDUE: Final = LEAF_LIFETIME * RENEW_AT
"""What is left of a webhook's certificate when the injector renews it."""
ROOT_WARN: Final = datetime.timedelta(days=30)
"""Before the end of a root. Its successor has to be in every trust bundle before it signs."""


SAID: Final = "in a pod of the authority: remora authority "


def webhook(found: Mapping[str, object] | None, namespace: str) -> Iterator[Finding]:
    """Judge the webhook configuration against the one that is installed."""
    name = "webhook"
    if found is None:
        yield fail(name, f"there is no MutatingWebhookConfiguration {names.INJECTOR}", APPLY)
        return
    entries = {str(entry.get("name")): entry for entry in mappings(found.get("webhooks"))}
    installed = mappings(webhook_of(Plan(namespace=namespace, image="")).get("webhooks"))
    wanted = {str(entry["name"]): entry for entry in installed}
    for missing in sorted(wanted.keys() - entries.keys()):
        yield fail(name, f"the webhook configuration {names.INJECTOR} lacks the entry {missing}", APPLY)
    sound = True
    for shown in sorted(wanted.keys() & entries.keys()):
        entry = entries[shown]
        client = mapping(entry.get("clientConfig"))
        ours, theirs = (mapping(mapping(each.get("clientConfig")).get("service")) for each in (wanted[shown], entry))
        different = [key for key in ("name", "namespace", "path") if ours.get(key) != theirs.get(key)]
        if different:
            sound = False
            said = ", ".join(f"{key} {theirs.get(key)}" for key in different)
            yield fail(name, f"the webhook entry {shown} calls another place: {said}", APPLY)
        if not client.get("caBundle"):
            sound = False
            yield fail(
                name,
                f"the webhook entry {shown} has no caBundle, so the API server believes no answer",
                f"the injector writes it: kubectl -n {namespace} logs deployment/{names.INJECTOR}",
            )
        if entry.get("failurePolicy", "Fail") != "Fail":
            yield warn(
                name,
                f"the webhook entry {shown} has failurePolicy Ignore: while no injector answers, pods start without "
                "a sidecar",
                "install with --failure-policy Fail",
            )
    if sound and wanted.keys() <= entries.keys():
        yield ok(name, f"the webhook configuration {names.INJECTOR} has both entries, each with a caBundle")


def webhook_certificate(
    found: Mapping[str, object] | None, secret: Mapping[str, object] | None, namespace: str, now: datetime.datetime
) -> Iterator[Finding]:
    """Judge the webhook's certificate: whether the API server, by the caBundle, believes what the injector shows."""
    name = "webhook-certificate"
    log = f"kubectl -n {namespace} logs deployment/{names.INJECTOR}"
    if secret is None:
        yield fail(name, f"there is no Secret {names.INJECTOR_TLS}: the injector made no certificate", log)
        return
    leaves = _certificates(_decoded(mapping(secret.get("data")).get(CHAIN)))
    if not leaves:
        yield fail(
            name,
            f"{CHAIN} in the Secret {names.INJECTOR_TLS} holds no certificate",
            f"kubectl -n {namespace} delete secret {names.INJECTOR_TLS}: the injector makes it anew",
        )
        return
    leaf = leaves[0]
    sound = True
    wanted = dns_names(names.INJECTOR, namespace)[0]
    if wanted not in _dns(leaf):
        sound = False
        yield fail(
            name,
            f"the webhook's certificate is for {listed(_dns(leaf)) or 'no name'}, not for {wanted}",
            f"kubectl -n {namespace} delete secret {names.INJECTOR_TLS}: the injector makes it anew",
        )
    for entry in mappings({} if found is None else found.get("webhooks")):
        roots = _certificates(_decoded(mapping(entry.get("clientConfig")).get("caBundle")))
        if not any(_has_signed(root, leaf) and _holds(root, now) for root in roots):
            sound = False
            yield fail(
                name,
                f"the caBundle of the webhook entry {entry.get('name')} does not verify the injector's certificate",
                f"the injector writes it within a minute, or says why not: {log}",
            )
    left = leaf.not_valid_after_utc - now
    if not _holds(leaf, now):
        yield fail(name, f"the webhook's certificate ended or begins later ({_span(leaf)})", log)
    elif left < OVERDUE - datetime.timedelta(days=1):
        yield warn(
            name, f"the webhook's certificate ends in {counted(left.days, 'day')} and should have been renewed", log
        )
    elif sound:
        yield ok(name, f"the webhook's certificate is for {wanted} and has {counted(left.days, 'day')} left")


def endpoints(slices: Sequence[Mapping[str, object]], service: str, namespace: str) -> Finding:
    """Judge the EndpointSlices of a Service of ours."""
    ready = 0
    for each in slices:
        for endpoint in mappings(each.get("endpoints")):
            # The API leaves `ready` out where it is not known, and says to take that for true.
            if mapping(endpoint.get("conditions")).get("ready", True) is True:
                ready += len(_list(endpoint.get("addresses")))
    if ready:
        return ok("endpoints", f"the Service {service} has {counted(ready, 'ready endpoint')}")
    return fail(
        "endpoints",
        f"the Service {service} has no ready endpoint",
        f"kubectl -n {namespace} describe pods -l app.kubernetes.io/name={service}",
    )


def deployment(found: Mapping[str, object] | None, name: str, namespace: str) -> Finding:
    """Judge a Deployment of the control plane."""
    if found is None:
        return fail("deployments", f"there is no Deployment {name} in {namespace}", APPLY)
    wanted, ready = mapping(found.get("spec")).get("replicas", 1), mapping(found.get("status")).get("readyReplicas", 0)
    wanted = wanted if isinstance(wanted, int) else 1
    ready = ready if isinstance(ready, int) else 0
    what = f"Deployment {name}: {ready} of {counted(wanted, 'replica')} ready"
    mend = f"kubectl -n {namespace} describe pods -l app.kubernetes.io/name={name}"
    if ready == 0:
        return fail(
            "deployments", what, mend if wanted else f"kubectl -n {namespace} scale deployment {name} --replicas 2"
        )
    if ready < wanted:
        return warn("deployments", what, mend)
    if wanted == 1:
        return warn("deployments", f"{what}: a node that goes takes it along", "install with --replicas 2")
    return ok("deployments", what)


def disruption_budget(found: Mapping[str, object] | None, name: str, namespace: str) -> Finding:
    """Judge a PodDisruptionBudget of the control plane."""
    if found is None:
        return warn(
            "disruption-budgets", f"there is no PodDisruptionBudget {name}: a drain may take every replica", APPLY
        )
    if mapping(found.get("status")).get("disruptionsAllowed", 0) == 0:
        return warn(
            "disruption-budgets",
            f"PodDisruptionBudget {name} allows no disruption now: a drain of its node waits",
            f"kubectl -n {namespace} get pods -l app.kubernetes.io/name={name}",
        )
    return ok("disruption-budgets", f"PodDisruptionBudget {name} lets nodes be drained")


def trust_bundle(found: Mapping[str, object] | None, namespace: str, now: datetime.datetime) -> Iterator[Finding]:
    """Judge the trust bundle that injected pods begin with."""
    name = "trust-bundle"
    log = f"kubectl -n {namespace} logs deployment/{names.AUTHORITY}"
    if found is None:
        yield fail(name, f"there is no ConfigMap {names.TRUST_BUNDLE_MAP}: the authority keeps it", log)
        return
    roots = _certificates(str(mapping(found.get("data")).get(names.BUNDLE_NAME, "")).encode())
    held = [root for root in roots if _holds(root, now)]
    if not held:
        said = "holds no certificate" if not roots else f"has only roots that ended or begin later ({_span(roots[0])})"
        yield fail(name, f"{names.BUNDLE_NAME} in the ConfigMap {names.TRUST_BUNDLE_MAP} {said}", log)
        return
    ended = len(roots) - len(held)
    if ended:
        yield warn(
            name, f"{counted(ended, 'root')} of the trust bundle ended or begins later", "remora authority status"
        )
    last = max(root.not_valid_after_utc for root in held)
    what = f"the trust bundle has {counted(len(held), 'root')}, the last ends on {last:%Y-%m-%d}"
    if last - now < ROOT_WARN:
        yield warn(name, what, f"{SAID}rotate root")
    else:
        yield ok(name, what)


def config_map(found: Mapping[str, object] | None, name: str, namespace: str) -> Finding:
    """Judge a ConfigMap that the sidecars of a namespace mount."""
    if found is not None:
        return ok("config-maps", f"namespace {namespace} has the ConfigMap {name}")
    return warn(
        "config-maps",
        f"namespace {namespace} asks for sidecars and has no ConfigMap {name}, which they mount",
        f"remora install --mesh-namespace {namespace} | kubectl apply -f -",
    )


def images(deployments: Mapping[str, Mapping[str, object] | None], image: str | None) -> Iterator[Finding]:
    """Judge whether authority, injector and the sidecars of new pods have one image; `image` is that of sidecars."""
    found = {} if image is None else {"new sidecars": image}
    for name, deployed in deployments.items():
        template = mapping(mapping({} if deployed is None else deployed.get("spec")).get("template"))
        for container in mappings(mapping(template.get("spec")).get("containers"))[:1]:
            found[name] = str(container.get("image"))
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value}" for name, value in found.items())
        yield warn("images", f"images differ: {said}", f"{APPLY}, and restart the authority and the injector")
    elif found:
        yield ok("images", f"authority, injector and new sidecars have the image {next(iter(found.values()))}")


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(str(value or ""), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return read_chain(pem)
    except ValueError:
        return ()


def _dns(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return alternatives.get_values_for_type(x509.DNSName)


def _has_signed(root: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _holds(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _span(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
