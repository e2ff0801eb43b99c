"""Settings: the built-in values hold together, and nobody changes a pod's after they were read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from injector import names
from injector.annotations import conflicts
from injector.inject import inject_pod
from injector.settings import Settings
from proxy.limits import Limits


def test_the_built_in_values_hold_together() -> None:
    assert list(conflicts(Settings())) == []


def test_settings_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().image = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Settings().inbound_ports[1] = "http"  # type: ignore[index]
    with pytest.raises(TypeError):
        Settings().outbound_listeners["a"] = 1  # type: ignore[index]


def test_a_pod_ends_within_what_kubernetes_gives_it() -> None:
    # 30 s if nothing is said: the delay, the drain, and the sidecar's own end.
    made = inject_pod({}, {"containers": [{"name": "app"}]}, settings=Settings(), trust_bundle=None, owner_kind="Pod")
    [proxy] = [each for each in made.spec["initContainers"] if each["name"] == names.PROXY]  # type: ignore[attr-defined]
    command = proxy["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["remora", "proxy", "drain", "--delay", "5s", "--timeout", "20s"]
    assert Limits().drain_timeout != Settings().drain_timeout  # so it is written into the sidecar's configuration
