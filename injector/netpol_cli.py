"""The command `remora netpol`: NetworkPolicies from the policies of a mesh, and whether existing ones say the same.

Exit codes: 0 done, or nothing found; 1 `verify` found something; 2 wrong usage, or input that cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.inject_cli import complain
from injector.inputs import BadInput, read_files
from injector.mesh import Mesh
from injector.mesh_inputs import add_mesh_options, mesh_of, settings_of, sources_of
from injector.mesh_policies import read_policies
from injector.netpol import Options, generate
from injector.netpol_read import read_network_policies
from injector.netpol_verify import verify
from injector.readers import namespace as namespace_name
from injector.yaml_text import dump
from proxy.errors import ConfigError
from proxy.policy.model import PolicySet

EXIT_FOUND: Final = 1

_ONLY_KNOWN: Final = "only pods of these manifests are judged: of others in the cluster nothing is known here"

_GENERATE: Final = """\
Write NetworkPolicies that say at layers 3 and 4 what the AuthorizationPolicies of a mesh say: nothing by default in
both directions, DNS, the way to the authority, and exactly the flows that some request may take. What only a sidecar
can judge (methods, paths, headers, tokens) leaves a flow open, and is named on standard error.
"""
_VERIFY: Final = """\
Compare existing NetworkPolicies with the policies of a mesh. Holes are open and no mesh policy allows them, whatever is
asked; missing ways are allowed and closed; dead rules open nothing. Each with its line and the mend.
"""
_EXAMPLES: Final = """\
examples:
  remora netpol generate -f manifests/ -p policies/ | kubectl apply -f -
  remora netpol verify -f manifests/ -p policies/ --network-policies networkpolicies.yaml
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    mesh: Mesh
    policies: PolicySet
    options: Options
    manifests: Mapping[str, bytes]


def main(argv: Sequence[str]) -> int:
    """Run the command with the words after `remora netpol`."""
    options = _parser().parse_args(argv)
    try:
        inputs = _inputs(options)
        return _verify(inputs, options) if options.command == "verify" else _generate(inputs)
    except BadInput as fault:
        return complain("netpol", fault)
    except ConfigError as error:
        return complain("netpol", BadInput(str(error)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remora netpol", description="NetworkPolicies beside the policies of a mesh.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, whole in (
        ("generate", "write them", _GENERATE),
        ("verify", "look whether existing ones say what the mesh says", _VERIFY),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=whole,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_options(command)
        if name == "verify":
            command.add_argument(
                "--network-policies",
                action="append",
                default=[],
                metavar="FILE",
                help="a file or directory with them, or - (repeat it; default: those among the manifests)",
            )
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    add_mesh_options(command)
    add = command.add_argument
    add(
        "-p",
        "--policies",
        action="append",
        default=[],
        metavar="FILE",
        help="mesh policies: a file, a directory or - (repeat it); those among the manifests count too",
    )
    add("--only", action="append", default=[], metavar="NAMESPACE", help="these namespaces alone (repeat it)")
    add("--dns-namespace", default="kube-system", metavar="NAMESPACE", help="where DNS answers (default kube-system)")
    add(
        "--dns-labels",
        default="k8s-app=kube-dns",
        metavar="KEY=VALUE,...",
        help="of the pods of DNS (default k8s-app=kube-dns)",
    )
    add(
        "--metrics-from",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help=f"whose pods may scrape the sidecars' port {names.HEALTH_PORT} (repeat it; default: nobody)",
    )


def _inputs(options: argparse.Namespace) -> _Inputs:
    if [*options.files, *options.policies, *getattr(options, "network_policies", ())].count("-") > 1:
        raise BadInput("- stands twice: standard input can be read once")
    manifests = dict(read_files(options.files))
    wanted = Options(
        dns_namespace=_namespace("--dns-namespace", options.dns_namespace),
        dns_labels=_labels(options.dns_labels),
        own_namespace=options.own_namespace,
        metrics_from=tuple(_namespace("--metrics-from", name) for name in options.metrics_from),
        namespaces=tuple(_namespace("--only", name) for name in options.only),
    )
    mesh = mesh_of(options, sources_of(manifests), settings_of(options))
    files = dict(read_files(options.policies))
    twice = sorted(set(files) & set(manifests))
    if twice:
        raise BadInput(f"{twice[0]} stands with -f and with -p: policies among manifests are read anyway")
    policies, warnings = read_policies(files, manifests, namespace=options.namespace)
    for warning in warnings:
        sys.stderr.write(f"{warning}\n")
    if not mesh.sidecar_namespaces:
        raise BadInput(
            f"no pod in these manifests has a sidecar: ask for some by the label {names.INJECT}, or give --unasked"
        )
    return _Inputs(mesh=mesh, policies=policies, options=wanted, manifests=manifests)


def _generate(inputs: _Inputs) -> int:
    result = generate(inputs.mesh, inputs.policies, inputs.options)
    for note in result.notes:
        sys.stderr.write(f"{note}\n")
    sys.stdout.write("---\n".join(dump(document) for document in result.documents))
    return 0


def _verify(inputs: _Inputs, options: argparse.Namespace) -> int:
    files = dict(read_files(options.network_policies)) if options.network_policies else inputs.manifests
    existing = read_network_policies(files, options.namespace)
    verified = verify(inputs.mesh, inputs.policies, existing, inputs.options)
    for note in verified.notes:
        sys.stderr.write(f"{note}\n")
    sys.stderr.write(f"{_ONLY_KNOWN}\n")
    for finding in verified.findings:
        sys.stdout.write(f"{finding}\n")
    found = len(verified.findings)
    count = "1 NetworkPolicy" if len(existing) == 1 else f"{len(existing)} NetworkPolicies"
    sys.stderr.write(f"{count}, {found or 'no'} finding{'' if found == 1 else 's'}\n")
    return EXIT_FOUND if found else 0


def _namespace(option: str, name: str) -> str:
    try:
        return namespace_name(name)
    except ValueError as fault:
        raise BadInput(f"{option} {name!r}: {fault}") from None


def _labels(text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not key or not equals:
            raise BadInput(f"--dns-labels {text!r}: write labels such as k8s-app=kube-dns, by commas")
        found[key] = value
    return found
