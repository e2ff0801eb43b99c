"""Which calls authority and injector make to the API server: the least that their Roles must grant.

Tests hold the tables against the calls that the processes really make; `remora install` prints Roles from them, and
`remora check` asks whether whoever installs may grant them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from injector import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Some verbs on a resource; with `names` on these objects alone. `is_cluster_wide`: in every namespace, or none."""

    api_group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    is_cluster_wide: bool = False


AUTHORITY: Final = (
    # Keys and certificates of signers have their own digest for a name, so no list of names can be given.
    Access(api_group="", resource="secrets", verbs=("create", "delete", "get", "patch", "update")),
    Access(api_group="", resource="configmaps", verbs=("create", "delete", "get", "update")),
    Access(api_group="coordination.k8s.io", resource="leases", verbs=("create",)),
    Access(api_group="coordination.k8s.io", resource="leases", verbs=("get", "update"), names=(names.AUTHORITY,)),
    Access(api_group="authentication.k8s.io", resource="tokenreviews", verbs=("create",), is_cluster_wide=True),
    # Whether the pod that a token was made for still runs.
    Access(api_group="", resource="pods", verbs=("get",), is_cluster_wide=True),
)

INJECTOR: Final = (
    Access(api_group="", resource="secrets", verbs=("create",)),
    Access(api_group="", resource="secrets", verbs=("get", "update"), names=(names.INJECTOR_TLS,)),
    Access(
        api_group="admissionregistration.k8s.io",
        resource="mutatingwebhookconfigurations",
        verbs=("get", "update"),
        names=(names.INJECTOR,),
        is_cluster_wide=True,
    ),
)
