"""One authority in memory for all tests of certificates: its keys are made once."""

from __future__ import annotations

import pytest

from certs.testing import MemoryAuthority


@pytest.fixture(scope="session")
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")
