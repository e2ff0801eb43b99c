"""Keeps a sidecar enrolled with its authority: the first certificate, its renewals, the newest bundle and list.

    run:  due?  ---> _renew   new key in memory, POST /v1/sign ------> Enrolled --news?--> changed(), read() gives files
          poll? ---> _poll    GET /v1/bundle, GET /v1/crl  ----------> Enrolled --news?--> changed(), read() gives files

What is decided is decided in `proxy.identity.renewal` (when) and `proxy.identity.enrolled` (what is taken).

What holds:

1. A private key is made here, and leaves this memory only for a worker's. It is never written.
2. The first time a token and the bundle file are all there is. Then we come with the certificate that we have and the
   token as it is mounted now; where the certificate is not wanted, we begin anew without it.
3. A failure changes nothing that is in force. It is said once, with what to mend, and again when it is another one.
4. A bundle that counts here is confirmed by a poll some seconds later: the rotation of a root waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from cryptography import x509

from certs.bundle import MAX_BUNDLE_BYTES, BundleError, TrustBundle
from certs.bundle_feed import FeedError, next_poll
from certs.clocks import ClockWatch
from certs.crl import MAX_CRL_BYTES
from certs.keys import generate_key
from certs.profile import BACK_DATE
from certs.spiffe import SpiffeId
from certs.store import IdentitySet, SetError
from proxy.config_values import IdentityAuthority
from proxy.enrolment.authority_answers import Tags, take_certificate, take_poll
from proxy.enrolment.authority_client import Answered, Conversation, Question
from proxy.enrolment.authority_messages import (
    CRL_PATH,
    MAX_ANSWER_BYTES,
    SIGN_PATH,
    EnrolmentError,
    Signed,
    bundle_path,
    instance_name,
    read_signed,
    refusal,
    unless,
    write_sign_request,
)
from proxy.enrolment.authority_reach import Reach
from proxy.errors import ConfigError, Fault
from proxy.identity.enrolled import Enrolled, is_news
from proxy.identity.renewal import (
    NamedSkew,
    Renewal,
    clock_skew,
    confirmation_time,
    difference,
    duration_words,
)

LONGEST_NAP: Final = 30.0
"""Seconds until the clocks are looked at again, whatever is due when: a machine that slept, or whose clock was set, is
noticed within so long."""

_OWN_FAULT: Final = EnrolmentError("a fault of our own; its traceback stands in the log")
_Made = TypeVar("_Made")

_log = logging.getLogger("remora.enrolment")


class Enrolment:
    """One sidecar's enrolment. `run` until cancelled, `read` from any thread, then `close`."""

    def __init__(
        self,
        asks: IdentityAuthority,
        *,
        expected: SpiffeId,
        instance: str,
        in_force: Callable[[], TrustBundle | None],
        changed: Callable[[], None],
        now: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`expected` is who we are and `instance` which of those; `in_force` gives the bundle of our trust domain that
        handshakes are judged by now. `changed` is called when `read` has something else to say.
        """
        self._asks = asks
        self._expected = expected
        self._instance = instance_name(instance)
        self._in_force = in_force
        self._changed = changed
        self._now = now
        self._ticks = ticks
        self._woken = asyncio.Event()
        self._jitter = jitter
        self._reach = Reach(asks, expected.trust_domain, now)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enrol")
        self._enrolled: Enrolled | None = None
        self._published: Enrolled | None = None
        self._files: Mapping[str, bytes] | None = None
        self._renewal = Renewal()
        self._renewal_ticks = self._poll_ticks = ticks()
        self._poll_at = 0.0
        self._is_poll_wanted = False
        self._tags = Tags()
        self._clock = ClockWatch(now(), ticks())
        self._skew = NamedSkew()
        self.fault = ""
        """Why the last attempt for a certificate failed, "" when it did not."""
        self.poll_fault = ""
        """Why bundle or list could not be had at the last poll, "" when they could."""
        self.renewals = self.failures = 0

    # --- what others see ---

    def read(self) -> Mapping[str, bytes]:
        """Give what came from the authority as files in memory. Raises ConfigError while there is nothing valid."""
        files = self._files
        message = self.ended()
        if files is None:
            message = self.fault or "the authority is being asked for a certificate"
        if files is None or message:
            raise ConfigError([Fault(file=self._asks.url, message=message)])
        return files

    @property
    def renewal_due(self) -> float:
        """When the next certificate is asked for, in seconds since the epoch."""
        return self._renewal.due

    def standing(self) -> str:
        """Say how our certificate stands, for whoever looks at readiness."""
        now, enrolled = self._now(), self._enrolled
        if enrolled is None:
            return self.fault or "the authority is being asked"
        left, due = enrolled.identity_set.not_after - now, max(self._renewal.due - now, 0.0)
        words = f"{duration_words(left)} left, renewal in {duration_words(due)}" if left > 0 else "it has ended"
        return "; ".join([words, *(fault for fault in (self.fault, self.poll_fault) if fault)])

    def ended(self) -> str:
        """Say that our certificate has ended, and why there is no other; "" while it is valid or there is none yet."""
        enrolled = self._enrolled
        if enrolled is None or self._now() <= enrolled.identity_set.not_after:
            return ""
        return f"our certificate has ended and was not renewed: {self.fault or 'it is being renewed'}"

    # --- life ---

    async def run(self) -> None:
        """Ask whenever something is due, until cancelled."""
        while True:
            await self._step()

    def poll_now(self) -> None:
        """Ask for bundle and list now and not when it is due. Call it on the loop."""
        self._is_poll_wanted = True
        self._woken.set()

    def close(self) -> None:
        """End the thread; a judgement that is under way is waited for."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def _step(self) -> None:
        now, ticks, enrolled = self._now(), self._ticks(), self._enrolled
        if self._clock.look(now, ticks):
            _log.warning("%s", self._clock.news())
            # An answer of the authority says which of the clocks is wrong.
            self._poll_by(min(self._poll_at, confirmation_time(now, self._jitter())))
        # By either clock: one that was set back must not keep a certificate from being renewed.
        if now >= self._renewal.due or ticks >= self._renewal_ticks:
            await self._renew()
        elif enrolled is not None and (self._is_poll_wanted or now >= self._poll_at or ticks >= self._poll_ticks):
            await self._poll()
        else:
            waits = [self._renewal.due - now, self._renewal_ticks - ticks, LONGEST_NAP]
            if enrolled is not None:
                waits += [self._poll_at - now, self._poll_ticks - ticks]
                if (left := enrolled.identity_set.not_after - now) > 0:
                    waits.append(left)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(min(waits), 0.01)):
                    await self._woken.wait()
            self._woken.clear()

    # --- certificates ---

    async def _renew(self) -> None:
        began = self._now()
        try:
            await self._once_more_as_nobody(self._sign)
        except EnrolmentError as failure:
            self._fail(failure)
            return
        except Exception:
            _log.exception("renewal failed by a fault of our own; what is in force stays")
            self._fail(_OWN_FAULT)
            return
        enrolled, now = self._enrolled, self._now()
        if enrolled is None:
            return
        leaf, end = enrolled.identity_set.chain[0], enrolled.identity_set.not_after
        self._plan(Renewal().issued(leaf.not_valid_before_utc.timestamp(), end, now, self._jitter()))
        self.renewals += 1
        self.fault = ""
        _log.info(
            "the authority gave a certificate in %.0f ms: serial %s, %s left, renewal in %s",
            (now - began) * 1000,
            enrolled.identity_set.serial,
            duration_words(end - now),
            duration_words(self._renewal.due - now),
        )
        # A bundle came with it, and perhaps another one than before.
        self._poll_by(confirmation_time(now, self._jitter()))
        self._publish(now)

    async def _sign(self, own: IdentitySet | None) -> None:
        token = await self._in_thread(self._reach.read_token, own)
        key = generate_key()
        body = write_sign_request(
            key,
            token=token,
            lifetime=self._asks.lifetime,
            bundle_sequence=self._sequence_in_force(),
            instance=self._instance,
        )
        talk = await self._ask(own, [Question(method="POST", path=SIGN_PATH, limit=MAX_ANSWER_BYTES, body=body)])
        answered = talk.answers[0]
        if answered.status != 200:
            self._look_at_clock(answered)
            raise refusal("a certificate", answered.status, answered.headers, answered.body)
        signed = read_signed(answered.body)
        self._look_at_clock(answered, signed)
        try:
            self._enrolled, warnings = await self._in_thread(
                partial(take_certificate, expected=self._expected, source=self._asks.url, now=self._now()),
                self._enrolled,
                signed,
                key,
                _issuers(talk),
            )
        except (FeedError, BundleError, SetError) as failure:
            words = str(failure).replace("\n", "; ")
            skew = f"; {self._skew.words}" if self._skew.words else ""
            raise EnrolmentError(f"what the authority gave cannot be taken: {words}{skew}") from failure
        for warning in warnings:
            _log.warning("%s", warning)

    def _fail(self, failure: EnrolmentError) -> None:
        self.failures += 1
        now, words = self._now(), str(failure)
        self._plan(self._renewal.failed(now, self._jitter(), failure.retry_after))
        if words == self.fault:
            return
        self.fault = words
        enrolled = self._enrolled
        if enrolled is None:
            self._changed()  # whoever reads says it
        else:
            left = duration_words(max(enrolled.identity_set.not_after - now, 0.0))
            _log.warning("our certificate cannot be renewed, the one in force has %s left: %s", left, words)

    def _plan(self, renewal: Renewal) -> None:
        self._renewal = renewal
        self._renewal_ticks = self._ticks() + max(renewal.due - self._now(), 0.0)

    # --- bundle and list ---

    async def _poll(self) -> None:
        self._is_poll_wanted = False
        try:
            await self._once_more_as_nobody(self._fetch)
        except EnrolmentError as failure:
            self._say_poll_faults([str(failure)])
        except Exception:
            _log.exception("a poll failed by a fault of our own; what is in force stays")
            self._say_poll_faults([str(_OWN_FAULT)])
        now, enrolled = self._now(), self._enrolled
        if enrolled is None:
            return
        self._poll_by(next_poll(enrolled.bundle.refresh_hint, now, self._jitter()))
        if self._publish(now):
            self._poll_by(min(self._poll_at, confirmation_time(now, self._jitter())))
        why = await self._in_thread(enrolled.needs_renewal, now)
        if why and not self._renewal.failures:
            _log.warning("our certificate is renewed now: %s", why)
            self._plan(self._renewal.at_once(now))

    async def _fetch(self, own: IdentitySet | None) -> None:
        path = bundle_path(None if own is None else self._sequence_in_force(), self._instance)
        headers = {"accept": "application/json"} | unless(self._tags.bundle)
        questions = [
            Question(method="GET", path=path, limit=MAX_BUNDLE_BYTES, headers=headers),
            Question(method="GET", path=CRL_PATH, limit=MAX_CRL_BYTES, headers=unless(self._tags.listed)),
        ]
        talk = await self._ask(own, questions)
        bundle, listed = talk.answers
        self._look_at_clock(bundle)
        enrolled = self._enrolled
        if enrolled is None:
            return
        polled = await self._in_thread(
            partial(take_poll, source=self._asks.url, now=self._now()),
            enrolled,
            self._tags,
            bundle,
            listed,
            _issuers(talk),
        )
        self._enrolled, self._tags = polled.enrolled, polled.tags
        self._say_poll_faults(polled.faults)

    def _say_poll_faults(self, faults: Sequence[str]) -> None:
        words = "; ".join(faults)
        if words and words != self.poll_fault:
            _log.warning("bundle and revocation list of the authority: %s; what is held stays in force", words)
        elif self.poll_fault and not words:
            _log.info("bundle and revocation list of the authority can be had again")
        self.poll_fault = words

    def _poll_by(self, moment: float) -> None:
        self._poll_at = moment
        self._poll_ticks = self._ticks() + max(moment - self._now(), 0.0)

    def _publish(self, now: float) -> bool:
        """Put out what is held, if it is news."""
        enrolled = self._enrolled
        if enrolled is None or not is_news(self._published, enrolled, now):
            return False
        self._published, self._files = enrolled, enrolled.files()
        self._changed()
        return True

    # --- the conversation ---

    async def _once_more_as_nobody(self, act: Callable[[IdentitySet | None], Awaitable[None]]) -> None:
        """Act with the certificate that we have; where that is not wanted, without one."""
        own = self._own_certificate()
        try:
            await act(own)
        except EnrolmentError as failure:
            if own is None or not failure.was_refused:
                raise
            _log.info("the authority does not take our certificate, asking without one: %s", failure)
            await act(None)

    def _own_certificate(self) -> IdentitySet | None:
        enrolled = self._enrolled
        if enrolled is None or self._now() > enrolled.identity_set.not_after:
            return None
        return enrolled.identity_set

    async def _ask(self, own: IdentitySet | None, questions: Sequence[Question]) -> Conversation:
        held = None if self._enrolled is None else self._enrolled.bundle
        return await self._reach.ask(await self._in_thread(self._reach.read_bundles, held), own, questions)

    def _sequence_in_force(self) -> int | None:
        bundle = self._in_force()
        return None if bundle is None else bundle.sequence

    def _look_at_clock(self, answered: Answered, signed: Signed | None = None) -> None:
        """Name a clock that is off: by the Date of the answer, or by the begin of what was issued."""
        skew = clock_skew(answered.headers.get("date", ""), answered.sent, answered.received)
        if skew is None:
            if signed is None:
                return
            issued_at = signed.not_before + BACK_DATE.total_seconds()
            skew = difference(issued_at, answered.sent, answered.received)
        if words := self._skew.take(skew):
            _log.warning("%s", words)

    async def _in_thread(self, work: Callable[..., _Made], *arguments: Any) -> _Made:
        """Read and judge off the loop: a disk may wait, and a long list takes a tenth of a second."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _issuers(talk: Conversation) -> list[x509.Certificate]:
    """Give the signing certificates that the authority itself stands on: one of them signs its list."""
    return [x509.load_der_x509_certificate(der) for der in talk.authority.chain[1:-1]]
