"""What the rotation waits for, and what it says meanwhile."""

from __future__ import annotations

import pytest

import certs.rotation
from certs.rotation import (
    Action,
    Confirmation,
    ConfirmedMany,
    Do,
    Force,
    IntermediateMade,
    Revoked,
    RootMade,
    Rotate,
    RotationError,
    RotationState,
    Wanted,
    advance,
    begin,
    crowds,
    is_waited_for,
    unconfirmed,
)
from certs.rotation_json import confirmations_from_json, confirmations_to_json, state_from_json, state_to_json
from certs.rotation_words import status_words

FAR = 1e10


def confirmed(sequence: int, seen_at: float) -> ConfirmedMany:
    return ConfirmedMany(reports={"orders": Confirmation(sequence=sequence, seen_at=seen_at)})


def published() -> RotationState:
    state = begin(RootMade(name="a", not_after=FAR), IntermediateMade(name="i", root="a", not_after=FAR), 0.0)
    state = advance(state, 0.0, [confirmed(1, 0.0)])[-1][0]
    state = advance(
        state,
        0.0,
        [
            Rotate(what=Wanted.ROOT),
        ],
    )[-1][0]
    return advance(state, 0.0, [RootMade(name="b", not_after=FAR)])[-1][0]


def test_a_silent_sidecar_is_waited_for_and_named() -> None:
    state = published()
    assert advance(state, 1_000.0) == []
    assert status_words(state, 1_000.0)[1] == "1 sidecars have not confirmed sequence 2: orders"


def test_confirmations_alone_do_not_hurry_the_hints() -> None:
    state = advance(published(), 899.0, [confirmed(2, 899.0)])[-1][0]
    assert advance(state, 899.0) == []
    assert [action.do for _, action in advance(state, 900.0)] == [Do.MAKE_INTERMEDIATE]


def test_force_takes_only_whom_it_names() -> None:
    with pytest.raises(RotationError, match="were not named: orders"):
        advance(published(), 1_000.0, [Force(left_behind=frozenset({"carts"}))])
    steps = advance(published(), 1_000.0, [Force(left_behind=frozenset({"orders"}))])
    assert steps[-1][1].do is Do.MAKE_INTERMEDIATE


def reports(*names: str, sequence: int = 1) -> ConfirmedMany:
    return ConfirmedMany(reports={name: Confirmation(sequence=sequence, seen_at=0.0) for name in names})


def test_force_by_identity_names_all_of_its_instances() -> None:
    [(state, _)] = advance(published(), 1.0, [reports("a#1", "a#2", "b#1")])
    with pytest.raises(RotationError, match="were not named: b#1, orders; name all"):
        advance(state, 1_000.0, [Force(left_behind=frozenset({"a"}))])
    steps = advance(state, 1_000.0, [Force(left_behind=frozenset({"a", "b#1", "orders"}))])
    assert steps[-1][1].do is Do.MAKE_INTERMEDIATE


def test_nobody_waits_for_the_revoked() -> None:
    [(state, _)] = advance(published(), 1.0, [reports("a#1", "orders", sequence=2), reports("a#2")])
    assert is_waited_for(state, {"a"})
    assert not is_waited_for(state, {"b"})
    steps = advance(state, 1_000.0, [Revoked(identities=frozenset({"a"}))])
    assert list(steps[0][0].confirmations) == ["orders"]
    assert steps[-1][1].do is Do.MAKE_INTERMEDIATE


def test_one_identity_has_not_the_places_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs.rotation, "MAX_INSTANCES", 2)
    state = advance(published(), 1.0, [reports("a#1", "a#2")])[-1][0]
    assert crowds(state) == ["a"]
    state = advance(state, 2.0, [reports("a#3", "b#1"), reports("a#1", sequence=2)])[-1][0]
    assert sorted(state.confirmations) == ["a#1", "a#2", "b#1", "orders"]
    assert state.confirmations["a#1"].sequence == 2


