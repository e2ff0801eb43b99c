"""What the federation listener is told makes a listener, or one sentence that says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.authority.cli import _parser
from proxy.authority.commands import CommandFailed
from proxy.authority.config import FederationListen
from proxy.authority.serving import config_of
from proxy.config_values import Address
from proxy.https.config import WebFiles

LISTEN = ("--federation-listen", "127.0.0.1:8445")
CERTIFICATE = ("--federation-certificate", "tls.crt")
KEY = ("--federation-key", "tls.key")
WEB = ("--federation-profile", "https_web")
SPIFFE = ("--federation-profile", "https_spiffe")


def federation(*words: str) -> FederationListen | None:
    options = _parser().parse_args(["serve", "--directory", "ca", "--listen", "127.0.0.1:8443", *words])
    return config_of(options).federation


def test_without_its_arguments_there_is_none() -> None:
    assert federation() is None


def test_both_profiles() -> None:
    address = Address(host="127.0.0.1", port=8445)
    assert federation(*LISTEN, *SPIFFE) == FederationListen(listen=address)
    web = WebFiles(certificate=Path("tls.crt"), key=Path("tls.key"))
    assert federation(*LISTEN, *WEB, *CERTIFICATE, *KEY) == FederationListen(listen=address, web=web)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (LISTEN, "needs --federation-profile"),
        ((*LISTEN, *CERTIFICATE, *KEY), "needs --federation-profile"),
        ((*LISTEN, *WEB), "give --federation-certificate FILE"),
        ((*LISTEN, *WEB, *KEY), "give --federation-certificate FILE"),
        ((*LISTEN, *WEB, *CERTIFICATE), "give --federation-key FILE"),
        ((*LISTEN, *SPIFFE, *CERTIFICATE), "--federation-certificate is for https_web"),
        ((*LISTEN, *SPIFFE, *KEY), "--federation-key is for https_web"),
        (SPIFFE, "give --federation-listen too"),
        (CERTIFICATE, "give --federation-listen too"),
        (KEY, "--federation-key is for a listener that is not asked for"),
        (("--federation-listen", "localhost:8445", *SPIFFE), "localhost"),
        (("--federation-listen", "127.0.0.1", *SPIFFE), "127.0.0.1"),
    ],
)
def test_what_makes_no_listener(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        federation(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
