"""The command `remora certs`: make an authority, issue identities, look at certificates, handle trust bundles.

Exit codes: 0 done, 1 an inspected chain breaks rules, 2 the command could not be carried out (one line for each
fault on standard error, never a traceback). No private key is ever printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cryptography import x509

from certs.authority import (
    INTERMEDIATE_CERTIFICATE,
    INTERMEDIATE_KEY,
    INTERMEDIATE_LIFETIME,
    LEAF_LIFETIME,
    ROOT_CERTIFICATE,
    ROOT_KEY,
    ROOT_LIFETIME,
    Authority,
)
from certs.bundle import BUNDLE_DIRECTORY, BundleError, TrustBundle, parse_bundle, parse_pem
from certs.files import key_file_warnings, publish, replace_file
from certs.offline import INTERMEDIATE_REQUEST, OfflineRoot, make_request
from certs.report import describe, duration, printable, report_chain
from certs.requests import read_csr
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, read_chain
from certs.svid import SvidError, spiffe_id_of

_CONSTRAIN = "bind the intermediate to the trust domain by a critical name constraint (some libraries refuse that)"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_INPUT_BYTES = 16 * 1024 * 1024


class CommandError(ValueError):
    """The command cannot be carried out; the message is for the one who typed it."""


def main(argv: Sequence[str]) -> int:
    """Runs `remora certs` with the arguments that follow these words and returns the exit code."""
    try:
        arguments = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help that was asked for
        return stop.code if isinstance(stop.code, int) else 2
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; nothing more may be written, at exit neither.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(f"{error.filename or 'file'}: {error.strerror or 'it cannot be used'}")
    except (ValueError, OverflowError) as error:
        return _refuse(str(error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="remora certs", description="Identities: authority, certificates, bundles.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    init = commands.add_parser("init", help="make an authority: a root and an intermediate")
    init.add_argument("--directory", type=Path, required=True, help="where to put it (made with mode 0700)")
    init.add_argument("--trust-domain", required=True, help="for whose names it vouches, such as cluster.local")
    init.add_argument("--constrain-names", action="store_true", help=_CONSTRAIN)
    init.set_defaults(run=_init)
    _add_offline(commands)

    issue = commands.add_parser("issue", help="issue the identity of a ServiceAccount")
    issue.add_argument("--authority", type=Path, required=True, help="the directory that `init` made")
    issue.add_argument("--namespace", required=True)
    issue.add_argument("--service-account", required=True)
    issue.add_argument("--out", type=Path, required=True, help="where to publish tls.crt, tls.key, ca.crt, bundles/")
    issue.add_argument("--lifetime", default=None, help="such as 24h, 90m or 7d (default 24h)")
    issue.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="TRUST_DOMAIN=FILE",
        help="trust another domain by this bundle; may be repeated",
    )
    issue.set_defaults(run=_issue)

    inspect = commands.add_parser("inspect", help="show a certificate chain and every rule that it breaks")
    inspect.add_argument("file", type=Path, help="PEM, the workload's certificate first")
    inspect.add_argument("--bundle", type=Path, help="the roots that must vouch for it, PEM or JWKS")
    inspect.add_argument("--trust-domain", help="the trust domain that it must name")
    inspect.add_argument("--signing", action="store_true", help="the file holds roots or intermediates, no workload")
    inspect.set_defaults(run=_inspect)

    bundle = commands.add_parser("bundle", help="show, convert and extend trust bundles (PEM and SPIFFE JWKS)")
    actions = bundle.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="tell what is in a bundle")
    convert = actions.add_parser("convert", help="write a bundle in the other form")
    add = actions.add_parser("add", help="add roots to a bundle, before the authority begins to use them")
    for action, run in ((show, _bundle_show), (convert, _bundle_convert), (add, _bundle_add)):
        action.add_argument("file", type=Path, help="PEM or JWKS")
        action.add_argument("--trust-domain", help="whose bundle it is, if its roots do not say")
        action.set_defaults(run=run)
    add.add_argument("certificates", type=Path, nargs="+", help="PEM files of the roots to add")
    for action in (convert, add):
        action.add_argument("--output", choices=("pem", "jwks"), default="jwks", help="the form to write")
        action.add_argument("--out", type=Path, help="the file to write (default: standard output)")
    return parser


def _add_offline(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    root = commands.add_parser("root", help="make a root that is kept away from its authority")
    root.add_argument("--trust-domain", required=True, help="for whose names it vouches, such as cluster.local")
    root.add_argument("--lifetime", default=None, help="such as 3650d (default 3650d)")
    root.set_defaults(run=_root)

    request = commands.add_parser("request", help="make the key of an intermediate where it is used, and its request")
    request.set_defaults(run=_request)

    intermediate = commands.add_parser("intermediate", help="make an intermediate with a root that is kept away")
    intermediate.add_argument("--root", type=Path, required=True, help="the directory of root.crt and root.key")
    intermediate.add_argument("--trust-domain", help="for whose names it vouches, if the root does not say")
    intermediate.add_argument("--request", type=Path, metavar="FILE", help="the key's request (default: a new key)")
    intermediate.add_argument("--lifetime", default=None, help="such as 90d (default 365d)")
    intermediate.add_argument("--constrain-names", action="store_true", help=_CONSTRAIN)
    intermediate.set_defaults(run=_intermediate)

    for command in (root, request, intermediate):
        command.add_argument("--out", type=Path, required=True, help="a new directory (made with mode 0700)")


def _init(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.directory
    trust_domain = parse_trust_domain(os.fsencode(arguments.trust_domain))
    authority = Authority.create(trust_domain, _now(), constrain_names=arguments.constrain_names)
    authority.save(directory)
    _say(f"made an authority for {trust_domain} in {directory}")
    _say(f"  root          {directory / ROOT_CERTIFICATE}, until {authority.root.not_valid_after_utc:%Y-%m-%d}")
    _say(f"  intermediate  until {authority.intermediate.not_valid_after_utc:%Y-%m-%d}; it signs the workloads")
    _say(f"  the root's key, {directory / ROOT_KEY}, is not needed to issue: move it to a safe place")
    _say(f"next: remora certs issue --authority {directory} --namespace demo --service-account orders --out DIR")
    return 0


def _root(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    lifetime = ROOT_LIFETIME if arguments.lifetime is None else _lifetime(arguments.lifetime)
    root = OfflineRoot.create(parse_trust_domain(os.fsencode(arguments.trust_domain)), _now(), lifetime)
    root.save(out)
    _say(f"made a root of {root.trust_domain} in {out}, until {root.certificate.not_valid_after_utc:%Y-%m-%d}")
    _say(f"  its key, {out / ROOT_KEY}, is not sealed: keep it on a machine that serves nobody")
    _say(f"next: remora certs intermediate --root {out} --out DIR")
    return 0


def _request(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    make_request(out)
    _say(f"made a key in {out}; it stays here")
    _say(f"  carry {out / INTERMEDIATE_REQUEST} to where the root is kept, and there:")
    _say(f"  remora certs intermediate --root ROOT --request {INTERMEDIATE_REQUEST} --out SIGNED")
    _say(f"  carry {ROOT_CERTIFICATE} and {INTERMEDIATE_CERTIFICATE} of SIGNED back into {out}")
    _say(f"next: remora authority rotate import --directory AUTHORITY --from {out}")
    return 0


def _intermediate(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    for warning in key_file_warnings(arguments.root, ROOT_KEY):
        _complain(f"warning: {warning}")
    root = OfflineRoot.load(arguments.root, _trust_domain_argument(arguments))
    now = _now()
    lifetime = INTERMEDIATE_LIFETIME if arguments.lifetime is None else _lifetime(arguments.lifetime)
    if arguments.request is None:
        authority = root.sign(now, lifetime, constrain_names=arguments.constrain_names)
        authority.save(out)
        made = authority.intermediate
        told = f"carry {out} to the authority, over a way that nobody reads: it holds a key"
    else:
        path: Path = arguments.request
        try:
            public_key = read_csr(_read(path).decode("ascii", "replace"))
        except ValueError as error:
            raise CommandError(_located(path, error)) from None
        made = root.sign_request(public_key, out, now, lifetime, constrain_names=arguments.constrain_names)
        told = f"carry {out} to the authority, and put its files beside {INTERMEDIATE_KEY}; it holds no key"
    _say(f"made an intermediate of {root.trust_domain} in {out}, until {made.not_valid_after_utc:%Y-%m-%d}")
    if made.not_valid_after_utc < now + lifetime - datetime.timedelta(seconds=1):
        _say("  that is when its root ends")
    _say(f"  {told}")
    _say("next: remora authority rotate import --directory AUTHORITY --from DIR")
    return 0


def _issue(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    authority = Authority.load(arguments.authority)
    for name in (INTERMEDIATE_KEY, ROOT_KEY):
        for warning in key_file_warnings(arguments.authority, name):
            _complain(f"warning: {warning}")
    lifetime = LEAF_LIFETIME if arguments.lifetime is None else _lifetime(arguments.lifetime)
    spiffe_id = SpiffeId.for_service_account(authority.trust_domain, arguments.namespace, arguments.service_account)
    others = _federated(arguments.bundle, authority.trust_domain)
    now = _now()
    svid = authority.issue_svid(spiffe_id, now, lifetime)
    files = {CERTIFICATE_FILE: svid.chain_pem(), KEY_FILE: svid.key_pem(), ROOTS_FILE: authority.bundle.to_pem()}
    files |= {f"{BUNDLE_DIRECTORY}/{bundle.trust_domain}.json": bundle.to_jwks() for bundle in others}
    publish(out, files)
    end = svid.leaf.not_valid_after_utc
    _say(f"issued {spiffe_id}")
    _say(f"  valid until {end:%Y-%m-%d %H:%M:%S} UTC, {duration(end - now)} left")
    _say(f"  published   {out}: {' '.join(sorted(files))}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    try:
        chain = read_chain(_read(path))
    except ValueError as error:
        raise CommandError(_located(path, error)) from None
    given = None if arguments.trust_domain is None else parse_trust_domain(os.fsencode(arguments.trust_domain))
    bundle = None
    if arguments.bundle is not None:
        # The roots' own word on whose they are comes first: under the roots of another domain a name counts nothing.
        bundle = _load_bundle(arguments.bundle, None, fallback=given or _domain_of(chain[0]))
    report = report_chain(chain, _now(), bundle=bundle, trust_domain=given, signing=arguments.signing)
    for line in report.lines:
        _say(line)
    return 1 if report.violations else 0


def _bundle_show(arguments: argparse.Namespace) -> int:
    bundle = _load_bundle(arguments.file, _trust_domain_argument(arguments))
    _say(f"trust domain  {bundle.trust_domain}")
    _say(f"sequence      {'(none)' if bundle.sequence is None else bundle.sequence}")
    hint = "(none)" if bundle.refresh_hint is None else f"{bundle.refresh_hint} s"
    _say(f"refresh hint  {hint}")
    if not bundle.certificates:
        _say("roots         none: every identity of this trust domain is revoked")
    now = _now()
    for number, certificate in enumerate(bundle.certificates, start=1):
        _say(f"root {number} of {len(bundle.certificates)}")
        for line in describe(certificate, now):
            _say(line)
    return 0


def _bundle_convert(arguments: argparse.Namespace) -> int:
    _write_bundle(_load_bundle(arguments.file, _trust_domain_argument(arguments)), arguments)
    return 0


def _bundle_add(arguments: argparse.Namespace) -> int:
    bundle = _load_bundle(arguments.file, _trust_domain_argument(arguments))
    certificates = list(bundle.certificates)
    for path in arguments.certificates:
        for certificate in parse_pem(bundle.trust_domain, _read(path), printable(str(path))).certificates:
            named = _domain_of(certificate)
            if named is not None and named != bundle.trust_domain:
                raise CommandError(
                    f"{path}: it is a root of {named}; a bundle holds one trust domain, "
                    f"so publish it as {BUNDLE_DIRECTORY}/{named}.pem"
                )
            certificates.append(certificate)
    extended = tuple(dict.fromkeys(certificates))
    if extended != bundle.certificates:
        bundle = dataclasses.replace(bundle, certificates=extended, sequence=(bundle.sequence or 0) + 1)
    _write_bundle(bundle, arguments)
    return 0


def _federated(values: Sequence[str], own: TrustDomain) -> list[TrustBundle]:
    bundles: dict[TrustDomain, TrustBundle] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not equals or not file:
            raise CommandError(f"--bundle {value!r}: write TRUST_DOMAIN=FILE")
        trust_domain = parse_trust_domain(os.fsencode(name))
        if trust_domain == own:
            raise CommandError(f"--bundle {value!r}: {own} is the authority's own trust domain; its root is in ca.crt")
        if trust_domain in bundles:
            raise CommandError(f"--bundle {value!r}: {trust_domain} is given twice; join its roots in one bundle")
        bundles[trust_domain] = parse_bundle(trust_domain, _read(Path(file)), printable(file))
    return list(bundles.values())


def _load_bundle(path: Path, given: TrustDomain | None, fallback: TrustDomain | None = None) -> TrustBundle:
    bundle = parse_bundle(given or TrustDomain("its trust domain"), _read(path), printable(str(path)))
    if given is not None:
        return bundle
    named = [domain for domain in map(_domain_of, bundle.certificates) if domain is not None]
    owner = named[0] if named else fallback
    if owner is None:
        try:
            owner = parse_trust_domain(os.fsencode(path.stem))
        except SpiffeIdError:
            raise BundleError([f"{path}: it does not say whose bundle it is; name it with --trust-domain"]) from None
    return dataclasses.replace(bundle, trust_domain=owner)


def _domain_of(certificate: x509.Certificate) -> TrustDomain | None:
    try:
        return spiffe_id_of(certificate).trust_domain
    except SvidError:
        return None


def _write_bundle(bundle: TrustBundle, arguments: argparse.Namespace) -> None:
    content = bundle.to_pem() if arguments.output == "pem" else bundle.to_jwks()
    if arguments.out is None:
        sys.stdout.write(content.decode("ascii"))
    else:
        replace_file(arguments.out, content)
        _say(f"wrote the bundle of {bundle.trust_domain} to {arguments.out}; roots in it: {len(bundle.certificates)}")


def _trust_domain_argument(arguments: argparse.Namespace) -> TrustDomain | None:
    return None if arguments.trust_domain is None else parse_trust_domain(os.fsencode(arguments.trust_domain))


def _lifetime(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise CommandError(f"--lifetime {text!r}: write a number and a unit, such as 24h, 90m or 7d")
    return datetime.timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise CommandError(f"{path}: it is a directory; name the file in it, such as {path / CERTIFICATE_FILE}")
    with path.open("rb") as file:
        content = file.read(_MAX_INPUT_BYTES + 1)
    if len(content) > _MAX_INPUT_BYTES:
        raise CommandError(f"{path}: it is larger than {_MAX_INPUT_BYTES} bytes, which no certificate file is")
    return content


def _located(path: Path, error: Exception) -> str:
    return str(error) if isinstance(error, CommandError) else f"{path}: {error}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _say(line: str) -> None:
    _write(sys.stdout, line)


def _complain(line: str) -> None:
    _write(sys.stderr, f"remora certs: {printable(line)}")


def _write(stream: TextIO, line: str) -> None:
    # A terminal that knows no such letter shows its number; it must not end the command.
    encoding = stream.encoding or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _refuse(message: str) -> int:
    for line in message.split("\n"):
        _complain(line)
    return 2
