"""The command `remora authority`: make an authority, serve it, look at it, rotate, revoke, export, make join tokens.

While the service runs, what changes something goes to the running process; without one it is done in the directory.
Exit codes: 0 done, 1 the service cannot start, 2 the command could not be carried out. No key is ever printed.
"""

from __future__ import annotations

import argparse
import datetime
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from certs.authority import INTERMEDIATE_LIFETIME, LEAF_LIFETIME, ROOT_LIFETIME
from certs.bundle_feed import EndpointProfile
from certs.crl import CRL_LIFETIME
from certs.joins import DEFAULT_LIFETIME
from certs.revocations import Kind, Reason
from certs.rotation import Pace
from proxy.authority.commands import CommandFailed
from proxy.authority.config import DEFAULT_ACCOUNT, DEFAULT_AUDIENCE, DEFAULT_NAMESPACE, STDOUT
from proxy.authority.control import order
from proxy.authority.texts import lifetime_text, read_duration

_REASONS: Final = {
    "unspecified": Reason.UNSPECIFIED,
    "key-compromise": Reason.KEY_COMPROMISE,
    "ca-compromise": Reason.CA_COMPROMISE,
    "affiliation-changed": Reason.AFFILIATION_CHANGED,
    "superseded": Reason.SUPERSEDED,
    "cessation-of-operation": Reason.CESSATION_OF_OPERATION,
    "privilege-withdrawn": Reason.PRIVILEGE_WITHDRAWN,
}


