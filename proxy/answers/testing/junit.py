"""Outcomes as JUnit XML, in the shape that Jenkins, GitLab and GitHub's reporters read (testsuites, xUnit)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as Xml

from proxy.answers.testing.tables import Outcome
from proxy.answers.words import got, request_line

_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, not even escaped (section 2.2)."""


Suite = tuple[str, Sequence[Outcome], Sequence[str]]
"""A file of tests, its outcomes, and complaints (a rule without a case), each of which is one more failed case."""


def junit(suites: Sequence[Suite]) -> bytes:
    """Write the outcomes of files of tests. No time is measured, so every `time` is 0."""
    root = Xml.Element("testsuites", {"name": "remora policy test", **_counts(suites)})
    for file, outcomes, complaints in suites:
        suite = Xml.SubElement(root, "testsuite", {"name": _clean(file), **_counts([(file, outcomes, complaints)])})
        for outcome in outcomes:
            case = _case(suite, file, outcome.case.name)
            answer = got(outcome.answer)
            if not outcome.passed:
                _failure(case, f"expected {outcome.case.expect}, got {answer}", "\n".join(said_of(outcome)))
            place = f"{outcome.case.file}:{outcome.case.line}"
            said = f"{place}\n{request_line(outcome.case.question)}\n{answer}\n"
            Xml.SubElement(case, "system-out").text = _clean(said)
        for complaint in complaints:
            _failure(_case(suite, file, complaint), complaint, complaint)
    Xml.indent(root)
    text: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _counts(suites: Sequence[Suite]) -> dict[str, str]:
    failures = sum(len(complaints) + sum(not o.passed for o in outcomes) for _, outcomes, complaints in suites)
    tests = sum(len(complaints) + len(outcomes) for _, outcomes, complaints in suites)
    return {"tests": str(tests), "failures": str(failures), "errors": "0", "skipped": "0", "time": "0"}


def said_of(outcome: Outcome) -> list[str]:
    """Explain an answer in lines: what was asked, what decided, and what came closest."""
    verdict = outcome.answer.verdict
    lines = [request_line(outcome.case.question)]
    lines += [text for text in (getattr(verdict, "explanation", ""),) if text]
    miss = getattr(verdict, "nearest_miss", "")
    return [*lines, f"nearest miss: {miss}"] if miss else lines


def _case(suite: Xml.Element, file: str, name: str) -> Xml.Element:
    return Xml.SubElement(suite, "testcase", {"classname": _clean(file), "name": _clean(name), "time": "0"})


def _failure(case: Xml.Element, message: str, text: str) -> None:
    Xml.SubElement(case, "failure", {"message": _clean(message), "type": "decision"}).text = _clean(text)


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
