"""Questions and answers in a line of words."""

from __future__ import annotations

import json

from proxy.answers.question import Answer, Question
from proxy.documents import shown
from proxy.types import Denial

NOBODY = "a caller without identity"


def request_line(question: Question) -> str:
    """Say what is asked, without what is not set.

    >>> request_line(Question(principal="cluster.local/ns/demo/sa/web", target="/orders/7"))
    'cluster.local/ns/demo/sa/web GET /orders/7 port 8080'
    """
    parts = [question.principal or NOBODY]
    parts.append("opens a connection" if question.opaque else f"{question.method} {question.target}")
    parts.append(f"port {question.port}")
    if question.host and not question.opaque:
        parts.append(f"host {question.host}")
    parts += [f"{name}: {value}" for name, value in question.headers if not question.opaque]
    if question.claims is not None:
        parts.append(f"token {json.dumps(dict(question.claims), sort_keys=True)}")
    elif question.token:
        parts.append("with a token")
    for name, value in (
        ("from", question.source_ip),
        ("to", question.destination_ip),
        ("server name", question.sni),
    ):
        if value:
            parts.append(f"{name} {value}")
    return " ".join(shown(part, 200) for part in parts)


def got(answer: Answer) -> str:
    """Say what the answer is.

    A denied caller gets a status, or its connection is closed; the rule that decided is named, and the reason.
    """
    verdict = answer.verdict
    if not isinstance(verdict, Denial):
        return f"allow by {verdict.rule}"
    status = f" {answer.status}" if answer.status else ""
    return f"deny{status} by {verdict.rule} ({verdict.reason.word})"
