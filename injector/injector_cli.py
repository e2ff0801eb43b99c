"""The command `remora injector`: serve the webhook of a cluster, set a pod's capture rules, list the annotations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from injector import names
from injector.capture_cli import add_capture_options

EXIT_CANNOT_START: Final = 1
EXIT_USAGE: Final = 2


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, 1 when the webhook cannot start, 2 for arguments that make none."""
    try:
        options = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help that was asked for
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remora injector", description="Sidecars for the pods of a cluster.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "serve the webhook that API servers show pods to, until SIGTERM or Ctrl-C"
    serve = commands.add_parser("serve", help=text, description=text)
    serve.set_defaults(run=_serve)
    add = serve.add_argument
    add(
        "--listen", required=True, metavar="HOST:PORT", help=f"the webhook's port, with TLS: POST {names.INJECTOR_PATH}"
    )
    add("--tls-directory", type=Path, required=True, metavar="DIR", help="tls.crt and tls.key, read when they change")
    add("--health-listen", metavar="HOST:PORT", help="/livez /readyz /metrics")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="the defaults file, read when it changes (`remora inject --defaults`)",
    )
    add("--trust-bundle", type=Path, metavar="FILE", help="roots (PEM) that pods get, read when they change")
    add(
        "--namespace", default=names.NAMESPACE, help=f"of the control plane, never injected (default {names.NAMESPACE})"
    )
    add("--audit-log", default="stdout", metavar="FILE", help="where audit lines go (default: standard output)")
    add(
        "--drain",
        default="5s",
        metavar="DURATION",
        help="from SIGTERM to the end of the port: so long API servers may still call (default 5s)",
    )
    add(
        "--kube", metavar="URL", help="the Kubernetes API server, or `in-cluster`: make and renew our certificate there"
    )
    add("--kube-token-file", type=Path, metavar="FILE", help="what proves us to the API server")
    add("--kube-ca-file", type=Path, metavar="FILE", help="the roots by which the API server is believed")
    add("--tls-secret", metavar="NAME", help="--kube: the Secret with the certificate, written into --tls-directory")
    add("--webhook", metavar="NAME", help="--kube: the MutatingWebhookConfiguration whose caBundle is kept")
    add("--service", metavar="NAME", help="--kube: the Service that API servers call, for the certificate's names")
    add("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    text = "set the capture rules of this network namespace and try them: what the first init container of a pod does"
    capture = commands.add_parser("capture", help=text, description=text)
    add_capture_options(capture)
    capture.set_defaults(run=_capture)
    table = "print the annotations of pods as a Markdown table: key, value, default, meaning"
    commands.add_parser("annotations", help=table, description=table).set_defaults(run=_annotations)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from injector.serving import ArgumentError, serve
    from injector.webhook import StartError

    try:
        return serve(options)
    except ArgumentError as fault:
        sys.stderr.write(f"remora injector: {fault}\n")
        return EXIT_USAGE
    except StartError as fault:
        for line in str(fault).splitlines():
            sys.stderr.write(f"remora injector: {line}\n")
        return EXIT_CANNOT_START


def _capture(options: argparse.Namespace) -> int:
    from injector.capture_cli import run

    return run(options)


def _annotations(options: argparse.Namespace) -> int:
    from injector.annotations import markdown_table

    sys.stdout.write(markdown_table())
    return 0
