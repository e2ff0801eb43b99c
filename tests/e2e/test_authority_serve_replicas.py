"""Two replicas share a state in Kubernetes (tests/kube_server.py, a stand-in): both sign, one decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kube_server
import pytest
from authority_process import AuthorityProcess, eventually, identity, openssl_verify

NAMESPACE = "remora-system"
SECONDS = 40.0
"""A reload comes every ten seconds, and a Lease is taken over after fifteen."""


@pytest.fixture
def kube() -> Iterator[kube_server.KubeServer]:
    with kube_server.KubeServer() as server:
        yield server


@pytest.fixture
def replicas(tmp_path: Path, kube: kube_server.KubeServer) -> Iterator[list[AuthorityProcess]]:
    (tmp_path / "kube-token").write_text(kube.token)
    (tmp_path / "passphrase").write_text("correct horse\n")
    where = (
        "--kube", kube.url, "--kube-token-file", str(tmp_path / "kube-token"), "--kube-state", "authority",
        "--key-source", f"file:{tmp_path / 'passphrase'}",
    )  # fmt: skip
    made: list[AuthorityProcess] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(AuthorityProcess(tmp_path / name))
    try:
        made[0].order("init", "--trust-domain", "cluster.local", *where)
        for replica in made:
            replica.start(*where, "--replica", replica.base.name, "--identity-rate", "50:50", "--no-require-token")
            replica.bundle_file.write_text(replica.order("export bundle", "--form", "pem"))
        yield made
    finally:
        for replica in made:
            replica.stop()


def leader_of(replicas: list[AuthorityProcess]) -> AuthorityProcess:
    """The replica that says it leads."""
    found: list[AuthorityProcess] = eventually(
        lambda: [replica for replica in replicas if "election: we lead" in replica.log_file.read_text()],
        "one leads",
        SECONDS,
    )
    assert len(found) == 1
    return found[0]


@pytest.mark.timeout(180)
def test_both_sign_and_one_decides(replicas: list[AuthorityProcess]) -> None:
    leader = leader_of(replicas)
    [other] = [replica for replica in replicas if replica is not leader]
    assert "does not lead" in other.refused("rotate intermediate")

    before = [replica.enrol(token=replica.token(replica.base.name)) for replica in replicas]
    bundle = leader.order("export bundle", "--form", "pem")
    for svid in before:
        assert openssl_verify(leader.base, svid.chain, bundle) == "OK"
    assert before[0].chain[1] == before[1].chain[1]

    leader.order("rotate intermediate")
    leader.order("revoke", "--identity", identity("web"))
    eventually(lambda: identity("web") in other.order("status"), "the revocation is known to the other", SECONDS)
    assert other.sign(token=other.token("web")).reason == "identity_revoked"
    after = [replica.enrol(svid) for replica, svid in zip(replicas, before, strict=True)]
    assert after[0].chain[1] == after[1].chain[1] != before[0].chain[1]

    # A leader that ends in order gives way at once.
    assert leader.stop() == 0
    eventually(lambda: "election: we lead" in other.log_file.read_text(), "the other leads", SECONDS)
    eventually(
        lambda: other.run("rotate", "intermediate", "--directory", str(other.directory)).returncode == 0,
        "the other decides",
        SECONDS,
    )
    assert "Traceback" not in leader.log_file.read_text() + other.log_file.read_text()
