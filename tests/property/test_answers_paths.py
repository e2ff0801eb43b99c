"""The steps that explain shows of a path lead where normalisation leads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.answers.steps import path_steps
from proxy.errors import ProtocolError
from proxy.protocol.path import PathNormalization, normalize_path

PIECES = ["/", "//", "a", ".", "..", "%2e", "%2F", "%5c", "\\", "%41", "%7e", "%c0", "#x", "?", ";", "%25", "%zz", "%"]


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES)).map(lambda pieces: ("/" + "".join(pieces)).encode()))
def test_the_steps_lead_to_the_judged_path(path: bytes) -> None:
    for mode in PathNormalization:
        try:
            judged = normalize_path(path, mode)
        except ProtocolError:
            with pytest.raises(ProtocolError):
                path_steps(path, mode)
            continue
        steps = path_steps(path, mode)
        assert (steps[-1].after if steps else path.decode()) == judged.decode()
        assert len({step.name for step in steps}) == len(steps)
