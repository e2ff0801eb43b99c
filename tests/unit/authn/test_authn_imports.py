"""A proxy without token rules does not load the JWT library, and the examples of the documentation run."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = ("keys", "outputs", "strict_json", "uris")


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"proxy.authn.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_library_is_loaded_with_the_first_key_set() -> None:
    program = (
        "import sys\n"
        "import proxy.policy, proxy.authn\n"
        "from proxy.authn import Authentication, JwtRule\n"
        "Authentication([JwtRule(issuer='i', jwks_uri='https://a/', claim_headers={})])\n"
        "assert 'jwt' not in sys.modules\n"
        "try:\n"
        '    proxy.authn.parse_key_set(b\'{"keys": [{"kty": "RSA", "n": "AA", "e": "AQAB"}]}\')\n'
        "except ValueError:\n"
        "    pass\n"
        "assert 'jwt' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