def main(argv: Sequence[str]) -> int:
    """Run `remora authority` with the arguments that follow these words and give the exit code."""
    try:
        options = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help that was asked for
        return stop.code if isinstance(stop.code, int) else 2
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except CommandFailed as failure:
        for line in str(failure).splitlines():
            sys.stderr.write(f"remora authority: {line}\n")
        return 2
    except BrokenPipeError:
        raise
    except OSError as failure:
        sys.stderr.write(f"remora authority: {failure.filename or 'file'}: {failure.strerror or failure}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remora authority", description="The service that gives identities.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_init(commands)
    _add_serve(commands)

    _command(commands, "status", "tell where a rotation stands, and what is revoked", _status)
    rotate = _command(commands, "rotate", "replace the intermediate or the root, or take one made elsewhere", _rotate)
    rotate.add_argument("what", choices=("intermediate", "root", "import"))
    rotate.add_argument("--from", dest="source", type=Path, help="import: root.crt, intermediate.crt, intermediate.key")
    rotate.add_argument("--force", default="", metavar="NAMES", help="root: go on without these sidecars, by commas")
    for name, text, run in (
        ("revoke", "revoke a certificate, an identity or a key", _revoke),
        ("lift", "take a revocation back", _lift),
    ):
        command = _command(commands, name, text, run)
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--serial", help="a certificate, by its serial number in hexadecimal")
        which.add_argument("--identity", help="a SPIFFE ID: nothing more is issued to it")
        which.add_argument("--key", help="the SHA-256 of a SubjectPublicKeyInfo in hexadecimal, as in the audit log")
        if name == "revoke":
            command.add_argument("--reason", choices=tuple(_REASONS), default="unspecified")
    export = _command(commands, "export", "write the trust bundle, the intermediate or the revocation list", _export)
    export.add_argument("what", choices=("bundle", "intermediate", "crl"), nargs="?", default="bundle")
    export.add_argument("--form", choices=("jwks", "pem"), default="jwks", help="of the bundle (default: jwks)")
    export.add_argument("--out", type=Path, help="the file to write (default: standard output)")

    token = commands.add_parser("token", help="join tokens, for who has no Kubernetes to vouch for it")
    actions = token.add_subparsers(metavar="ACTION", required=True)
    create = _command(actions, "create", "make a token that is good for one certificate, once", _create_token)
    create.add_argument("--identity", required=True, help="the SPIFFE ID that its bearer gets")
    create.add_argument("--lifetime", type=read_duration, default=datetime.timedelta(seconds=DEFAULT_LIFETIME))
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--directory", type=Path, required=True, help="the authority's directory")
    command.add_argument(
        "--key-source",
        metavar="SOURCE",
        help="what seals the keys: file:PATH, env:NAME, fd:N, command:PROG or, with --kube, secret:NAME "
        "(default: DIRECTORY.passphrase)",
    )
    command.set_defaults(run=run)
    return command


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _command(commands, "init", "make an authority: a root, an intermediate, and their keys, sealed", _init)
    which = init.add_mutually_exclusive_group(required=True)
    which.add_argument("--trust-domain", help="for whose names it vouches, such as cluster.local")
    which.add_argument(
        "--import", dest="imported", type=Path, help="take root.crt, intermediate.crt and intermediate.key from here"
    )
    init.add_argument(
        "--root-offline",
        type=Path,
        metavar="DIRECTORY",
        help="write the root's key to a new directory, to be carried away, and not into the authority's",
    )
    init.add_argument(
        "--constrain-names",
        action="store_true",
        help="bind intermediates to the trust domain by a critical name constraint (some libraries refuse that)",
    )
    _add_kube(init)
    init.add_argument(
        "--if-none",
        action="store_true",
        help="if an authority of this trust domain stands there already, all is well: for an init container",
    )
    init.add_argument("--namespace", default=DEFAULT_NAMESPACE, help="--kube-state: where the Secrets are")
    init.add_argument("--replica", default="init", help=argparse.SUPPRESS)
    init.add_argument("--root-lifetime", type=read_duration, default=ROOT_LIFETIME)
    init.add_argument("--intermediate-lifetime", type=read_duration, default=INTERMEDIATE_LIFETIME)
    pace = Pace()
    init.add_argument("--refresh-hint", type=read_duration, default=datetime.timedelta(seconds=300))
    init.add_argument("--hints", type=int, default=pace.hints, help="refresh hints from a new root to its use")
    init.add_argument(
        "--window",
        type=read_duration,
        default=datetime.timedelta(seconds=pace.window),
        help="how long a silent sidecar is waited for (default 24h)",
    )
    init.add_argument(
        "--margin",
        type=read_duration,
        default=datetime.timedelta(seconds=pace.margin),
        help="from the end of the last certificate to the removal of its signer (default 1h)",
    )


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = _command(commands, "serve", "run the service until SIGTERM or Ctrl-C", _serve)
    add = serve.add_argument
    add("--listen", required=True, metavar="HOST:PORT", help="the signing port")
    add("--health-listen", metavar="HOST:PORT", help="/livez /readyz /metrics")
    add("--federation-listen", metavar="HOST:PORT", help="the bundle alone, for other trust domains")
    add(
        "--federation-profile",
        choices=[profile.value for profile in EndpointProfile],
        help="how they know it: by a certificate of the web for its host name, or by our own SVID",
    )
    add("--federation-certificate", type=Path, metavar="FILE", help="https_web: the chain as PEM, read when it changes")
    add("--federation-key", type=Path, metavar="FILE", help="https_web: its private key as PEM")
    add("--namespace", default=DEFAULT_NAMESPACE, help=f"of our own identity (default {DEFAULT_NAMESPACE})")
    add("--service-account", default=DEFAULT_ACCOUNT, help=f"of our own identity (default {DEFAULT_ACCOUNT})")
    add("--policy", type=Path, metavar="DIRECTORY", help="policies in the place of the shipped ones")
    add("--audit-log", default=STDOUT, metavar="FILE", help="where audit lines go (default: standard output)")
    add("--replica", default=os.environ.get("HOSTNAME") or "authority", help="our name in audit lines")
    usual = lifetime_text(LEAF_LIFETIME)
    add("--lifetime", type=read_duration, default=LEAF_LIFETIME, help=f"of a certificate (default {usual})")
    add("--min-lifetime", type=read_duration, default=datetime.timedelta(minutes=5), help="that may be asked for")
    add("--max-lifetime", type=read_duration, help="that may be asked for (default: --lifetime)")
    add("--own-lifetime", type=read_duration, default=LEAF_LIFETIME, help=f"of our own certificate (default {usual})")
    add("--crl-lifetime", type=read_duration, default=CRL_LIFETIME, help="of a revocation list (default 24h)")
    add(
        "--require-token",
        action=argparse.BooleanOptionalAction,
        help="renew nothing by the certificate of a connection alone (default: if --kube or --jwks)",
    )
    add("--identity-rate", metavar="PER_SECOND:BURST", help="requests of one pod or identity (default 0.2:10)")
    add("--address-rate", metavar="PER_SECOND:BURST", help="requests of one address, and readings (default 50:200)")
    _add_kube(serve)
    add("--kube-bundle", metavar="NAME", help="keep a ConfigMap of this name with the trust bundle as bundle.pem")
    add("--tokens", choices=("review", "offline"), default="review", help="ask for each token, or only for the keys")
    add("--audience", default=DEFAULT_AUDIENCE, help=f"that tokens must be made for (default {DEFAULT_AUDIENCE})")
    add("--jwks", type=Path, metavar="FILE", help="the cluster's keys, where no API server can be asked")
    add("--issuer", default="", help="of the tokens, with --jwks")
    add("--allow-tokens-without-pod", action="store_true", help="for laboratories: `kubectl create token` works")
    add("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _add_kube(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--kube", metavar="URL", help="the Kubernetes API server, or `in-cluster`; without it no tokens of pods")
    add("--kube-token-file", type=Path, help="what proves us to the API server")
    add("--kube-ca-file", type=Path, help="the roots by which the API server is believed")
    add("--kube-state", metavar="NAME", help="keep the state in Secrets of this name, for several replicas")


def _init(options: argparse.Namespace) -> int:
    from proxy.authority.beginning import initialise

    sys.stdout.write(initialise(options))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from proxy.authority.serving import serve

    return serve(options)


def _status(options: argparse.Namespace) -> int:
    return _order(options, "status", {})


def _rotate(options: argparse.Namespace) -> int:
    if (options.what == "import") != (options.source is not None):
        raise CommandFailed("`rotate import` and --from DIRECTORY belong together; give both or neither")
    arguments = {"what": options.what, "force": options.force}
    if options.source is not None:
        arguments["from"] = str(options.source.resolve())
    return _order(options, "rotate", arguments)


def _revoke(options: argparse.Namespace) -> int:
    reason = _REASONS[options.reason].value
    return _order(options, "revoke", {**_which(options), "reason": reason, "who": _who()})


def _lift(options: argparse.Namespace) -> int:
    return _order(options, "lift", _which(options))


def _export(options: argparse.Namespace) -> int:
    from certs.files import replace_file

    text = order(options.directory, options.key_source, "export", {"what": options.what, "form": options.form})
    if options.out is None:
        sys.stdout.write(text)
    else:
        replace_file(options.out, text.encode())
    return 0


def _create_token(options: argparse.Namespace) -> int:
    seconds = str(options.lifetime.total_seconds())
    return _order(options, "token", {"identity": options.identity, "lifetime": seconds, "who": _who()})


def _order(options: argparse.Namespace, command: str, arguments: dict[str, str]) -> int:
    sys.stdout.write(order(options.directory, options.key_source, command, arguments))
    return 0


def _which(options: argparse.Namespace) -> dict[str, str]:
    for kind in Kind:
        value = getattr(options, kind.value)
        if value is not None:
            return {"kind": kind.value, "value": value}
    raise CommandFailed("say what is meant: --serial, --identity or --key")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
