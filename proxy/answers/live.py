"""A decision that a running sidecar made, explained when somebody asks, from what it kept of it.

A denial is judged again by the policies in force. Where they are another generation than those that denied, or where
something was too long to keep, the report says so, and whether the answer is still the same.
"""

from __future__ import annotations

from proxy.answers.question import Answer, World, judge
from proxy.answers.report import Report, report
from proxy.policy.snapshot import PolicySnapshot
from proxy.types import Asked


def explain_kept(world: World, asked: Asked, *, rule: str, generation: int) -> Report:
    """Explain a denial by `rule` in `generation`, of which `asked` was kept."""

    def judged(snapshot: PolicySnapshot) -> Answer:
        return judge(snapshot, asked.connection, asked.request, target=asked.target)

    answer = judged(world.snapshot)
    notes: list[str] = []
    if not asked.is_complete:
        notes.append("something that policy looks at was too long to keep, so this may not be what was judged")
    if generation != world.snapshot.generation:
        now = world.snapshot.generation
        notes.append(f"policy generation {generation} denied it; this is judged by {now}, which is in force now")
    if answer.allowed:
        notes.append("the policies in force now would allow it")
    elif answer.verdict.rule != rule:
        notes.append(f"it was denied by {rule}, and would be denied by {answer.verdict.rule} now")
    return report(world, answer, lambda changed: judged(changed.snapshot), notes=tuple(notes))
