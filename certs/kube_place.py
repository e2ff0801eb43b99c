"""Names the objects of an authority in Kubernetes, and says in the words of a store what the API server has said."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from certs.kube import KubeConflict, KubeError
from certs.kube_blobs import BlobError
from certs.rotation import RotationError
from certs.state_store import StateConflict, StateError, StateInDoubt, document_name

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an authority is in a cluster. `replica` is this process alone: the pod's uid, and a part that is random.

    >>> Place(namespace="remora", replica="pod-1").confirmations("pod-2")
    'remora-authority-confirmations-pod-2'
    >>> Place(namespace="remora", replica="Pod 1")
    Traceback (most recent call last):
    ValueError: the replica 'Pod 1' is no label of Kubernetes; name it by a-z, 0-9 and -, at most 63 characters
    """

    namespace: str
    replica: str
    name: str = "remora-authority"

    def __post_init__(self) -> None:
        for what, value in (("replica", self.replica), ("name", self.name)):
            if not _LABEL.fullmatch(value):
                raise ValueError(
                    f"the {what} {value[:70]!r} is no label of Kubernetes; name it by a-z, 0-9 and -, "
                    "at most 63 characters"
                )

    @property
    def state(self) -> str:
        """The Secret of what certs.rotation remembers."""
        return f"{self.name}-state"

    @property
    def issued(self) -> str:
        """The Secret that says for each replica until when its leaves may live."""
        return f"{self.name}-issued"

    def key(self, signer: str) -> str:
        """The Secret of a signer's key."""
        return f"{self.name}-key-{signer}"

    def certificate(self, signer: str) -> str:
        """The ConfigMap of a signer's certificate."""
        return f"{self.name}-certificate-{signer}"

    def confirmations(self, replica: str) -> str:
        """The Secret of what sidecars said to a replica."""
        return f"{self.name}-confirmations-{replica}"

    def document(self, name: str) -> str:
        """The Secret of JOINS or REVOCATIONS; raises StateError for another name."""
        return f"{self.name}-{document_name(name).removesuffix('.json')}"


def is_in_doubt(error: KubeError) -> bool:
    """Tells whether a call that failed may have been done all the same."""
    return error.status == 0 or error.status >= 500


@contextlib.contextmanager
def explained(written: str = "") -> Iterator[None]:
    """Turns what the client of the API raises into the errors of a store; `written` names what was being changed."""
    try:
        yield
    except KubeConflict as error:
        raise StateConflict(f"another replica wrote meanwhile: {error}") from None
    except KubeError as error:
        if written and is_in_doubt(error):
            raise StateInDoubt(f"{written}: the old or the new one may stand, load the state again: {error}") from None
        raise StateError(str(error)) from None
    except (BlobError, RotationError) as error:
        raise StateError(str(error)) from None
