"""Elects the replica of the authority that may write, by a Lease of Kubernetes (coordination.k8s.io/v1).

Each replica reads the Lease every `retry_period`, calls `observe`, then `decide`, and does what that says. A write
carries the resourceVersion that was read, so of two replicas that acquire at once the API server refuses one.

1. No clock is compared with another machine's. The Lease has expired when neither its content nor its resourceVersion
   has changed for its duration by our own monotonic clock (`local`, seconds), counted from when we first saw them. The
   renewTime would not do: a holder whose wall clock stands still writes the same one again, and has renewed all the
   same. A wall clock that jumps by an hour moves nothing but the text that is written.
2. A leader stops before the others may begin: it counts as such for `renew_deadline` after the *begin* of its last
   successful renewal, the others wait for the longer `lease_duration` after they have *seen* it.
3. `me` is a name of one process alone (the pod's uid and a random part). Who finds their own name there renews.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

_MAX_DURATION = 3600.0
"""A Lease that claims more (a typing error, or another program's) holds everybody up for an hour and no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who we are and the times of the election, in seconds: client-go's own defaults.

    A shorter lease changes leaders sooner and writes more often; one below a few seconds changes them whenever the
    API server is slow. Raises ValueError unless retry_period < renew_deadline < lease_duration.
    """

    me: str
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.me:
            raise ValueError("a replica needs a name of its own in the Lease; give it the uid of its pod")
        if not 0 < self.retry_period < self.renew_deadline < self.lease_duration <= _MAX_DURATION:
            raise ValueError(
                f"the times of the Lease must keep retry < renew < duration <= {_MAX_DURATION:.0f} s, and they are "
                f"{self.retry_period:g}, {self.renew_deadline:g} and {self.lease_duration:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What this replica has seen: the Lease's content, and when (`local`) it first was so.

    `version` is the API server's for that content. `renewed_at` is when our last successful write began, None while we
    do not lead.
    """

    spec: Mapping[str, object] | None = None
    version: object = None
    observed_at: float = 0.0
    renewed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """Write this Lease to become the leader: create it when it has no resourceVersion, else update."""

    document: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """Write this Lease to stay the leader."""

    document: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody else (`holder`) leads: look again at `until` at the latest, by our monotonic clock."""

    until: float
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """We led and do not any more: stop writing at once; `why` is for the log. Go on with `stepped_down`."""

    why: str


Decision = Acquire | Renew | Wait | Lost


def observe(view: View, lease: Mapping[str, object] | None, local: float) -> View:
    """Takes in a Lease that was just read (None: there is none); `local` is our monotonic clock.

    >>> seen = observe(View(), {"spec": {"holderIdentity": "b"}}, 100.0)
    >>> observe(seen, {"spec": {"holderIdentity": "b"}}, 105.0).observed_at
    100.0
    """
    spec = None if lease is None else _object(lease, "spec")
    version = _version(lease)
    if view.spec is not None and (spec, version) == (view.spec, view.version):
        return view
    return dataclasses.replace(view, spec=spec, version=version, observed_at=local)


def renewed(view: View, lease: Mapping[str, object], began: float) -> View:
    """Takes in that the API server took our Acquire or Renew, which we began to send at `began`."""
    return View(spec=_object(lease, "spec"), version=_version(lease), observed_at=began, renewed_at=began)


def stepped_down(view: View) -> View:
    """Forgets that we led."""
    return dataclasses.replace(view, renewed_at=None)


def leads(view: View, terms: Terms, local: float) -> bool:
    """Tells whether we may write at `local`. To be asked before every write, with no question to the network.

    >>> leads(View(renewed_at=100.0), Terms(me="a"), 109.0), leads(View(renewed_at=100.0), Terms(me="a"), 110.0)
    (True, False)
    """
    return view.renewed_at is not None and local - view.renewed_at < terms.renew_deadline


def decide(
    lease: Mapping[str, object] | None, view: View, terms: Terms, now: datetime.datetime, local: float
) -> Decision:
    """Decides what to do about the Lease that was just read and taken in by `observe`.

    `now` (aware of its time zone) is only written; `local` (monotonic seconds) is what decides.

    >>> now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    >>> held = {"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 15}}
    >>> view = observe(View(), held, 100.0)
    >>> decide(held, view, Terms(me="a"), now, 110.0)
    Wait(until=112.0, holder='b')
    >>> decide(held, view, Terms(me="a"), now, 115.0).document["spec"]["holderIdentity"]
    'a'
    """
    spec = {} if lease is None else _object(lease, "spec")
    holder = spec.get("holderIdentity")
    holder = holder if isinstance(holder, str) else ""
    if view.renewed_at is not None:
        if holder != terms.me:
            return Lost(why=f"the Lease is held by {holder[:100]!r} now" if holder else "the Lease was taken from us")
        if not leads(view, terms, local):
            return Lost(why=f"it was not renewed for {local - view.renewed_at:.0f} s; is the API server reachable?")
    if holder == terms.me:
        return Renew(document=_document(lease, spec, terms, now, taken=False))
    if holder:
        end = view.observed_at + _duration(spec, terms)
        if local < end:
            return Wait(until=min(end, local + terms.retry_period), holder=holder)
    return Acquire(document=_document(lease, spec, terms, now, taken=True))


def released(lease: Mapping[str, object], terms: Terms, now: datetime.datetime) -> Mapping[str, object]:
    """Makes the Lease to write when a leader ends in order: the next one need not wait for its end."""
    spec = {**_object(lease, "spec"), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(now)}
    return {**lease, "spec": spec}


def micro_time(now: datetime.datetime) -> str:
    """Writes a time as Kubernetes' MicroTime: UTC, always six decimals.

    >>> micro_time(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    '2026-01-01T00:00:00.000000Z'
    """
    if now.tzinfo is None:
        raise ValueError("the time must be aware of its time zone")
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _document(
    lease: Mapping[str, object] | None,
    spec: Mapping[str, object],
    terms: Terms,
    now: datetime.datetime,
    *,
    taken: bool,
) -> Mapping[str, object]:
    before = spec.get("leaseTransitions")
    transitions = before if isinstance(before, int) and not isinstance(before, bool) and before >= 0 else 0
    begun = {"acquireTime": micro_time(now)} if taken or "acquireTime" not in spec else {}
    # The first holder of all is no transition, as with client-go.
    changes = transitions + (1 if taken and lease is not None else 0)
    ours: dict[str, object] = {
        "holderIdentity": terms.me,
        "leaseDurationSeconds": round(terms.lease_duration),
        "renewTime": micro_time(now),
        "leaseTransitions": changes,
        **begun,
    }
    base = lease if lease is not None else {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    return {**base, "spec": {**spec, **ours}}


def _version(lease: Mapping[str, object] | None) -> object:
    return None if lease is None else _object(lease, "metadata").get("resourceVersion")


def _duration(spec: Mapping[str, object], terms: Terms) -> float:
    seconds = spec.get("leaseDurationSeconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
        return terms.lease_duration
    return min(float(seconds), _MAX_DURATION)


def _object(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
