"""Carries out `remora authority serve`: arguments become a ServeConfig, and the service runs until told to end."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import sys
import time

from certs.bundle_feed import EndpointProfile
from certs.hardening import harden
from certs.keeper import Keeper
from certs.kube import KubeError
from certs.service import ADDRESS_RATE, IDENTITY_RATE
from certs.signing import Lifetimes
from proxy.authority.commands import CommandFailed
from proxy.authority.config import FederationListen, ServeConfig, TokenSource
from proxy.authority.control import key_source, open_keeper
from proxy.authority.kube_bundle import KubeBundle
from proxy.authority.replica import Campaign, kube_bundle, kube_server, open_replica, passphrase_fetcher
from proxy.authority.server import AuthorityServer, StartError
from proxy.authority.texts import read_rate
from proxy.config_text import TextError, Use, parse_address
from proxy.config_values import Address
from proxy.https.config import WebFiles
from proxy.https.process import log_to_stderr, loop_factory


def serve(options: argparse.Namespace) -> int:
    """Run the service; returns the exit code. Raises CommandFailed for arguments that make no service."""
    log_to_stderr(options.log_level)
    warnings = harden()
    config = config_of(options)
    campaign: Campaign | None = None
    try:
        source = key_source(options.directory, options.key_source, passphrase_fetcher(options, makes=False))
        if options.kube_state is None:
            keeper = open_keeper(options.directory, source, options.crl_lifetime)
        else:
            keeper, campaign = open_replica(options, source, options.crl_lifetime)
        bundle = kube_bundle(options, (lambda: True) if campaign is None else campaign.leads)
    except (KubeError, ValueError) as error:  # StateError is one
        raise CommandFailed(str(error)) from None
    for warning in [*warnings, *source.warnings()]:
        logging.getLogger("remora.authority").warning("%s", warning)
    try:
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            runner.run(_run(config, keeper, campaign, bundle))
    except StartError as failure:
        sys.stderr.write(f"remora authority: {failure}\n")
        return 1
    return 0


def config_of(options: argparse.Namespace) -> ServeConfig:
    """Read the arguments. Raises CommandFailed with what is wrong and the mend."""
    try:
        return ServeConfig(
            directory=options.directory,
            listen=_address(options.listen),
            health=None if options.health_listen is None else _address(options.health_listen),
            federation=_federation(options),
            namespace=options.namespace,
            service_account=options.service_account,
            policy=options.policy,
            audit_log=options.audit_log,
            tokens=_tokens(options),
            lifetimes=Lifetimes(
                usual=options.lifetime,
                minimum=min(options.min_lifetime, options.lifetime),
                maximum=options.max_lifetime or options.lifetime,
            ),
            own_lifetime=options.own_lifetime,
            is_certificate_enough=not _requires_token(options),
            replica=options.replica,
            identity_rate=IDENTITY_RATE if options.identity_rate is None else read_rate(options.identity_rate),
            address_rate=ADDRESS_RATE if options.address_rate is None else read_rate(options.address_rate),
        )
    except (KubeError, ValueError) as error:
        raise CommandFailed(str(error)) from None


async def _run(config: ServeConfig, keeper: Keeper, campaign: Campaign | None, bundle: KubeBundle | None) -> None:
    try:
        server = AuthorityServer(config, keeper, asyncio.get_running_loop(), campaign, bundle)
    except StartError:
        _close(keeper)
        raise
    try:
        server.start()
    except StartError:
        await server.close()
        raise
    await server.run_until_stopped()


def _close(keeper: Keeper) -> None:
    keeper.close(datetime.datetime.now(datetime.UTC), time.monotonic())


def _address(text: str) -> Address:
    try:
        return parse_address(text, Use.LISTEN)
    except TextError as error:
        raise CommandFailed(f"{error}; {error.hint}") from None


def _federation(options: argparse.Namespace) -> FederationListen | None:
    files = {
        "--federation-certificate": options.federation_certificate,
        "--federation-key": options.federation_key,
    }
    given = [name for name, path in files.items() if path is not None]
    if options.federation_listen is None:
        given += ["--federation-profile"] if options.federation_profile is not None else []
        if given:
            raise CommandFailed(f"{given[0]} is for a listener that is not asked for; give --federation-listen too")
        return None
    if options.federation_profile is None:
        raise CommandFailed(
            "--federation-listen needs --federation-profile: https_web with a certificate of the web, or https_spiffe "
            "to be known by our own SVID; other trust domains have to be told which"
        )
    listen = _address(options.federation_listen)
    if EndpointProfile(options.federation_profile) is EndpointProfile.HTTPS_SPIFFE:
        if given:
            raise CommandFailed(f"{given[0]} is for https_web; https_spiffe shows our own SVID, leave it out")
        return FederationListen(listen=listen)
    certificate, key = files.values()
    if certificate is None or key is None:
        missing = next(name for name, path in files.items() if path is None)
        raise CommandFailed(f"https_web needs a certificate of the web and its key; give {missing} FILE")
    return FederationListen(listen=listen, web=WebFiles(certificate=certificate, key=key))


def _requires_token(options: argparse.Namespace) -> bool:
    """Say whether a renewal needs a token: whoever stole key and certificate would renew them for ever without."""
    checks_tokens = options.kube is not None or options.jwks is not None
    return checks_tokens if options.require_token is None else bool(options.require_token)


def _tokens(options: argparse.Namespace) -> TokenSource | None:
    if options.kube is None and options.jwks is None:
        return None
    if options.jwks is not None and not options.issuer and options.kube is None:
        raise CommandFailed("--jwks needs the issuer of the tokens; give it with --issuer")
    return TokenSource(
        audience=options.audience,
        server=None if options.kube is None else kube_server(options),
        is_offline=options.tokens == "offline" or options.jwks is not None,
        jwks_file=options.jwks,
        issuer=options.issuer,
        allows_without_pod=options.allow_tokens_without_pod,
    )
