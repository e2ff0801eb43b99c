"""Looks at what a configuration points at and what only a running sidecar asks: is it there, and could it be right?

    authority      token file and bundle file       command    program and bundle file
    Workload API   the socket, and grpcio           federation bootstrap bundles, files of roots

Nobody is asked and nothing is run, so what passes here may still be refused. No message holds anything of a token.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certs.bundle import BundleError, TrustBundle, parse_bundle
from certs.bundle_feed import FeedError
from certs.callers.claims import check_audience, check_times, read_claims
from certs.files import StoreError, read_file
from certs.joins import is_join_token
from certs.refusals import Refused
from certs.spiffe import TrustDomain
from proxy.authority.config import DEFAULT_AUDIENCE
from proxy.config import Config
from proxy.config_values import FederatedDomain, IdentityAuthority, IdentityCommand, IdentityWorkloadApi
from proxy.enrolment.authority_messages import EnrolmentError, read_token
from proxy.enrolment.federation import read_endpoint
from proxy.enrolment.grpc_stream import load_grpc
from proxy.errors import ConfigError, Fault

_RENEWED = "mount a projected ServiceAccount token, which the kubelet renews, or a join token"


def inspect_source(config: Config, now: float) -> tuple[list[Fault], list[str]]:
    """Give what is wrong with what `identity` points at, and warnings; `now` is in seconds since the epoch."""
    match config.identity:
        case IdentityAuthority(token_file=token_file, bundle_file=bundle_file):
            faults, warnings = _token(token_file, now)
            return [*faults, *_bundle(bundle_file, config.trust_domain, now)], warnings
        case IdentityCommand(run=run, bundle_file=bundle_file):
            faults = [*_program(run[0])]
            if bundle_file:
                faults += _bundle(bundle_file, config.trust_domain, now)
            return faults, []
        case IdentityWorkloadApi(socket=socket):
            return [*_socket(socket.path)], []
        case _:
            return [], []


def inspect_federation(config: Config, now: float) -> list[Fault]:
    """Give what is wrong with the files that `federation` points at."""
    return [fault for domain in config.federation for fault in _federated(domain, now)]


def _token(file: str, now: float) -> tuple[list[Fault], list[str]]:
    try:
        token = read_token(read_file(Path(file)), file)
    except (StoreError, EnrolmentError) as failure:
        return [_fault(file, failure)], []
    if is_join_token(token):
        return [], []
    try:
        claims = read_claims(token)[1]
        check_times(claims, now)
    except Refused as refused:
        return [Fault(file=file, message=str(refused).partition(";")[0], hint=_RENEWED)], []
    try:
        check_audience(claims.get("aud"), DEFAULT_AUDIENCE)
    except Refused as refused:
        # The authority decides by its own --audience, which nobody here knows.
        return [], [f"{file}: {str(refused).partition(';')[0]}, which an authority wants unless it is told another"]
    return [], []


def _bundle(file: str, trust_domain: TrustDomain, now: float) -> Iterator[Fault]:
    try:
        bundle = parse_bundle(trust_domain, read_file(Path(file)), file)
    except StoreError as failure:
        yield _fault(file, failure)
    except BundleError as failure:
        for sentence in failure.faults:
            yield Fault(file=file, message=sentence.removeprefix(f"{file}: "))
    else:
        yield from _worthless(bundle, file, now)


def _worthless(bundle: TrustBundle, file: str, now: float) -> Iterator[Fault]:
    moment = datetime.fromtimestamp(now, UTC)
    if not bundle.certificates:
        yield Fault(file=file, message="it is empty, so nobody is believed by it", hint="bring the bundle anew")
    elif not any(root.not_valid_before_utc <= moment <= root.not_valid_after_utc for root in bundle.certificates):
        yield Fault(file=file, message="no root in it is valid now", hint="bring the bundle anew, or mend the clock")


def _program(path: str) -> Iterator[Fault]:
    if not os.path.isfile(path):
        yield Fault(file=path, message="there is no such program", hint="install it, or mend `identity.command.run`")
    elif not os.access(path, os.X_OK):
        yield Fault(file=path, message="it may not be executed", hint="give it mode 0755")


def _socket(path: str) -> Iterator[Fault]:
    try:
        load_grpc(path)
    except ConfigError as failure:
        yield from failure.faults
    hint = "see that the agent runs and its socket is mounted here"
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as failure:
        yield Fault(file=path, message=f"the socket cannot be seen ({failure.strerror})", hint=hint)
    else:
        if not is_socket:
            yield Fault(file=path, message="it is no socket", hint=hint)


def _federated(domain: FederatedDomain, now: float) -> Iterator[Fault]:
    try:
        endpoint = read_endpoint(domain)
    except FeedError as failure:
        yield _fault(domain.bundle_file or domain.url, failure)
    else:
        if endpoint.bootstrap is not None:
            yield from _worthless(endpoint.bootstrap, domain.bundle_file, now)
    if domain.ca_file:
        try:
            x509.load_pem_x509_certificates(read_file(Path(domain.ca_file)))
        except StoreError as failure:
            yield _fault(domain.ca_file, failure)
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
            yield Fault(
                file=domain.ca_file, message="it holds no readable certificate", hint="write roots as PEM there"
            )


def _fault(file: str, failure: Exception) -> Fault:
    return Fault(file=file, message=str(failure).removeprefix(f"{file}: "))
