"""The command `remora services`: what sidecars may call, from the manifests of a mesh, as ConfigMaps for them to mount.

Exit codes: 0 done, 2 wrong usage or manifests that cannot be read. What the manifests do not say is named on standard
error and is no failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from injector import names
from injector.inputs import EXIT_BAD_INPUT, BadInput
from injector.mesh_inputs import add_mesh_options, mesh_of, read_sources, settings_of
from injector.services import CLUSTER_DOMAIN, ServicesResult, generate
from injector.yaml_text import dump
from proxy.config_text import TextError, parse_host
from proxy.errors import ConfigError

_DESCRIPTION: Final = f"""\
Write the services of a mesh for its sidecars: hosts, cluster addresses, endpoints, protocols, and the identities that
may answer. Printed is one ConfigMap {names.SERVICES} for each namespace with sidecars, which mount and watch it.

Pods have a sidecar when they were injected, or when the label {names.INJECT} of pod or namespace asks for one. What
the manifests do not say (who answers for a Service without a selector, an address that the cluster gives) is left
out and named on standard error: a call to it is refused.
"""

_EXAMPLES: Final = """\
examples:
  remora inject -f shop.yaml | remora services generate -f - > services.yaml
  remora services generate -f manifests/ --into shop --into pay | kubectl apply -f -
  kubectl get namespaces,serviceaccounts,services,deployments,statefulsets,daemonsets,pods -A -o yaml \\
    | remora services generate -f - | kubectl apply -f -
"""


def main(argv: Sequence[str]) -> int:
    """Run the command with the words after `remora services`; gives 0, or 2 for input that cannot be read."""
    options = _parser().parse_args(argv)
    try:
        result = _generate(options)
    except BadInput as fault:
        for line in str(fault).splitlines():
            sys.stderr.write(f"remora services: {line}\n")
        return EXIT_BAD_INPUT
    for note in result.notes:
        sys.stderr.write(f"{note}\n")
    if not result.documents:
        sys.stderr.write(
            f"remora services: no pod in these manifests has a sidecar; ask for some by the label {names.INJECT}, or "
            "name the namespaces with --into\n"
        )
    sys.stdout.write("---\n".join(dump(document) for document in result.documents))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remora services", description="What sidecars may call, from manifests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    generate_parser = commands.add_parser(
        "generate",
        help=f"write the ConfigMaps {names.SERVICES}",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_mesh_options(generate_parser)
    generate_parser.add_argument(
        "--cluster-domain", default=CLUSTER_DOMAIN, metavar="NAME", help=f"of DNS names (default {CLUSTER_DOMAIN})"
    )
    generate_parser.add_argument(
        "--into",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="write for this namespace (repeat it) instead of for each one with sidecars",
    )
    return parser


def _generate(options: argparse.Namespace) -> ServicesResult:
    try:
        cluster_domain = parse_host(options.cluster_domain).removesuffix(".")
    except TextError as error:
        raise BadInput(f"--cluster-domain: {error}; {error.hint}") from None
    defaults = settings_of(options)
    mesh = mesh_of(options, read_sources(options.files), defaults)
    try:
        return generate(
            mesh,
            cluster_domain=cluster_domain,
            into=options.into,
            config_map=defaults.services_config_map,
        )
    except ConfigError as error:
        raise BadInput(str(error)) from None
