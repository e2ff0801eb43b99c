"""The command `remora inject`: manifests in, the same manifests with sidecars out, a report on standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from injector import names
from injector.doors import Report, World, inject_manifest
from injector.inputs import EXIT_BAD_INPUT, EXIT_REFUSED, BadInput, add_files, bundle_of, defaults_of, read_parts

DESCRIPTION = (
    "Put the sidecar into every pod of the manifests: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, "
    "ReplicationController, Job, CronJob. Everything else passes as it is, byte for byte. What was done, or why not, "
    "and what would go round the sidecar, is said on standard error."
)


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, 1 when a pod is refused (nothing is printed then), 2 for input that cannot be read."""
    parser = argparse.ArgumentParser(prog="remora inject", description=DESCRIPTION)
    add_files(parser)
    parser.add_argument(
        "--defaults", type=Path, metavar="FILE", help="the defaults file (`remora injector annotations`)"
    )
    parser.add_argument(
        "--trust-bundle", type=Path, metavar="FILE", help="roots (PEM) by which the authority is believed"
    )
    parser.add_argument("-n", "--namespace", default="default", help="of objects that do not say (default: default)")
    parser.add_argument(
        "--own-namespace",
        default=names.NAMESPACE,
        help=f"of the control plane, never injected (default {names.NAMESPACE})",
    )
    options = parser.parse_args(argv)
    try:
        defaults = defaults_of(options.defaults)
        bundle = bundle_of(options.trust_bundle, defaults.trust_domain)
        parts = read_parts(options.files)
    except BadInput as fault:
        return complain("inject", fault)
    world = World(defaults=defaults, trust_bundle=bundle, own_namespace=options.own_namespace)
    return show("inject", *inject_manifest(parts, world, namespace=options.namespace))


def complain(command: str, fault: BadInput) -> int:
    """Write what cannot be read, a line each, and give the exit code."""
    for line in str(fault).splitlines():
        sys.stderr.write(f"remora {command}: {line}\n")
    return EXIT_BAD_INPUT


def show(command: str, text: str, report: Report) -> int:
    """Write report and manifest, and give the exit code. A manifest with a refused pod is not written at all."""
    for line in report.lines:
        sys.stderr.write(f"{line}\n")
    if report.is_refused:
        sys.stderr.write(f"remora {command}: nothing is printed, because a pod was refused\n")
        return EXIT_REFUSED
    if not report.lines:
        sys.stderr.write(f"remora {command}: there is no pod in these manifests\n")
    sys.stdout.write(text)
    return 0
