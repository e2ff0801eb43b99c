"""What an operator orders, carried out on a keeper: by the running service, or by the command itself without one.

A command takes texts and gives the text that is shown. What cannot be done is CommandFailed, with the mend.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority, AuthorityError
from certs.bundle import BundleError
from certs.crl_extension import CrlError
from certs.held import HeldError
from certs.joins import JoinBookError
from certs.keeper import Keeper
from certs.revocations import Kind, Reason, RevocationError, sorted_entries
from certs.rotation import Action, Do, Event, Force, Rotate, RotationError, Wanted
from certs.rotation_words import status_words
from certs.signers import SignerError
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.state_store import StateError

_FAILURES = (
    AuthorityError,
    BundleError,
    CrlError,
    HeldError,
    JoinBookError,
    RevocationError,
    RotationError,
    SignerError,
    SpiffeIdError,
    StateError,
)

Arguments = Mapping[str, str]

_DONE: Final[Mapping[Do, str]] = {
    Do.MAKE_ROOT: "made a root",
    Do.MAKE_INTERMEDIATE: "made an intermediate under root",
    Do.AWAIT_IMPORT: "waiting for an import",
    Do.PUBLISH: "published the bundle",
    Do.USE: "signing with the new intermediate",
    Do.DESTROY_KEY: "destroyed a key",
}


class CommandFailed(ValueError):
    """A command that was not carried out; nothing was changed, unless the message says so."""


def run_command(keeper: Keeper, command: str, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    """Carry out one command and give what is to be shown. Raises CommandFailed.

    KeyError and TypeError are for arguments that no command of this release sends.
    """
    try:
        return _COMMANDS[command](keeper, arguments, now, ticks)
    except _FAILURES as error:
        raise CommandFailed(str(error)) from None


def _status(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    keeper.settle(now, ticks)
    keeper.advance(now, ticks)
    held = keeper.held
    state, intermediate = held.state, held.authority.intermediate
    lines = [f"authority of {keeper.trust_domain}", *status_words(state, now.timestamp())]
    for name, certificate in (("root", held.authority.root), ("intermediate", intermediate)):
        lines.append(f"{name} ends {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    current = sum(known.sequence >= state.sequence for known in state.confirmations.values())
    lines.append(f"{current} of {len(state.confirmations)} known sidecars hold bundle sequence {state.sequence}")
    waiting = sum(entry.used_at is None for entry in held.joins.pruned(now.timestamp()).entries.values())
    lines.append(f"{waiting} join tokens can be used")
    lines.append(
        f"revocation list {held.revocations.sequence}, signed until {held.crl.next_update:%Y-%m-%d %H:%M:%S} UTC"
    )
    lines += [f"  {entry}, by {entry.who}" for _, entry in sorted_entries(held.revocations.entries)]
    if keeper.trouble:
        lines.append(f"reports of sidecars are not taken: {keeper.trouble}")
    return _text(lines)


def _rotate(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    what = arguments["what"]
    if what == "import":
        done = keeper.import_signers(Authority.load(Path(arguments["from"])), now, ticks)
        told = f"the key in {arguments['from']} is sealed in the authority now: remove it there"
        return _text([*_words(done), told, *status_words(keeper.held.state, now.timestamp())])
    wanted = Wanted(what)
    force = frozenset(filter(None, arguments.get("force", "").split(",")))
    events: list[Event] = [Force(left_behind=force)] if force else [Rotate(what=wanted)]
    if force and wanted is not Wanted.ROOT:
        raise RotationError("only a rotation of the root waits for sidecars; leave --force out")
    done = keeper.advance(now, ticks, events)
    return _text([*_words(done), *status_words(keeper.held.state, now.timestamp())])


def _revoke(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    kind = Kind(arguments["kind"])
    entry = keeper.revocation_of(
        kind, arguments["value"], now, reason=Reason(arguments["reason"]), who=arguments["who"]
    )
    before = keeper.held.revocations.sequence
    after = keeper.revoke(entry, now)
    verdict = "it stands in" if after.sequence != before else "it stood already in"
    return _text([f"{entry}; {verdict} revocation list {after.sequence}"])


def _lift(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    kind = Kind(arguments["kind"])
    after = keeper.lift(kind, arguments["value"], now)
    words = f"{kind.value} {arguments['value']} is lifted in revocation list {after.sequence}"
    if kind is Kind.IDENTITY:
        words += "; certificates from before stay refused"
    return _text([words])


def _export(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    keeper.refresh(now)
    held, what = keeper.held, arguments["what"]
    if what == "crl":
        return x509.load_der_x509_crl(held.crl.der).public_bytes(Encoding.PEM).decode("ascii")
    if what == "intermediate":
        return held.authority.intermediate.public_bytes(Encoding.PEM).decode("ascii")
    if arguments["form"] == "pem":
        return held.bundle.to_pem().decode("ascii")
    return held.bundle_answer.body.decode("utf-8")


def _token(keeper: Keeper, arguments: Arguments, now: datetime.datetime, ticks: float) -> str:
    spiffe_id = SpiffeId.parse(arguments["identity"])
    lifetime = float(arguments["lifetime"])
    return keeper.make_token(spiffe_id, now, made_by=arguments["who"], lifetime=lifetime) + "\n"


_COMMANDS: Final[Mapping[str, Callable[[Keeper, Arguments, datetime.datetime, float], str]]] = {
    "status": _status,
    "rotate": _rotate,
    "revoke": _revoke,
    "lift": _lift,
    "export": _export,
    "token": _token,
}


def _words(done: list[Action]) -> list[str]:
    return [f"{_DONE[action.do]} {action.signer[:12]}".rstrip() for action in done if action.do in _DONE]


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
