"""Keeps an authority: takes each change through the store first, and only then lets the service see it.

    advance      takes the steps of a rotation that are due, and does what each of them asks for
    the others   the index, the book of join tokens, the list of revocations: one method for each change

The order is always the same: write, then swap `held`. A store that fails raises StateError, and `held` is the one from
before. One thread calls a Keeper, and both clocks are arguments: `now` of the calendar, aware of its zone, and `ticks`
in seconds of a clock that never jumps.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Final

from certs.authority import Authority
from certs.clocks import ClockWatch, shifted
from certs.confirmations import ConfirmationBatch
from certs.crl import CRL_LIFETIME
from certs.crl_extension import CrlError
from certs.documents import Documents
from certs.held import Held, HeldError, hold, make_authority, make_bundle, sign_list
from certs.joins import JoinBook, JoinBookError, new_token
from certs.replicas import Replicas
from certs.revocations import Kind, Reason, Revocation, RevocationError, Revocations, whole_seconds
from certs.revocations_json import revocations_from_json, revocations_to_json
from certs.rotation import (
    Action,
    Do,
    Event,
    Revoked,
    RotationError,
    RotationState,
    advance,
    crowds,
    is_waited_for,
)
from certs.signers import intermediate_made, judge_pair, pair_made, root_made, signer_name
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain
from certs.state_store import JOINS, REVOCATIONS, IssuedEntry, StateConflict, StateError, StateInDoubt, StateStore
from certs.successors import next_intermediate, next_root

FORGET_EVERY: Final = datetime.timedelta(hours=1)
"""How often the store forgets what has ended: an index is written anew then, 25 MB for 100,000 certificates."""

SWAPS: Final = 3
"""How often a change is tried again that another replica was faster with."""

RELOAD_SECONDS: Final = 10.0
"""How old the state of a replica may be. A revocation that the leader enters is known to the others so much later."""


class Keeper:
    """One authority, loaded from its store. Raises StateError when the store holds none, or a damaged one.

    `trouble` says what is wrong with the reports of sidecars, "" when nothing is; `clock` whether the calendar was set;
    `on_action` is called with each action of a rotation once it is done, whatever it followed from.
    """

    def __init__(
        self,
        store: StateStore,
        now: datetime.datetime,
        ticks: float,
        *,
        crl_lifetime: datetime.timedelta = CRL_LIFETIME,
        replicas: Replicas | None = None,
    ) -> None:
        self._store = store
        self._documents = Documents(store)
        self._forget_at = now + FORGET_EVERY
        self._crl_lifetime = crl_lifetime
        self._replicas = replicas
        self._has_led = False
        self._reload_at = ticks + RELOAD_SECONDS
        self._reports = ConfirmationBatch(ticks)
        self.clock = ClockWatch(now.timestamp(), ticks)
        self._clock_went = 0.0
        self.trouble = ""
        self.on_action: Callable[[Action], None] = lambda action: None
        self.held: Held = self._load(now, None)

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain that this authority signs for."""
        return self.held.authority.trust_domain

    def reload(self, now: datetime.datetime) -> None:
        """Takes what the store holds, which somebody else may have written. Raises StateError, and nothing changes."""
        self.held = self._load(now, self.held)

    def close(self, now: datetime.datetime, ticks: float) -> None:
        """Writes the reports that were not written yet, and lets the store go."""
        try:
            self.settle(now, ticks)
        finally:
            self._store.close()

    # --- certificates ---

    def record(self, entry: IssuedEntry) -> None:
        """Writes a certificate into the index, which remembers how long its signer is needed."""
        self._store.record(entry)

    def confirm(self, sidecar: str, sequence: int | None, now: datetime.datetime) -> None:
        """Remembers which bundle a sidecar holds; one that does not say (None) is waited for until it does."""
        if sequence is None:
            known = self.held.state.confirmations.get(sidecar)
            sequence = 0 if known is None else known.sequence
        self._reports.note(sidecar, sequence, now.timestamp())

    def settle(self, now: datetime.datetime, ticks: float) -> None:
        """Takes in at once what sidecars have reported. Raises StateError."""
        if len(self._reports) and self._decides():
            self._clock_went += self.clock.look(now.timestamp(), ticks)
            self._follow_clock(now)
            self._take_reports(now, ticks)

    # --- rotation ---

    def advance(self, now: datetime.datetime, ticks: float, events: Sequence[Event] = ()) -> list[Action]:
        """Takes in `events` and what was issued and reported, then every step that is due; returns what was done.

        Raises RotationError for an event that does not fit, StateError when a step cannot be written: it is then
        taken again the next time.
        """
        self._clock_went += self.clock.look(now.timestamp(), ticks)
        try:
            if self._replicas is not None and not self._takes_the_lead(self._replicas, now, ticks, events):
                self._clock_went = 0.0  # the leader waits, by its own clock
                return []
            return self._advance(now, ticks, events)
        except (StateConflict, StateInDoubt):
            # What stands in the store is not what is held: it is read before anything else is decided.
            self.reload(now)
            raise

    def _advance(self, now: datetime.datetime, ticks: float, events: Sequence[Event]) -> list[Action]:
        self._follow_clock(now)
        self._catch_up(now)
        self._take_ends()
        done: list[Action] = []
        revoked = frozenset(map(str, self.held.revocations.blocked))
        if revoked and is_waited_for(self.held.state, revoked):
            events = [Revoked(identities=revoked), *events]
        if self._reports.is_due(ticks) or (events and len(self._reports)):
            done += self._take_reports(now, ticks)
        queue = list(events)
        while True:
            actions, made = self._follow(advance(self.held.state, now.timestamp(), queue), now)
            done += actions
            if made is None:
                return done
            queue = [made]

    def import_signers(self, imported: Authority, now: datetime.datetime, ticks: float) -> list[Action]:
        """Takes an intermediate, and its root if that is a new one, which were made elsewhere (`Authority.load`).

        Raises SignerError when they may not sign for this trust domain, RotationError when nothing of the kind is
        awaited. The root's key is not taken, even when it is there.
        """
        judge_pair(imported, self.trust_domain, now)
        state = self.held.state
        events = pair_made(imported.root, imported.intermediate, state)
        # Whether they are awaited is asked before anything is written.
        advance(state, now.timestamp(), events)
        if signer_name(imported.root) not in state.signers:
            self._store.add_signer(imported.root, None)
        self._store.add_signer(imported.intermediate, imported.intermediate_key)
        return self.advance(now, ticks, events)

    # --- revocation ---

    def revocation_of(self, kind: Kind, value: str, now: datetime.datetime, *, reason: Reason, who: str) -> Revocation:
        """Shapes a revocation; the end and the key of a serial come from the index. Raises RevocationError.

        A serial that is not in the index is revoked until the intermediate ends, and its key is not known.
        """
        end: datetime.datetime | None = None
        key: str | None = None
        value = _plain(kind, value)
        if kind is Kind.SERIAL:
            entry = next((entry for entry in self._store.issued if entry.serial == value), None)
            end = self.held.authority.intermediate.not_valid_after_utc
            if entry is not None:
                end = datetime.datetime.fromtimestamp(int(entry.not_after), datetime.UTC)
                key = entry.key
        if kind is Kind.IDENTITY:
            self._check_own(value)
        return Revocation(
            kind=kind, value=value, when=whole_seconds(now), reason=reason, who=who, not_after=end, key=key
        )

    def revoke(self, entry: Revocation, now: datetime.datetime) -> Revocations:
        """Enters a revocation and signs the list anew. Raises RevocationError and StateError."""
        return self._replace_revocations(self.held.revocations.add(entry), now)

    def lift(self, kind: Kind, value: str, now: datetime.datetime) -> Revocations:
        """Takes a revocation back. Raises RevocationError and StateError."""
        last = max(signer.not_after for signer in self.held.state.intermediates)
        end = datetime.datetime.fromtimestamp(last, datetime.UTC)
        lifted = self.held.revocations.lift(kind, _plain(kind, value), now, issuer_end=end)
        return self._replace_revocations(lifted, now)

    def refresh(self, now: datetime.datetime) -> None:
        """Signs the list anew when that is due; who decides drops what has ended from the list and from the store."""
        if self.held.crl.is_due(now):
            crl = sign_list(self.held.revocations, self.held.authority, now, self._crl_lifetime)
            self.held = dataclasses.replace(self.held, crl=crl)
        if not self._decides():
            return  # it is for the leader, whose list comes with the next reload
        pruned = self.held.revocations.pruned(now)
        if pruned is not self.held.revocations:
            self._replace_revocations(pruned, now)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY
            self._store.forget((now - datetime.timedelta(seconds=self.held.state.pace.margin)).timestamp())

    # --- join tokens ---

    def make_token(self, spiffe_id: SpiffeId, now: datetime.datetime, *, made_by: str, lifetime: float) -> str:
        """Makes a join token for one identity and `lifetime` seconds. Raises JoinBookError and StateError."""
        if spiffe_id.trust_domain != self.trust_domain:
            raise JoinBookError(f"{spiffe_id} is not of {self.trust_domain}; make the token at its own authority")
        token = new_token()
        for _ in range(SWAPS):
            before = self.held.joins
            after = before.create(token, spiffe_id, made_by=made_by, now=now.timestamp(), lifetime=lifetime)
            if self.replace_joins(before, after):
                return token
        raise JoinBookError("others change the book of join tokens all the time; try again")

    def replace_joins(self, before: JoinBook, after: JoinBook) -> bool:
        """Stores a book in the place of another; False when somebody else was faster."""
        if before is not self.held.joins:
            return False
        if not self._documents.replace(JOINS, after.to_json()):
            self.held = dataclasses.replace(self.held, joins=self._documents.read(JOINS, JoinBook.from_json))
            return False
        self.held = dataclasses.replace(self.held, joins=after)
        return True

    def _decides(self) -> bool:
        return self._replicas is None or self._replicas.leads()

    # --- the steps ---

    def _follow_clock(self, now: datetime.datetime) -> None:
        """Moves what is waited for along with a calendar that was set: no wait gets shorter or longer by that."""
        if not self._clock_went:
            return
        state = shifted(self.held.state, self._clock_went)
        try:
            self._store.save(state)
        except StateInDoubt:
            self.reload(now)
            if self.held.state.published_at == state.published_at:
                self._clock_went = 0.0  # it was written all the same; twice would be a wait that is too short
            raise
        self.held = dataclasses.replace(self.held, state=state)
        self._clock_went = 0.0

    def _catch_up(self, now: datetime.datetime) -> None:
        """Does what the state asks for and a fault kept from being done when it was written."""
        held = self.held
        if signer_name(held.authority.intermediate) != held.state.active.name:
            self._do(Action(do=Do.USE), now)
        if held.bundle.sequence != held.state.sequence:
            self._do(Action(do=Do.PUBLISH), now)

    def _take_ends(self) -> None:
        """Takes into memory how long each signer is needed; the index says it after a crash."""
        state = self.held.state.with_ends(self._store.ends())
        if state != self.held.state:
            self.held = dataclasses.replace(self.held, state=state)

    def _take_reports(self, now: datetime.datetime, ticks: float) -> list[Action]:
        event = self._reports.drain(ticks)
        try:
            steps = advance(self.held.state, now.timestamp(), [event])
        except RotationError as error:
            # An operator's order must not be held up by it: whoever is not remembered has to be waited for by a person.
            self.trouble = str(error)
            return []
        full = crowds(steps[-1][0]) if steps else []
        self.trouble = f"no more instances are taken of {', '.join(full)}; see who names so many" if full else ""
        try:
            # What only a Keeper can go on from is named again by the next `advance`.
            return self._follow([step for step in steps if step[1].do not in _MADE_HERE], now)[0]
        except StateError:
            self._reports.restore(event)
            raise

    def _follow(
        self, steps: Sequence[tuple[RotationState, Action]], now: datetime.datetime
    ) -> tuple[list[Action], Event | None]:
        """Writes each state and does its action; returns the actions, and the event that the last of them made."""
        done: list[Action] = []
        made: Event | None = None
        for state, action in steps:
            if state != self.held.state:
                self._store.save(state)
                self.held = dataclasses.replace(self.held, state=state)
            made = self._do(action, now)
            if action.do is not Do.NOTHING:
                done.append(action)
                self.on_action(action)
        return done, made

    def _do(self, action: Action, now: datetime.datetime) -> Event | None:
        held = self.held
        match action.do:
            case Do.MAKE_ROOT:
                return self._make_root(now)
            case Do.MAKE_INTERMEDIATE:
                return self._make_intermediate(action.signer, now)
            case Do.PUBLISH:
                bundle = make_bundle(held.state, self._store.certificate, self.trust_domain)
                self.held = hold(held.state, held.authority, bundle, held.revocations, held.crl, held.joins)
                if action.signer:
                    self._store.destroy_key(action.signer)
            case Do.USE:
                authority = make_authority(held.state, self._store.certificate, self._store.key)
                crl = sign_list(held.revocations, authority, now, self._crl_lifetime)
                self.held = dataclasses.replace(held, authority=authority, crl=crl)
            case Do.DESTROY_KEY:
                self._store.destroy_key(action.signer)
            case Do.NOTHING | Do.AWAIT_IMPORT:
                pass
        return None

    def _make_root(self, now: datetime.datetime) -> Event:
        root, key = next_root(self.held.state, self.trust_domain, now)
        self._store.add_signer(root, key)
        return root_made(root)

    def _make_intermediate(self, above: str, now: datetime.datetime) -> Event:
        root, present = self._store.certificate(above), self.held.authority.intermediate
        made, key = next_intermediate(self.held.state, present, root, self._store.key(above), self.trust_domain, now)
        name = self._store.add_signer(made, key)
        self._store.key(name)  # what does not open again must not become the one that signs
        return intermediate_made(made, root)

    def _load(self, now: datetime.datetime, held: Held | None) -> Held:
        store = self._store
        state = store.load()
        joins = self._documents.read(JOINS, JoinBook.from_json)
        revocations = self._documents.read(REVOCATIONS, revocations_from_json)
        try:
            # What has not changed is kept: to open a key may ask a KMS, and each signature makes another list.
            is_same_signer = held is not None and signer_name(held.authority.intermediate) == state.active.name
            authority = (
                held.authority
                if held is not None and is_same_signer
                else make_authority(state, store.certificate, store.key)
            )
            bundle = make_bundle(state, store.certificate, authority.trust_domain)
            crl = (
                held.crl
                if held is not None and is_same_signer and held.revocations == revocations
                else sign_list(revocations, authority, now, self._crl_lifetime)
            )
        except (HeldError, CrlError) as error:
            raise StateError(str(error)) from None
        return hold(state, authority, bundle, revocations, crl, joins)

    def _takes_the_lead(
        self, replicas: Replicas, now: datetime.datetime, ticks: float, events: Sequence[Event]
    ) -> bool:
        """Tells whether this replica decides; reads what others wrote when that is due, or when the lead changes."""
        leads = replicas.leads()
        if not leads and events:
            raise StateConflict(
                f"this replica does not lead; give the order to {replicas.leader() or 'the one that does'}"
            )
        if not leads and self._reports.is_due(ticks):
            event = self._reports.drain(ticks)
            try:
                replicas.report(event.reports)
            except StateError:
                self._reports.restore(event)
                raise
        if ticks >= self._reload_at or leads is not self._has_led:
            self.reload(now)
            self._reload_at, self._has_led = ticks + RELOAD_SECONDS, leads
        return leads

    def _replace_revocations(self, after: Revocations, now: datetime.datetime) -> Revocations:
        if after is self.held.revocations:
            return after
        crl = sign_list(after, self.held.authority, now, self._crl_lifetime)
        if not self._documents.replace(REVOCATIONS, revocations_to_json(after)):
            self.reload(now)
            raise StateConflict("somebody else changed the list of revocations at this moment; try again")
        self.held = dataclasses.replace(self.held, revocations=after, crl=crl)
        return after

    def _check_own(self, value: str) -> None:
        try:
            trust_domain = SpiffeId.parse(value).trust_domain
        except SpiffeIdError:
            return  # Revocation says what is wrong with it
        if trust_domain != self.trust_domain:
            raise RevocationError(f"{value} is not of {self.trust_domain}; revoke it at its own authority")


_MADE_HERE = frozenset({Do.MAKE_ROOT, Do.MAKE_INTERMEDIATE})


def _plain(kind: Kind, value: str) -> str:
    """Writes a serial as the index has it; other programs put colons or zeros in front."""
    return value.lower().removeprefix("0x").replace(":", "").lstrip("0") if kind is Kind.SERIAL else value
