"""Carries out `remora injector serve`: arguments become a WebhookConfig, and the webhook runs until told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
from dataclasses import replace

from certs.hardening import harden
from certs.kube import KubeClient, KubeError
from injector import names
from injector.bootstrap import Bootstrap
from injector.webhook import Webhook, WebhookConfig
from injector.webhook_certificate import Renewals
from proxy.authority.replica import kube_server
from proxy.config_text import TextError, Use, parse_address, parse_duration
from proxy.config_values import Address
from proxy.https.process import log_to_stderr, loop_factory


class ArgumentError(Exception):
    """Arguments that make no webhook, with the mend."""


def serve(options: argparse.Namespace) -> int:
    """Run the webhook; returns the exit code. Raises ArgumentError, and StartError when it cannot start."""
    config, bootstrap = config_of(options), bootstrap_of(options)
    log_to_stderr(options.log_level)
    for warning in harden():
        logging.getLogger("remora.injector").warning("%s", warning)
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        runner.run(_run(config, bootstrap))
    return 0


def config_of(options: argparse.Namespace) -> WebhookConfig:
    """Read the arguments. Raises ArgumentError."""
    return WebhookConfig(
        listen=_address("--listen", options.listen),
        tls_directory=options.tls_directory,
        health=None if options.health_listen is None else _address("--health-listen", options.health_listen),
        defaults=options.config,
        trust_bundle=options.trust_bundle,
        namespace=options.namespace,
        audit_log=options.audit_log,
        drain=_seconds("--drain", options.drain),
    )


def bootstrap_of(options: argparse.Namespace) -> Bootstrap | None:
    """Give what looks after our certificate in the cluster; None when nobody asks. Raises ArgumentError."""
    needed = {
        "--kube": options.kube,
        "--tls-secret": options.tls_secret,
        "--webhook": options.webhook,
        "--service": options.service,
    }
    further = {"--kube-token-file": options.kube_token_file, "--kube-ca-file": options.kube_ca_file}
    given = [flag for flag, value in {**needed, **further}.items() if value is not None]
    missing = [flag for flag, value in needed.items() if value is None]
    if not given:
        return None
    if missing:
        raise ArgumentError(f"{given[0]} needs {', '.join(missing)} too: give all of {', '.join(needed)}, or none")
    try:
        client = KubeClient(replace(kube_server(options), user_agent=names.INJECTOR))
    except KubeError as fault:
        raise ArgumentError(str(fault)) from None
    return Bootstrap(
        client,
        namespace=options.namespace,
        secret=options.tls_secret,
        webhook=options.webhook,
        service=options.service,
        directory=options.tls_directory,
    )


async def _run(config: WebhookConfig, bootstrap: Bootstrap | None) -> None:
    loop = asyncio.get_running_loop()
    webhook = Webhook(config, loop)
    with webhook.signals():
        try:
            webhook.start_health()
            if bootstrap is not None:
                renewals = Renewals(loop, bootstrap.look, webhook.readiness, webhook.counts)
                if not await webhook.wait_for(renewals.first(), "the first certificate"):
                    return
                webhook.keep_doing(renewals.follow(), "the certificate in the cluster")
            webhook.start_serving()
            await webhook.run_until_stopped()
        finally:
            await webhook.close()


def _address(flag: str, text: str) -> Address:
    try:
        return parse_address(text, Use.LISTEN)
    except TextError as error:
        raise ArgumentError(f"{flag}: {error}; {error.hint}") from None


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except TextError as error:
        raise ArgumentError(f"{flag}: {error}; {error.hint}") from None
