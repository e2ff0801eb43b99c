"""A report as people read it in a terminal, and as programs read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from proxy.answers.question import Step
from proxy.answers.report import ClauseView, Report, RuleView
from proxy.documents import shown
from proxy.policy.model import Action

MAX_SHOWN: Final = 8
"""Rules that the text tells of, the nearest first; JSON has them all."""
_WIDTH: Final = 110
_SHOWN_BELOW: Final = (Step.ALLOW, Step.DENY)
"""Where the rules say in detail what the explanation says in a sentence."""
_DIFF_STYLES: Final = {"+": "good", "-": "bad", "@": "dim"}
_STYLES: Final = {"good": "32", "bad": "31", "dim": "2", "bold": "1", "head": "36"}


class _Pen:
    """Writes words in colour, or plain."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour else text


def as_text(report: Report, *, colour: bool = False) -> str:
    """Write a report for a person; everything that a caller sent is escaped."""
    pen = _Pen(colour)
    blocks = [
        [*_decision(report, pen)],
        [*_path(report, pen)],
        [*_rules(report, pen)],
        [*_around(report, pen)],
        [*_miss(report, pen)],
        [*_mend(report, pen)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _decision(report: Report, pen: _Pen) -> Iterator[str]:
    word, rest = report.sentence.split(":", 1)
    yield pen("good" if report.allowed else "bad", pen("bold", f"{word}:")) + rest
    if not report.allowed:
        status = f"{report.status} " if report.status else ""
        because = f": {report.because}" if report.step not in _SHOWN_BELOW else ""
        yield from _wrapped(f"  {status}{report.reason}{because}")
    for note in report.notes:
        yield from _wrapped(f"  note: {note}")
    for audited in report.audited:
        yield f"  audit: {audited}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False) or [
        text
    ]


def _path(report: Report, pen: _Pen) -> Iterator[str]:
    path = report.path
    if path is None or not path.steps:
        return
    yield pen("head", "path")
    width = max(len(step.name) for step in path.steps)
    yield f"  {'sent':<{width}}  {shown(path.sent, 200)}"
    for step in path.steps:
        yield f"  {step.name:<{width}}  {shown(step.after, 200)}"


def _rules(report: Report, pen: _Pen) -> Iterator[str]:
    if not report.rules:
        return
    yield pen("head", "rules") + pen("dim", "  (of the policies that select the workload)")
    ordered = sorted(
        report.rules, key=lambda rule: (rule.id != report.rule, not rule.matches, *_distance(rule, report))
    )
    for rule in ordered[:MAX_SHOWN]:
        yield from _rule(rule, pen)
    more = len(report.rules) - MAX_SHOWN
    if more > 0:
        yield pen("dim", f"  and {more} more that are further away; --output json has them all")


def _distance(rule: RuleView, report: Report) -> tuple[bool, bool, bool, bool, int]:
    """Put first what decided, then what matches, then the ALLOW rules, the nearest miss before the others."""
    miss = report.nearest_miss
    return (
        rule.id != report.rule,
        not rule.matches,
        miss is None or miss.rule != rule.id,
        rule.action != Action.ALLOW.value,
        sum(not clause.holds for clause in rule.clauses if clause.item in rule.best),
    )


def _rule(rule: RuleView, pen: _Pen) -> Iterator[str]:
    mark = pen("good", "✓") if rule.matches else pen("bad", "✗")
    kind = f"{rule.action} (dry-run)" if rule.dry_run else rule.action
    place = pen("dim", f"{rule.file}:{rule.line}")
    outcome = "matches" if rule.matches else "does not match"
    yield f"  {mark} {kind:<5} {pen('bold', rule.policy)} rule {rule.number} {outcome}  {place}"
    clauses = [clause for clause in rule.clauses if clause.item in rule.best]
    width = max((len(clause.name) for clause in clauses), default=0)
    for clause in clauses:
        yield from _clause(clause, width, pen)
    if rule.note:
        yield from (f"      {line}" for line in _wrapped(rule.note))
    for group in ("from", "to"):
        others = {clause.item for clause in rule.clauses if clause.item.startswith(f"{group}[")} - rule.best
        if others:
            items = "1 other item" if len(others) == 1 else f"{len(others)} other items"
            yield pen("dim", f"      {items} of `{group}`: no nearer")


def _clause(clause: ClauseView, width: int, pen: _Pen) -> Iterator[str]:
    mark = pen("good", "✓") if clause.holds else pen("bad", "✗")
    yield f"      {mark} {clause.name:<{width}}  {clause.told if clause.holds else pen('bold', clause.told)}"


def _around(report: Report, pen: _Pen) -> Iterator[str]:
    if report.allowed or not report.unselecting:
        return
    yield pen("head", "policies that do not select the workload")
    for policy in report.unselecting[:MAX_SHOWN]:
        yield f"  {policy.policy}: {policy.why}  {pen('dim', f'{policy.file}:{policy.line}')}"
    more = len(report.unselecting) - MAX_SHOWN
    if more > 0:
        yield pen("dim", f"  and {more} more")


def _miss(report: Report, pen: _Pen) -> Iterator[str]:
    miss = report.nearest_miss
    if miss is None:
        return
    yield pen("head", "nearest miss")
    clause = f"`{miss.clause}`: saw {miss.seen}, wanted {miss.wanted}" if miss.clause else miss.seen
    more = f" (and {miss.more} more)" if miss.more else ""
    yield from _wrapped(f"  {miss.rule} ({miss.file}:{miss.line}): {clause}{more}")


def _mend(report: Report, pen: _Pen) -> Iterator[str]:
    edit = report.edit
    if edit is None and not report.mend:
        return
    yield pen("head", "what would allow it")
    if report.mend:
        yield from _wrapped(f"  {report.mend}")
    if edit is None:
        return
    for summary, opens in zip(edit.summary, edit.opens, strict=True):
        yield from _wrapped(f"  {summary}")
        yield from _wrapped(f"    opens: {opens}")
    yield ""
    for line in edit.diff.rstrip("\n").split("\n"):
        style = "bold" if line.startswith(("--- ", "+++ ")) else _DIFF_STYLES.get(line[:1], "")
        yield pen(style, line) if style else line


def as_json(report: Report) -> dict[str, Any]:
    """Give a report to programs. Always there: decision, policy, rule, path and nearest_miss."""
    miss, path, edit = report.nearest_miss, report.path, report.edit
    return {
        "decision": "allow" if report.allowed else "deny",
        "policy": report.policy or None,
        "rule": report.rule,
        "path": None
        if path is None
        else {
            "sent": path.sent,
            "judged": path.judged or None,
            "steps": [{"step": step.name, "path": step.after} for step in path.steps],
        },
        "nearest_miss": None
        if miss is None
        else {
            "rule": miss.rule,
            "file": miss.file,
            "line": miss.line,
            "clause": miss.clause,
            "seen": miss.seen,
            "wanted": miss.wanted,
            "more": miss.more,
        },
        "sentence": report.sentence,
        "explanation": report.because or None,
        "step": report.step.value,
        "reason": report.reason,
        "status": report.status or None,
        "file": report.file or None,
        "line": report.line or None,
        "rules": [_rule_json(rule) for rule in report.rules],
        "other_policies": [
            {"policy": each.policy, "kind": each.kind, "file": each.file, "line": each.line, "why": each.why}
            for each in report.unselecting
        ],
        "audited": list(report.audited),
        "notes": list(report.notes),
        "mend": report.mend or None,
        "edit": None if edit is None else {"summary": list(edit.summary), "opens": list(edit.opens), "diff": edit.diff},
        "generation": report.generation,
    }


def _rule_json(rule: RuleView) -> dict[str, Any]:
    return {
        "rule": rule.id,
        "policy": rule.policy,
        "action": rule.action,
        "dry_run": rule.dry_run,
        "file": rule.file,
        "line": rule.line,
        "matches": rule.matches,
        "note": rule.note or None,
        "failed": [_clause_json(clause) for clause in rule.failed],
        "held": [_clause_json(clause) for clause in rule.clauses if clause.holds],
    }


def _clause_json(clause: ClauseView) -> dict[str, Any]:
    return {
        "item": clause.item,
        "clause": clause.name,
        "line": clause.line,
        "seen": clause.seen,
        "wanted": clause.wanted,
    }
