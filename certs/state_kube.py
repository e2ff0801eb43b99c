"""Keeps the state of an authority in Kubernetes, for several replicas that all sign and of which one decides.

    Secret     <name>-state                   what certs.rotation remembers; its replacement is a decision
    Secret     <name>-issued                  one value for each replica: until when its leaves may live, by signer
    Secret     <name>-joins                   join tokens, by their hashes            (certs.kube_blobs)
    Secret     <name>-revocations             what is revoked                         (certs.kube_blobs)
    Secret     <name>-confirmations-<replica> what sidecars said to one replica       (certs.kube_blobs)
    Secret     <name>-key-<signer>            the key of a root or intermediate, sealed (certs.sealed)
    ConfigMap  <name>-certificate-<signer>    its certificate; the name is its SHA-256, so nobody can put in another

What decides is in Secrets, secret or not: a ConfigMap may be written by many, and a revocation is gone with a line.

1. Only the leader (certs.election) writes the state, signers and revocations, and it writes them under the
   resourceVersion that it has read: of two that both believe to lead, one gets StateConflict and gives way.
2. Every replica signs. Before a leaf leaves, `<name>-issued` holds an end that is not before the leaf's, so that the
   leader keeps the root above for as long. The end is reserved RESERVE_SECONDS ahead, which makes one write an hour
   of what would be one a leaf. The leaves themselves are in the audit log: 100,000 of them would be 25 MB here.
3. A replica signs for MAX_STATE_AGE after it has read the state, and no longer. That is far below `Pace.margin`, for
   which a signer stays after it ceased to sign: nobody can sign with one whose root has left the bundle.
4. A call whose answer is lost raises StateInDoubt; nothing is written before the state was loaded again.

No clock of one replica is compared with that of another, but for the ends of leaves, where `Pace.margin` is an hour.
Calls block: make them from a thread.

The Role of the authority, in its own namespace: secrets get, create, update, patch, delete; configmaps get, create,
update; leases get, create, update.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.confirmations import merge_confirmations
from certs.keys import PrivateKey
from certs.kube import KubeConflict, KubeError
from certs.kube_blobs import Blob, delete_blob, read_blob, secret, secret_value, write_blob
from certs.kube_blobs import Client as BlobClient
from certs.kube_place import Place, explained, is_in_doubt
from certs.rotation import Confirmation, RotationState, Signer
from certs.rotation_json import confirmations_from_json, confirmations_to_json, state_from_json, state_to_json
from certs.sealed import KeySource
from certs.signers import signer_name
from certs.state_check import check_state
from certs.state_keys import RESTORE, RESTORE_KEY, parse_signer, seal_key, unseal_key
from certs.state_store import REVOCATIONS, IssuedEntry, StateConflict, StateError

RESERVE_SECONDS: Final = 3_600.0
"""How far ahead of a leaf's end a replica writes: a signer stays an hour longer, and one write does for an hour."""

MAX_STATE_AGE: Final = 300.0
"""An API server that is upgraded is away for a minute or two. An hour, and `Pace.margin` would be used up."""

REMEMBERED_LEAVES: Final = 20_000
"""Eight megabytes, so that a serial can be revoked with its key soon after; older ones are in the audit log."""

CONFIRMATION_SECONDS: Final = 2 * 86_400.0
"""How long a silent sidecar is kept: twice the window for which a rotation waits."""

_STATE: Final = "state.json"
_CERTIFICATE: Final = "ca.crt"
_KEY: Final = "key"


class Client(BlobClient, Protocol):
    """The calls of certs.kube.KubeClient that are used here."""

    def patch(self, kind: str, namespace: str, name: str, changes: Mapping[str, object]) -> dict[str, object]: ...


