"""kill -9 of the authority at every change of its disk: what is found is from before the step or from after it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
from authority_steps import MATERIAL, SOURCE, STEPS, Material, folder

from certs.authority import Authority
from certs.spiffe import parse_trust_domain
from certs.state import DirectoryStore
from certs.state_store import JOINS, REVOCATIONS, StateError

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
NAMES = list(STEPS)

pytestmark = pytest.mark.timeout(300)

View = dict[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """Where the steps were killed, how often each, and what they worked with."""

    root: Path
    kills: dict[str, int]
    material: Material


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("authority")
    (root / MATERIAL).mkdir()
    for name in ("old", "new"):
        made = Authority.create(parse_trust_domain("cluster.local"), NOW)
        made.save(root / MATERIAL / name)
    command = [sys.executable, str(Path(__file__).with_name("authority_steps.py")), str(root)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return Ran(root=root, kills=json.loads(done.stdout), material=Material(root))


def view(directory: Path) -> View:
    """Open a directory as the next process does, and take in every part of what it remembers."""
    store = DirectoryStore(directory, SOURCE)
    try:
        try:
            state: object = store.load()
        except StateError as error:
            if "make an authority with `remora authority init`" not in str(error):
                raise
            state = None
        seen: View = {"state": state, "issued": store.issued}
        seen.update({name: store.document(name) for name in (JOINS, REVOCATIONS)})
        if state is not None:  # until then, the next init writes them anew
            seen["files"] = sorted(path.name for path in directory.glob("*/*"))
        assert not [*directory.rglob(".*.new")]
        return seen
    finally:
        store.close()


def test_the_steps_change_the_disk(ran: Ran) -> None:
    assert all(ran.kills[name] >= 5 for name in NAMES), ran.kills


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_a_kill_leaves_what_was_or_what_is_to_be_and_the_step_can_be_done_again(ran: Ran, number: int) -> None:
    name = NAMES[number]
    place, count = ran.root / folder(name), ran.kills[name]
    after = view(place / str(count + 1))
    previous = NAMES[number - 1]
    before = view(ran.root / folder(previous) / str(ran.kills[previous] + 1)) if number else {"state": None}
    for kill_at in range(1, count + 1):
        found = view(place / str(kill_at))
        for part, value in found.items():
            assert value == after[part] or value == before.get(part), f"{part} after a kill at {kill_at}"
        store = DirectoryStore(place / str(kill_at), SOURCE)
        try:
            STEPS[name](store, ran.material)
        finally:
            store.close()
        assert view(place / str(kill_at)) == after, f"the step done again after a kill at {kill_at}"
