"""The command `remora check`: looks whether a cluster can have a mesh, and whether the mesh that it has works."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from certs.kube import KubeClient, KubeError, KubeServer
from injector import names
from injector.check import Finding, fails
from injector.check_run import Checkup, Phase
from injector.inject_cli import complain
from injector.inputs import BadInput, defaults_of, read_file
from injector.kubeconfig import Source, read_kubeconfig
from injector.readers import namespace
from proxy.authority.replica import kube_server
from proxy.errors import ConfigError

EXIT_FAILS: Final = 1
HOME_FILE: Final = Path("~/.kube/config")

_DESCRIPTION: Final = """\
Look at a cluster, before an installation (versions, clock, nodes, rights, other meshes) and after it (webhook,
certificates, what runs, pods without a sidecar). A line each: ok, warn or fail, what was found, and what mends it.
Nothing is changed. The exit code is 1 when something fails, 2 when no API server answers.
"""
_EXAMPLES: Final = """\
examples:
  remora check --before
  remora check --context staging
  remora check --kube http://127.0.0.1:8001   (while `kubectl proxy` runs in another terminal)
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, 1 when something fails, or 2 when nothing can be looked at."""
    options = _parser().parse_args(argv)
    try:
        own = _namespace(options.namespace)
        checkup = Checkup(
            KubeClient(replace(_server(options), user_agent="remora-check")),
            namespace=own,
            planned=defaults_of(options.defaults),
            clock=lambda: datetime.datetime.now(datetime.UTC),
        )
        found = checkup.look(options.phase)
    except KubeError as error:
        return complain("check", BadInput(str(error)))
    except BadInput as fault:
        return complain("check", fault)
    _show(found, as_json=options.json)
    return EXIT_FAILS if fails(found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remora check",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--kubeconfig", type=Path, metavar="FILE", help=f"how to call the API server (default $KUBECONFIG, {HOME_FILE})"
    )
    add("--context", metavar="NAME", help="of the kubeconfig (default its current one)")
    add("--kube", metavar="URL", help="the API server itself, or `in-cluster`, instead of a kubeconfig")
    add("--kube-token-file", type=Path, metavar="FILE", help="with --kube: what proves us to the API server")
    add("--kube-ca-file", type=Path, metavar="FILE", help="with --kube: the roots by which the API server is believed")
    add(
        "-n",
        "--namespace",
        default=names.NAMESPACE,
        help=f"of the control plane (default {names.NAMESPACE})",
    )
    add("--defaults", type=Path, metavar="FILE", help="with --before: what `remora install --defaults` will be given")
    phases = parser.add_mutually_exclusive_group()
    for phase, text in (
        (Phase.BEFORE, "whether it can be installed"),
        (Phase.AFTER, "whether what is installed works"),
    ):
        phases.add_argument(
            f"--{phase.value}",
            dest="phase",
            action="store_const",
            const=phase,
            help=f"look {text} (default: by whether our webhook is there)",
        )
    add("--json", action="store_true", help="print a JSON list instead of lines")
    return parser


def _namespace(text: str) -> str:
    try:
        return namespace(text)
    except ValueError as fault:
        raise BadInput(f"--namespace {text!r}: {fault}") from None


def _server(options: argparse.Namespace) -> KubeServer:
    """Find the API server. Raises BadInput, KubeError."""
    by_file = {"--kubeconfig": options.kubeconfig, "--context": options.context}
    by_address = {"--kube-token-file": options.kube_token_file, "--kube-ca-file": options.kube_ca_file}
    if options.kube is not None:
        _refuse(by_file, "--kube")
        return kube_server(options)
    _refuse(by_address, "a kubeconfig, which has its own; give --kube")
    paths = _paths(options.kubeconfig, os.environ.get("KUBECONFIG", ""))
    try:
        return read_kubeconfig(
            [Source(path=str(path), data=read_file(path)) for path in paths],
            options.context,
            lambda path, name: (Path(path).parent / name).read_bytes(),
        )
    except ConfigError as error:
        raise BadInput(str(error)) from None


def _refuse(given: dict[str, object], beside: str) -> None:
    for flag, value in given.items():
        if value is not None:
            raise BadInput(f"{flag} does nothing beside {beside}")


def _paths(given: Path | None, environment: str) -> list[Path]:
    """Give the kubeconfigs that count. Raises BadInput when there is none."""
    if given is not None:
        return [given]
    named = [Path(part) for part in environment.split(os.pathsep) if part]
    # kubectl passes over files of the variable that are not there.
    found = [path for path in named or [HOME_FILE.expanduser()] if path.exists()]
    if not found:
        where = ", ".join(str(path) for path in named) or str(HOME_FILE)
        raise BadInput(f"there is no kubeconfig ({where}); give --kubeconfig FILE, or --kube URL")
    return found


def _show(found: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([finding.document for finding in found], indent=2) + "\n")
        return
    sys.stdout.writelines(f"{finding.line}\n" for finding in found)
