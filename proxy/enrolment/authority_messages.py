"""Writes what a sidecar asks of its authority, and reads what comes back. No I/O: bytes in, values out.

    POST /v1/sign     write_sign_request(key, ...) -> body; read_signed(answer) -> chain, bundle, revocation list
    GET  /v1/bundle   bundle_path(sequence, instance): who polls with a certificate says which bundle it holds
    GET  /v1/crl      DER; both are asked for unless they are the content that is held (`unless`)

What an authority refuses it refuses by a word (`certs.refusals`) and a sentence; both are told to the operator, cut
short and without line ends, since they come from another machine.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.crl import MAX_CRL_BYTES
from certs.joins import is_join_token
from certs.keys import PrivateKey, signing_hash
from certs.store import read_chain
from certs.strict_json import parse_json
from proxy.errors import Reason, RemoraError

SIGN_PATH: Final = "/v1/sign"
BUNDLE_PATH: Final = "/v1/bundle"
CRL_PATH: Final = "/v1/crl"

MAX_TOKEN_BYTES: Final = 16 * 1024
"""What an authority takes; a ServiceAccount's token has one to two kilobytes."""
MAX_ANSWER_BYTES: Final = 12 * 1024 * 1024
"""A list of 4 MiB in base64 beside a bundle of 4 MiB."""
MAX_REASON_CHARACTERS: Final = 400

_TOKEN: Final = re.compile(r"[!-~]+")
_UNREADABLE: Final = (ValueError, KeyError, TypeError, RecursionError)


class EnrolmentError(RemoraError):
    """A certificate, bundle or list that the authority did not give, or gave so that it cannot be taken.

    `word` is the authority's own for a refusal, "" for other failures; `retry_after` are the seconds that it asked us
    to wait, 0 for none; `was_refused` says that it did, or may, not want us as who we are.
    """

    reason = Reason.NOT_READY

    def __init__(self, message: str, *, word: str = "", retry_after: float = 0.0, was_refused: bool = False) -> None:
        super().__init__(message)
        self.word = word
        self.retry_after = retry_after
        self.was_refused = was_refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What `POST /v1/sign` answered: the chain as PEM, the bundle as a JWKS document, the list as DER or None.

    `not_before` and `not_after` are the leaf's, in seconds since the epoch.
    """

    chain: bytes = field(repr=False)
    bundle: bytes = field(repr=False)
    crl: bytes | None = field(repr=False)
    not_before: float
    not_after: float


def read_token(data: bytes, source: str) -> str:
    """Read a token from a file's content; white space around it is no part of it. Raises EnrolmentError."""
    if len(data) > MAX_TOKEN_BYTES:
        raise EnrolmentError(f"{source}: it is larger than {MAX_TOKEN_BYTES} bytes, so it holds no token; mount one")
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not _TOKEN.fullmatch(token):
        raise EnrolmentError(f"{source}: it holds no token on one line; mount a ServiceAccount's token or a join token")
    return token


def is_used_up_by_use(token: str) -> bool:
    """Say whether a token can be redeemed once only, so that renewals stand on the certificate alone."""
    return is_join_token(token)


def write_sign_request(
    key: PrivateKey, *, token: str | None, lifetime: float | None, bundle_sequence: int | None, instance: str
) -> bytes:
    """Write the body of `POST /v1/sign`: a certificate request for `key`, signed by it and naming nothing.

    `lifetime` is in seconds, None for what the authority usually gives.
    """
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, signing_hash(key))
    members: dict[str, object] = {"csr": request.public_bytes(Encoding.PEM).decode("ascii"), "instance": instance}
    if token is not None:
        members["token"] = token
    if lifetime is not None:
        members["lifetime_seconds"] = int(lifetime)
    if bundle_sequence is not None:
        members["bundle_sequence"] = bundle_sequence
    return json.dumps(members).encode("ascii")


def bundle_path(confirms: int | None, instance: str) -> str:
    """Write the target of a poll; `confirms` is the sequence of the bundle in force, None when it has none.

    >>> bundle_path(7, "orders-0"), bundle_path(None, "orders-0")
    ('/v1/bundle?confirms=7&instance=orders-0', '/v1/bundle')
    """
    return BUNDLE_PATH if confirms is None else f"{BUNDLE_PATH}?confirms={confirms}&instance={quote(instance, safe='')}"


def unless(etag: str) -> dict[str, str]:
    """Write the header that asks for nothing new while the content has this tag, as it was sent; "" is no tag.

    >>> unless('"7"'), unless("")
    ({'if-none-match': '"7"'}, {})
    """
    return {"if-none-match": etag} if etag and etag.isascii() else {}


def instance_name(name: str) -> str:
    """Turn the name of a pod or host into what an authority takes as `instance`.

    >>> instance_name("orders 7d9f\\u00fc")
    'orders-7d9f-'
    """
    return re.sub(r"[^A-Za-z0-9._:/-]", "-", name)[:128] or "-"


def read_signed(body: bytes) -> Signed:
    """Read a 200 of `POST /v1/sign`. Raises EnrolmentError. Nothing is verified here."""
    try:
        document: Any = parse_json(body)
        chain = document["chain"].encode("ascii")
        bundle = json.dumps(document["bundle"]).encode("ascii")
        encoded = document["crl"]
        crl = None if encoded is None else base64.b64decode(encoded, validate=True)
        leaf = read_chain(chain)[0]
    except (*_UNREADABLE, AttributeError, binascii.Error):
        raise EnrolmentError(
            "what the authority answered is no certificate with its bundle; see whether the url is that of an authority"
        ) from None
    if crl is not None and len(crl) > MAX_CRL_BYTES:
        raise EnrolmentError(f"the authority's revocation list is larger than {MAX_CRL_BYTES} bytes")
    return Signed(
        chain=chain,
        bundle=bundle,
        crl=crl,
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


def refusal(what: str, status: int, headers: Mapping[str, str], body: bytes) -> EnrolmentError:
    """Make the failure for an answer that is not what was asked for; `what` names that."""
    word = message = ""
    try:
        document = json.loads(body[:65_536].decode("utf-8"))
        word, message = str(document["reason"])[:64], str(document["message"])
    except _UNREADABLE:
        pass
    seconds = headers.get("retry-after", "")
    asked = float(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 9 else 0.0
    told = f"the authority answered {status} when it was asked for {what}"
    if word:
        told += f": {_one_line(word)}: {_one_line(message)}"
    elif status == 404:
        told += "; see whether the url is that of an authority"
    else:
        told += "; look at its log"
    return EnrolmentError(told, word=word, retry_after=asked, was_refused=status in (401, 403))


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_REASON_CHARACTERS]