class KubeStore:
    """The state in Kubernetes, as one replica sees it. See certs.state_store.StateStore for each method.

    `leads` says whether this replica may decide, at this moment; a command that makes the authority decides alone.
    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        client: Client,
        place: Place,
        source: KeySource,
        *,
        leads: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._place, self._source = client, place, source
        self._leads, self._clock = leads, clock
        self._guard = threading.RLock()
        self._head: Mapping[str, object] | None = None
        self._known: RotationState | None = None
        self._known_at = -math.inf
        self._may_decide = True  # until something was loaded: a new authority has no state to load
        self._reserved: dict[str, float] = {}
        self._leaves: OrderedDict[str, IssuedEntry] = OrderedDict()
        self._certificates: dict[str, x509.Certificate] = {}
        self._opened: set[str] = set()
        self._documents: dict[str, Blob | None] = {}

    def close(self) -> None:
        """Lets the store go; a call of the API holds nothing, so there is nothing to do."""

    @property
    def issued(self) -> tuple[IssuedEntry, ...]:
        """What this replica gave out since it began, oldest first; the last REMEMBERED_LEAVES."""
        with self._guard:
            return tuple(self._leaves.values())

    def has_state(self) -> bool:
        """Tells whether an authority was begun here."""
        with self._guard, explained():
            return self._client.get("Secret", self._place.namespace, self._place.state) is not None

    def load(self) -> RotationState:
        """Reads and judges the whole state, its certificates, and every key that will still be used.

        The leader gets what sidecars have confirmed to all replicas; another gets what they have said to it.
        """
        place = self._place
        with self._guard, explained():
            began, is_leader = self._clock(), self._leads()
            head = self._client.get("Secret", place.namespace, place.state)
            if head is None:
                raise StateError(f"Secret {place.state}: there is none; make one with `remora authority init`")
            source = f"Secret {place.state}"
            state = state_from_json(secret_value(head, _STATE, place.state), source)
            issued = self._read_issued()
            self._reserved = {**issued.get(place.replica, {})}
            heard = sorted({place.replica, *issued}) if is_leader else [place.replica]
            confirmations = merge_confirmations(self._confirmations(replica)[0] for replica in heard)
            state = check_state(
                dataclasses.replace(state, confirmations=confirmations), self.certificate, self._open, source
            )
            for ends in issued.values():
                state = state.with_ends(ends)
            self._known = state
            self._head, self._known_at, self._may_decide = head, began, is_leader
            return self._known

    def save(self, state: RotationState) -> None:
        """Puts a state in the place of the one that was loaded or saved last; the leader alone.

        Raises StateConflict when another replica leads or wrote meanwhile: give way, or load and decide anew.
        """
        with self._guard:
            self._check_leader()
            before, head = self._known, self._head
            heard: Mapping[str, Confirmation] = {} if before is None else before.confirmations
            fresh = {name: report for name, report in state.confirmations.items() if heard.get(name) != report}
            if fresh:
                self.confirm(fresh)
            content = state_to_json(state)
            began = self._clock()
            if before is None or content != state_to_json(before):
                self._known = self._head = None  # in doubt until it stands
                head = self._write_state(content, before, head)
            self._head, self._known, self._known_at = head, state, began

    def confirm(self, reports: Mapping[str, Confirmation]) -> None:
        """Stores what sidecars have said to this replica, whether it leads or not (certs.confirmations)."""
        place = self._place
        with self._guard, explained(f"Secret {place.confirmations(place.replica)}"):
            held, head = self._confirmations(place.replica)
            merged = {**held, **reports}  # the later one said it later, whatever the clock says
            newest = max((report.seen_at for report in merged.values()), default=0.0)
            kept = {name: report for name, report in merged.items() if report.seen_at > newest - CONFIRMATION_SECONDS}
            content = confirmations_to_json(kept)
            write_blob(self._client, place.namespace, place.confirmations(place.replica), content, head)
            # The leader finds the reports of those replicas that it finds there.
            self._write_issued(self._reserved)

    def add_signer(self, certificate: x509.Certificate, key: PrivateKey | None) -> str:
        """Stores a signer and returns its name; the state is to name it next. The leader alone."""
        name = signer_name(certificate)
        with self._guard, explained(f"the signer {name[:12]}"):
            self._check_leader()
            if key is not None:
                sealed = seal_key(self._source, key, certificate)
                self._put("Secret", secret(self._place.key(name), {_KEY: sealed}))
            pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
            self._put(
                "ConfigMap",
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": self._place.certificate(name)},
                    "data": {_CERTIFICATE: pem},
                },
            )
            return name

    def discard_signer(self, name: str) -> None:
        """Removes what `add_signer` stored of a signer that no state names: of one who began second."""
        with self._guard, explained(f"the signer {name[:12]}"):
            self._client.delete("Secret", self._place.namespace, self._place.key(name))
            self._client.delete("ConfigMap", self._place.namespace, self._place.certificate(name))

    def certificate(self, name: str) -> x509.Certificate:
        """Reads the certificate of a signer, once: its name is its content."""
        with self._guard, explained():
            if name not in self._certificates:
                where = self._place.certificate(name)
                document = self._client.get("ConfigMap", self._place.namespace, where)
                data = None if document is None else document.get("data")
                pem = data.get(_CERTIFICATE) if isinstance(data, dict) else None
                if not isinstance(pem, str):
                    raise StateError(f"ConfigMap {where}: it is missing or holds no {_CERTIFICATE}; {RESTORE}")
                self._certificates[name] = parse_signer(pem.encode(), name, f"ConfigMap {where}")
            return self._certificates[name]

    def key(self, name: str) -> PrivateKey:
        """Reads and unseals the key of a signer, and checks that it fits its certificate."""
        where = self._place.key(name)
        with self._guard, explained():
            document = self._client.get("Secret", self._place.namespace, where)
            if document is None:
                raise StateError(f"Secret {where}: it is missing; {RESTORE_KEY}")
            sealed = secret_value(document, _KEY, where)
            return unseal_key(self._source, sealed, self.certificate(name), f"Secret {where}")

    def destroy_key(self, name: str) -> None:
        """Removes the key of a signer that the state says is removed; the leader alone."""
        with self._guard, explained(f"the key of {name[:12]}"):
            self._check_leader()
            state = self.load() if self._known is None else self._known
            if name in state.signers - state.removed:
                raise StateError(f"the key of {name[:12]} is still in use; rotate it and wait for its end")
            self._client.delete("Secret", self._place.namespace, self._place.key(name))
            self._opened.discard(name)

    def document(self, name: str) -> bytes | None:
        """Reads JOINS or REVOCATIONS; None when it was never written."""
        where = self._place.document(name)
        with self._guard, explained():
            blob = read_blob(self._client, self._place.namespace, where)
            self._documents[name] = blob
            return None if blob is None else blob.content

    def replace_document(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Writes JOINS, or as the leader REVOCATIONS, unless somebody else has since `before` was read."""
        where = self._place.document(name)
        with self._guard, explained(f"Secret {where}"):
            if name == REVOCATIONS:
                self._check_leader()
            # What is held may be old: then the resourceVersion is as well, and the API server says so.
            held = self._documents.pop(name, None)
            if held is None or held.content != before:
                held = read_blob(self._client, self._place.namespace, where)
            if (None if held is None else held.content) != before:
                return False
            try:
                head = write_blob(
                    self._client, self._place.namespace, where, after, None if held is None else held.head
                )
            except KubeConflict:
                return False
            self._documents[name] = Blob(content=after, head=head)
            return True

    def record(self, entry: IssuedEntry) -> None:
        """Makes sure that the signer stays for as long as the leaf; only then may it be given out.

        Raises StateConflict when another intermediate signs by now, StateError when the state is too old to know.
        """
        with self._guard, explained(f"Secret {self._place.issued}"):
            signer = self._signer_of(entry)
            if entry.serial in self._leaves:
                raise StateError(f"the serial {entry.serial} was given out already; sign with another")
            if entry.not_after > self._reserved.get(signer.name, 0.0):
                ahead = max(entry.not_after, min(entry.not_after + RESERVE_SECONDS, signer.not_after))
                wanted = {**self._reserved, signer.name: ahead}
                self._write_issued(wanted)
                self._reserved = wanted
            self._leaves[entry.serial] = entry
            if len(self._leaves) > REMEMBERED_LEAVES:
                self._leaves.popitem(last=False)

    def ends(self) -> Mapping[str, float]:
        """Says for each signer until when this replica has reserved it; `load` knows what the others have."""
        return self._reserved

    def forget(self, moment: float) -> None:
        """Forgets replicas that are gone, whose leaves and sidecars are too. The leader alone.

        One that is only silent writes itself again with its next leaf.
        """
        place = self._place
        with self._guard, explained(f"Secret {place.issued}"):
            self._check_leader()
            for replica, record in self._read_issued().items():
                confirmations, _ = self._confirmations(replica)
                ends = [*record.values(), *(report.seen_at for report in confirmations.values())]
                if replica != place.replica and max(ends, default=0.0) < moment - CONFIRMATION_SECONDS:
                    delete_blob(self._client, place.namespace, place.confirmations(replica))
                    self._client.patch("Secret", place.namespace, place.issued, {"data": {replica: None}})

    def _signer_of(self, entry: IssuedEntry) -> Signer:
        age = self._clock() - self._known_at
        if self._known is None or age > MAX_STATE_AGE:
            raise StateError(
                f"the state was not read for {MAX_STATE_AGE:.0f} s, so another intermediate may sign by now; load it, "
                "and see whether the API server can be reached"
            )
        if entry.issuer != self._known.active.name:
            raise StateConflict(
                f"the intermediate {entry.issuer[:12]} does not sign any more; sign with the active one"
            )
        return self._known.active

    def _check_leader(self) -> None:
        if not self._leads():
            raise StateConflict("this replica does not lead, so it decides nothing; the Lease names the one that does")
        if not self._may_decide:
            raise StateConflict("this replica leads since it has last read the state; load it and decide anew")

    def _write_state(
        self, content: bytes, before: RotationState | None, head: Mapping[str, object] | None
    ) -> Mapping[str, object]:
        place = self._place
        name = place.state
        with explained(f"Secret {name}"):
            try:
                if head is None:
                    return self._client.create("Secret", place.namespace, secret(name, {_STATE: content}))
                written = {**head, **secret(name, {_STATE: content}, head)}
                return self._client.update("Secret", place.namespace, name, written)
            except KubeError as error:
                if not is_in_doubt(error) and not isinstance(error, KubeConflict):
                    self._known, self._head = before, head
                raise

    def _put(self, kind: str, document: Mapping[str, object]) -> None:
        metadata = document["metadata"]
        name = str(metadata["name"]) if isinstance(metadata, dict) else ""
        held = self._client.get(kind, self._place.namespace, name)
        if held is None:
            self._client.create(kind, self._place.namespace, document)
        else:
            self._client.update(kind, self._place.namespace, name, {**document, "metadata": held["metadata"]})

    def _open(self, name: str) -> PrivateKey | None:
        # A key that was opened once opens again; asking a KMS every few seconds would tell nothing new.
        if name in self._opened:
            return None
        key = self.key(name)
        self._opened.add(name)
        return key

    def _read_issued(self) -> dict[str, dict[str, float]]:
        name = self._place.issued
        document = self._client.get("Secret", self._place.namespace, name)
        data = {} if document is None else document.get("data")
        if document is None or not isinstance(data, dict):
            return {}
        return {replica: _read_record(secret_value(document, replica, name), f"{name}/{replica}") for replica in data}

    def _write_issued(self, reserved: Mapping[str, float]) -> None:
        place = self._place
        content = secret(place.issued, {place.replica: json.dumps(dict(reserved), sort_keys=True).encode()})
        change = {"data": content["data"]}
        for _ in range(2):
            try:
                self._client.patch("Secret", place.namespace, place.issued, change)
                return
            except KubeError as error:
                if error.status != 404:
                    raise
            with contextlib.suppress(KubeConflict):  # another replica was the first
                self._client.create("Secret", place.namespace, content)
                return
        raise StateError(f"Secret {place.issued}: it comes and goes; see who removes it")

    def _confirmations(self, replica: str) -> tuple[Mapping[str, Confirmation], Mapping[str, object] | None]:
        name = self._place.confirmations(replica)
        blob = read_blob(self._client, self._place.namespace, name)
        if blob is None:
            return {}, None
        return confirmations_from_json(blob.content, f"Secret {name}"), blob.head


def _read_record(data: bytes, where: str) -> dict[str, float]:
    try:
        record = json.loads(data)
        if all(isinstance(until, int | float) and math.isfinite(until) for until in record.values()):
            return {str(name): float(until) for name, until in record.items()}
    except (ValueError, AttributeError, RecursionError):
        pass
    raise StateError(f"Secret {where}: it is no record of what was issued; {RESTORE}")
