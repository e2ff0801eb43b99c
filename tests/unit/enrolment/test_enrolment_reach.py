"""By which bundle an authority is believed, and which token goes along: what is mounted now, never what was ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.bundle import TrustBundle
from certs.joins import new_token
from certs.spiffe import SpiffeId
from certs.store import IdentitySet, judge_set
from certs.testing import MemoryAuthority, set_files
from proxy.config_values import Address, IdentityAuthority
from proxy.enrolment.authority_messages import EnrolmentError
from proxy.enrolment.authority_reach import Reach

MEMORY = MemoryAuthority("cluster.local")
OTHER = MemoryAuthority("cluster.local", MEMORY.now)
ENDED = TrustBundle(trust_domain=MEMORY.trust_domain, certificates=(), sequence=9)


def reach(directory: Path) -> Reach:
    return Reach(
        IdentityAuthority(
            url="https://authority",
            address=Address(host="authority", port=443),
            token_file=str(directory / "token"),
            bundle_file=str(directory / "bundle"),
            identity=SpiffeId.parse("spiffe://cluster.local/ns/remora-system/sa/remora-authority"),
        ),
        MEMORY.trust_domain,
    )


def own() -> IdentitySet:
    return judge_set(set_files(MEMORY.svid("demo", "orders"), MEMORY.bundles), MEMORY.trust_domain, MEMORY.now)


def answered(made: Reach, held: TrustBundle | None) -> None:
    """The authority has answered while the file was as it is now."""
    _, made._believed = made.read_bundles(held)


def test_the_first_time_the_file_is_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(MEMORY.bundle.to_pem())
    [found], digest = reach(tmp_path).read_bundles(None)
    assert found == MEMORY.bundle
    assert len(digest) == 64


def test_a_bundle_in_the_other_form_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(MEMORY.bundle.to_jwks())
    [found], _ = reach(tmp_path).read_bundles(None)
    assert found.certificates == MEMORY.bundle.certificates


def test_then_it_is_the_bundle_that_was_given_and_a_file_that_was_touched(tmp_path: Path) -> None:
    made, file = reach(tmp_path), tmp_path / "bundle"
    file.write_bytes(MEMORY.bundle.to_pem())
    answered(made, None)
    assert made.read_bundles(OTHER.bundle)[0] == [OTHER.bundle]
    file.write_bytes(MEMORY.bundle.to_pem() + OTHER.bundle.to_pem())
    assert made.read_bundles(OTHER.bundle)[0][0] == OTHER.bundle
    assert len(made.read_bundles(OTHER.bundle)[0]) == 2
    answered(made, OTHER.bundle)
    assert made.read_bundles(OTHER.bundle)[0] == [OTHER.bundle]


def test_a_domain_that_was_ended_does_not_come_back_by_an_old_file(tmp_path: Path) -> None:
    made, file = reach(tmp_path), tmp_path / "bundle"
    file.write_bytes(MEMORY.bundle.to_pem())
    answered(made, None)
    with pytest.raises(EnrolmentError, match="of before the trust domain was ended; bring the new bundle"):
        made.read_bundles(ENDED)
    file.write_bytes(OTHER.bundle.to_pem())
    assert made.read_bundles(ENDED)[0] == [OTHER.bundle]


def test_a_file_that_is_gone_disturbs_nobody_who_holds_a_bundle(tmp_path: Path) -> None:
    assert reach(tmp_path).read_bundles(MEMORY.bundle) == ([MEMORY.bundle], "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "holds no certificate"),
        (b'{"keys": []}', "nobody is believed to be the authority"),
        (b"{", "it is no JSON"),
    ],
)
def test_what_is_no_bundle_is_named_with_its_file(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "bundle").write_bytes(content)
    with pytest.raises(EnrolmentError) as caught:
        reach(tmp_path).read_bundles(None)
    assert str(caught.value).startswith(f"{tmp_path}/bundle: ")
    assert words in str(caught.value)


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    made, file = reach(tmp_path), tmp_path / "token"
    for token in ("one", "two"):
        file.write_text(token)
        assert made.read_token(None) == token
        assert made.read_token(own()) == token


def test_a_join_token_goes_without_a_certificate_only(tmp_path: Path) -> None:
    made, token = reach(tmp_path), new_token()
    (tmp_path / "token").write_text(token)
    assert made.read_token(None) == token
    assert made.read_token(own()) is None


def test_a_token_may_be_taken_away_once_there_is_a_certificate(tmp_path: Path) -> None:
    assert reach(tmp_path).read_token(own()) is None
    with pytest.raises(EnrolmentError, match=r"token: the token cannot be read \(No such file or directory\)"):
        reach(tmp_path).read_token(None)