def test_a_sequence_that_was_never_published_confirms_nothing() -> None:
    [(state, _)] = advance(published(), 1.0, [confirmed(3, 1.0)])
    assert unconfirmed(state, 1.0) == ["orders"]


def test_an_intermediate_under_an_unpublished_root_is_refused() -> None:
    with pytest.raises(RotationError, match="not the next"):
        advance(published(), 1.0, [IntermediateMade(name="x", root="elsewhere", not_after=FAR)])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"active"', b'"retiring"'),
        (b'"version": 1', b'"version": 9'),
        (b"{", b"["),
    ],
)
def test_a_damaged_state_names_its_file(old: bytes, new: bytes) -> None:
    with pytest.raises(RotationError, match=r"state\.json: "):
        state_from_json(state_to_json(published()).replace(old, new), "state.json")


DAY = 86_400.0


def aging(not_before: float, not_after: float, root_end: float = FAR) -> RotationState:
    made = IntermediateMade(name="i", root="a", not_before=not_before, not_after=not_after)
    return begin(RootMade(name="a", not_after=root_end), made, not_before)


@pytest.mark.parametrize(
    ("lifetime", "left"), [(365 * DAY, 30 * DAY), (180 * DAY, 30 * DAY), (6 * DAY, DAY), (600.0, 100.0)]
)
def test_an_intermediate_near_its_end_asks_for_the_next(lifetime: float, left: float) -> None:
    state, end = aging(1_000.0, 1_000.0 + lifetime), 1_000.0 + lifetime
    assert advance(state, end - left - 1) == []
    steps = advance(state, end - left)
    assert [action.do for _, action in steps] == [Do.NOTHING, Do.MAKE_INTERMEDIATE]
    assert steps[-1][0].wanted is Wanted.INTERMEDIATE


def test_with_a_root_that_ends_as_early_the_root_is_replaced() -> None:
    steps = advance(aging(1_000.0, 7_000.0, root_end=7_000.0), 6_500.0)
    assert [action.do for _, action in steps] == [Do.NOTHING, Do.MAKE_ROOT]


def test_an_intermediate_whose_begin_is_unknown_is_left_to_the_operator() -> None:
    assert advance(aging(0.0, 7_000.0), 6_999.0) == []


def test_an_offline_root_is_waited_for() -> None:
    made = IntermediateMade(name="i", root="a", not_before=1.0, not_after=601.0)
    state = begin(RootMade(name="a", not_after=FAR), made, 0.0, root_offline=True)
    assert advance(state, 600.0)[-1][1].do is Do.AWAIT_IMPORT


def test_a_signer_without_a_known_leaf_stays_for_the_margin() -> None:
    state = advance(aging(0.0, FAR), 0.0, [Rotate(what=Wanted.INTERMEDIATE)])[-1][0]
    state = advance(state, 10.0, [IntermediateMade(name="j", root="a", not_after=FAR)])[-1][0]
    assert state.active.name == "j"
    assert advance(state, 10.0 + state.pace.margin - 1) == []
    assert advance(state, 10.0 + state.pace.margin)[-1][1] == Action(do=Do.DESTROY_KEY, signer="i")


def test_the_retired_are_shown_with_their_end() -> None:
    state = advance(aging(0.0, FAR), 0.0, [Rotate(what=Wanted.INTERMEDIATE)])[-1][0]
    state = advance(state, 10.0, [IntermediateMade(name="j", root="a", not_after=FAR)])[-1][0]
    assert status_words(state, 11.0)[-1] == "intermediate i goes in 3599 s"


def test_damaged_confirmations_name_their_file() -> None:
    known = {"orders": Confirmation(sequence=1, seen_at=2.0)}
    whole = confirmations_to_json(known)
    assert confirmations_from_json(whole, "confirmations.json") == known
    for damaged in (whole[:-4], whole.replace(b"1,2.0", b"-1,2.0"), whole.replace(b':1,"c', b':2,"c'), b"[]"):
        with pytest.raises(RotationError, match=r"confirmations\.json: it is no list"):
            confirmations_from_json(damaged, "confirmations.json")
