"""The names of what Remora puts into pods and clusters, each written once.

Kubernetes finds things by name: a pod names a ConfigMap, a webhook names a Service, a policy names a label. Whoever
prints one of them and whoever looks for it later take it from here.
"""

from __future__ import annotations

from typing import Final

# --- in a pod --------------------------------------------------------------------------------------------------------

PREFIX: Final = "remora.io/"
"""Of every label and annotation that is ours."""
INJECT: Final = "remora.io/inject"
"""Label of a pod or namespace, annotation of a pod: `enabled` (`true`) or `disabled` (`false`)."""
STATUS: Final = "remora.io/status"
"""Annotation of an injected pod: the record of what was added, from which it can be taken out again."""
CONFIG: Final = "remora.io/sidecar-config"
"""Annotation of an injected pod: the sidecar's configuration file, which the downward API mounts."""
TRUST_BUNDLE: Final = "remora.io/trust-bundle"
"""Annotation of an injected pod: the roots (PEM) that the sidecar believes until the authority gave its own."""

PROXY: Final = "remora-proxy"
"""The sidecar's container, native or plain."""
CAPTURE: Final = "remora-capture"
"""The init container that sets the capture rules."""

VOLUME_POD: Final = "remora-pod"
VOLUME_TOKEN: Final = "remora-token"  # noqa: S105
VOLUME_POLICY: Final = "remora-policy"
VOLUME_SERVICES: Final = "remora-services"

POD_DIRECTORY: Final = "/etc/remora/pod"
"""The downward API: files `name`, `namespace`, `labels`, `config.yaml`, `bundle.pem`."""
CONFIG_FILE: Final = "/etc/remora/pod/config.yaml"
BUNDLE_FILE: Final = "/etc/remora/pod/bundle.pem"
POLICY_DIRECTORY: Final = "/etc/remora/policy"
SERVICES_DIRECTORY: Final = "/etc/remora/services"
TOKEN_FILE: Final = "/var/run/secrets/remora/token"  # noqa: S105

USER: Final = 1337
"""uid and gid of the sidecar, by the field's convention; no application may run as it."""
ADMIN_PORT: Final = 15000
OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
HEALTH_PORT: Final = 15020
"""Health, merged metrics and rewritten probes."""
MESH_PORT: Final = 15443
"""Without capture: where the sidecar listens for the lowest port of the pod; the next port has the next number."""
CAPTURE_TABLE: Final = "remora"
"""The nftables table of the capture rules."""
CAPTURE_CHAINS: Final = "REMORA_"
"""Begins the names of the iptables chains of the capture rules."""
CAPTURE_MARK: Final = 1337
"""Firewall mark of a connection that is to be treated as the sidecar's own: by it the capture step, which cannot become
the sidecar's user, tries its rules. Setting a mark needs NET_ADMIN."""

# --- in a cluster ----------------------------------------------------------------------------------------------------

NAMESPACE: Final = "remora-system"
AUTHORITY: Final = "remora-authority"
"""Deployment, Service, ServiceAccount, Role of the authority."""
AUTHORITY_PORT: Final = 8443
INJECTOR: Final = "remora-injector"
"""Deployment, Service, ServiceAccount, Role, MutatingWebhookConfiguration of the injector."""
INJECTOR_PORT: Final = 8443
"""Of the container; the Service has 443, which API servers call."""
INJECTOR_PATH: Final = "/inject"
CONTROL_HEALTH_PORT: Final = 15020
"""Of authority and injector: /livez, /readyz, /metrics."""
INJECTOR_TLS: Final = "remora-injector-tls"
"""Secret with the webhook's own authority and certificate: ca.crt, ca.key, tls.crt, tls.key."""
AUTHORITY_KEYS: Final = "remora-authority-passphrase"
"""Secret with the passphrase that seals the authority's keys."""
DEFAULTS: Final = "remora-defaults"
"""ConfigMap of what pods get where no annotation says otherwise."""
DEFAULTS_FILE: Final = "defaults.yaml"
"""Its key."""
POLICY: Final = "remora-policy"
"""ConfigMap with policy files, in every namespace with sidecars."""
SERVICES: Final = "remora-services"
"""ConfigMap with `services.yaml`, in every namespace with sidecars."""
SERVICES_FILE: Final = "services.yaml"
"""Its key."""
TRUST_BUNDLE_MAP: Final = "remora-trust-bundle"
"""ConfigMap with `bundle.pem`, which the authority keeps and the injector reads."""
BUNDLE_NAME: Final = "bundle.pem"
"""Its key, and the file's name in pods."""

NEVER: Final = ("kube-system", "kube-public", "kube-node-lease")
"""Namespaces whose pods are never injected, whatever they say; our own is another."""
