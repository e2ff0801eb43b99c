"""How large a pod may be that is injected: a webhook is asked before the API server has looked at the sizes itself.

Without bounds one pod of 3 MiB keeps the only thread for six seconds, and the pods of everybody else wait. What is
refused here no API server would keep, or nobody has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from injector.record import ACTIONS, MAX_BYTES
from injector.values import mapping, mappings

MAX_CONTAINERS: Final = 256
"""More than a node's kubelet starts pods; each is looked at several times."""
MAX_ACTION_BYTES: Final = 100_000
"""Of probes and hooks, as JSON. They stand in two annotations, the configuration and the record, and all annotations of
an object together have at most 256 KiB."""


def too_large(metadata: Mapping[str, object], spec: Mapping[str, object]) -> Iterator[str]:
    """Say what of a pod is too large to be injected, a sentence for each.

    >>> list(too_large({}, {"containers": [{"name": "app"}] * 300}))
    ['the pod has 300 containers: one with more than 256 is not injected; split it']
    """
    annotations = mapping(metadata.get("annotations"))
    written = sum(len(key) + len(value) for key, value in annotations.items() if isinstance(value, str))
    if written > MAX_BYTES:
        yield f"the annotations have {written} characters together: an object has at most {MAX_BYTES}; shorten them"
    containers = [*mappings(spec.get("initContainers")), *mappings(spec.get("containers"))]
    if len(containers) > MAX_CONTAINERS:
        count = len(containers)
        yield f"the pod has {count} containers: one with more than {MAX_CONTAINERS} is not injected; split it"
        return
    actions = [{key: each[key] for key in ACTIONS if key in each} for each in containers]
    size = len(json.dumps(actions, separators=(",", ":")))
    if size > MAX_ACTION_BYTES:
        yield (
            f"probes and hooks have {size} bytes: the sidecar that performs them takes at most {MAX_ACTION_BYTES}; "
            "shorten their headers and commands"
        )
