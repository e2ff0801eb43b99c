"""The options that `remora install` and `remora uninstall` share, and the plan that they make.

Both commands take the same words, so that what one printed the other can take away again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from injector import names
from injector.annotations import value_text
from injector.defaults import as_document
from injector.inputs import BadInput, defaults_of
from injector.install.plan import Plan
from injector.readers import image as image_reference
from injector.readers import integer, namespace, trust_domain, word
from injector.settings import Settings

FAILURE_POLICIES: Final = ("Fail", "Ignore")
OWN_KEYS: Final = ("trust-domain", "authority", "authority-identity")
"""Of the defaults file: the installation itself decides them."""
MAX_REPLICAS: Final = 9

_PULL_POLICIES: Final = ("IfNotPresent", "Always", "Never")


def plan_parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a command with the options that say what is installed."""
    parser = argparse.ArgumentParser(
        prog=f"remora {command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "-n",
        "--namespace",
        default=names.NAMESPACE,
        help=f"of the control plane, made if need be (default {names.NAMESPACE})",
    )
    add(
        "--mesh-namespace",
        dest="mesh_namespaces",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="print the ConfigMaps too that sidecars of this namespace mount: STRICT mutual TLS, nobody allowed, no "
        "service (repeat it; the first time only: it puts policies back to this)",
    )
    add("--image", metavar="REF", help=f"of control plane and sidecars (default {value_text(Settings().image)})")
    add("--image-pull-policy", metavar="POLICY", help=f"{', '.join(_PULL_POLICIES)} (default {_PULL_POLICIES[0]})")
    add("--trust-domain", default="cluster.local", metavar="NAME", help="of all identities (default cluster.local)")
    add("--replicas", default="2", metavar="N", help="of authority and of injector (default 2)")
    add(
        "--failure-policy",
        choices=FAILURE_POLICIES,
        default="Fail",
        help="while no injector answers, pods that want a sidecar wait (Fail, the default) or start without (Ignore)",
    )
    add(
        "--metrics-from",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="whose pods may scrape authority and injector (repeat it; default: nobody)",
    )
    add(
        "--defaults", type=Path, metavar="FILE", help="lines for the ConfigMap of defaults (`remora inject --defaults`)"
    )
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """Make the plan. Raises BadInput with every fault, a line each."""
    faults: list[str] = []
    defaults = _defaults(options.defaults, faults)
    # Of an option and a line of the file, the option wins.
    image = defaults.pop("image", value_text(Settings().image))
    pull_policy = defaults.pop("image-pull-policy", _PULL_POLICIES[0])
    image = image if options.image is None else options.image
    pull_policy = pull_policy if options.image_pull_policy is None else options.image_pull_policy
    for option, read, values in (
        ("--namespace", namespace, [options.namespace]),
        ("--mesh-namespace", namespace, options.mesh_namespaces),
        ("--metrics-from", namespace, options.metrics_from),
        ("--image", image_reference, [image]),
        ("--image-pull-policy", word(*_PULL_POLICIES), [pull_policy]),
        ("--trust-domain", trust_domain, [options.trust_domain]),
        ("--replicas", integer(1, MAX_REPLICAS), [options.replicas]),
    ):
        faults += _faults(option, read, values)
    if options.namespace in names.NEVER:
        faults.append(f"--namespace {options.namespace} belongs to Kubernetes; give the control plane its own")
    for name in options.mesh_namespaces:
        if name in (*names.NEVER, options.namespace):
            faults.append(f"--mesh-namespace {name}: its pods never get a sidecar; name namespaces of applications")
    if faults:
        raise BadInput("\n".join(faults))
    return Plan(
        namespace=options.namespace,
        image=image,
        image_pull_policy=pull_policy,
        trust_domain=options.trust_domain,
        replicas=int(options.replicas),
        failure_policy=options.failure_policy,
        mesh_namespaces=tuple(dict.fromkeys(options.mesh_namespaces)),
        metrics_from=tuple(dict.fromkeys(options.metrics_from)),
        defaults=tuple(defaults.items()),
    )


def _defaults(path: Path | None, faults: list[str]) -> dict[str, str]:
    try:
        defaults = as_document(defaults_of(path))
    except BadInput as error:
        faults.append(str(error))
        return {}
    for key in OWN_KEYS:
        if key in defaults:
            faults.append(f"{path}: `{key}` is decided by the installation; use --trust-domain and --namespace")
    return defaults


def _faults(option: str, read: Callable[[str], object], values: Sequence[str]) -> Iterator[str]:
    for value in values:
        try:
            read(value)
        except ValueError as fault:
            yield f"{option} {value!r}: {fault}"
