"""The smallest edit of the policy files that would allow a denied call, as a unified diff, tried before it is shown.

What may be changed comes from `change`, the narrowest first. Each candidate is written into the text, the set is
loaded anew and the question asked again: only what then allows is offered. A DENY may stand before a missing ALLOW, so
an edit can take several changes, each of them needed to come further than the one before.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from proxy.answers.editing.change import Candidate, candidates, standing_denials
from proxy.answers.editing.layout import changed
from proxy.answers.question import Answer, World
from proxy.errors import ConfigError
from proxy.policy import load
from proxy.policy.facts import Facts

MAX_CHANGES: Final = 6
"""Changes of one edit: DENY rules that stand one behind the other, and the ALLOW. With more it is no small edit."""

MAX_TRIED: Final = 24
"""Candidates that are tried in all; each costs a load of the whole set."""

Again = Callable[[World], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An edit that allows: sentences on what it does and what it opens, the diff, and the whole set after it.

    The diff is one that `patch -p1` and `git apply` take.
    """

    summary: tuple[str, ...]
    opens: tuple[str, ...]
    diff: str
    files: Mapping[str, bytes] = field(repr=False)


def smallest_edit(world: World, answer: Answer, again: Again) -> Edit | None:
    """Find the smallest edit of `world.files` that allows what `answer` denied; None when there is none to offer.

    `again` asks the same question in a changed world.
    """
    if world.files is None:
        return None
    search = _Search(again)
    found = search.way(world, answer, MAX_CHANGES)
    if found is None:
        return None
    steps, after = found
    files = after.files or {}
    return Edit(
        summary=tuple(candidate.summary for candidate in steps),
        opens=tuple(candidate.opens for candidate in steps),
        diff=unified_diff(world.files, files),
        files=files,
    )


class _Search:
    """Looks for changes that lead from a denial to a permission, the narrowest first, while there are tries."""

    def __init__(self, again: Again) -> None:
        self._again = again
        self._tries = MAX_TRIED

    def way(self, world: World, answer: Answer, changes: int) -> tuple[list[Candidate], World] | None:
        """Find at most `changes` changes, each of which allows or comes past one way in which a DENY matches."""
        facts = Facts(answer.connection, answer.request)
        for candidate in candidates(world, answer):
            self._tries -= 1
            edited = _edited(world, candidate) if self._tries >= 0 else None
            if edited is None:
                continue
            then = self._again(edited)
            if then.allowed:
                return [candidate], edited
            if changes > 1 and standing_denials(edited, facts) < standing_denials(world, facts):
                found = self.way(edited, then, changes - 1)
                if found is not None:
                    return [candidate, *found[0]], found[1]
        return None


def _edited(world: World, candidate: Candidate) -> World | None:
    """Load the set with one change; None when the text cannot be changed so, or the set does not load."""
    before = world.files or {}
    content: bytes | None = candidate.content
    if candidate.change is not None:
        content = changed(before[candidate.file], candidate.change)
    if content is None:
        return None
    files = {**before, candidate.file: content}
    try:
        snapshot = load(
            files,
            workload=world.workload,
            settings=world.settings,
            generation=world.snapshot.generation,
            tcp_ports=world.tcp_ports,
        )
    except ConfigError:
        return None
    return replace(world, snapshot=snapshot, files=files)


# --- diffs ---


def unified_diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """Write what changed between two sets of files, with the names `a/...` and `b/...`.

    >>> print(unified_diff({"a.yaml": b"x: 1\\n"}, {"a.yaml": b"x: 1\\ny: 2"}), end="")
    --- a/a.yaml
    +++ b/a.yaml
    @@ -1 +1,2 @@
     x: 1
    +y: 2
    \\ No newline at end of file
    """
    names = sorted(name for name in after if before.get(name) != after[name])
    return "".join(line for name in names for line in _diff_lines(name, before.get(name), after[name]))


def _diff_lines(name: str, before: bytes | None, after: bytes) -> Iterator[str]:
    label = _label(name)
    yield "--- /dev/null\n" if before is None else f"--- a/{label}\n"
    yield f"+++ b/{label}\n"
    hunks = difflib.unified_diff(_lines(before or b""), _lines(after), lineterm="")
    for line in islice(hunks, 2, None):
        if line.startswith("@@"):
            yield f"{line}\n"
        else:
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _label(name: str) -> str:
    """Write a name as patch takes it: it refuses absolute names and those that lead out of its directory."""
    while name.startswith(("/", "./", "../")):
        name = name.partition("/")[2]
    return name + ("\t" if " " in name else "")  # without the tab a name ends at its first space


def _lines(content: bytes) -> list[str]:
    """Split at line feeds only, as patch does."""
    text = content.decode("utf-8")
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
