"""Reads `tests/corpus/gate.yaml`: raw client inputs, and what must become of each.

Whoever tests the gate drives the same table: the codec in a unit test, the running sidecar through a real socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CORPUS_FILE = Path(__file__).with_name("corpus") / "gate.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """What the backend must see of the first request."""

    method: bytes
    target: bytes
    authority: bytes
    framing: str
    body: bytes
    has: tuple[tuple[bytes, bytes], ...]
    lacks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCase:
    """One input: `raw` is all that the client sends, `forwarded` is None exactly when `status` is not 200.

    `then_status` (0 for none) and `then_reason` are of the answer to what follows the first request. `half_close`:
    the client closes its side after `raw`, and only then must the answer come.
    """

    name: str
    rfc: str
    raw: bytes
    status: int
    reason: str
    forwarded: Forwarded | None
    then_status: int
    then_reason: str
    half_close: bool

    @property
    def head_is_accepted(self) -> bool:
        """The backend may see the head of the first request: it is forwarded, or only its body is at fault."""
        faulty_body = self.reason in ("chunk_invalid", "trailer_invalid", "request_incomplete")
        return self.forwarded is not None or (faulty_body and b"\r\n\r\n" in self.raw)


def load_gate_corpus() -> list[GateCase]:
    """Load the whole table, in the order of the file."""
    entries: list[dict[str, Any]] = yaml.safe_load(CORPUS_FILE.read_text(encoding="utf-8"))
    return [_case(entry) for entry in entries]


def _case(entry: dict[str, Any]) -> GateCase:
    then = entry.pop("then", {})
    case = GateCase(
        name=entry.pop("name"),
        rfc=entry.pop("rfc"),
        raw=_bytes(entry.pop("raw")),
        status=entry.pop("status"),
        reason=entry.pop("reason", ""),
        then_status=then.get("status", 0),
        then_reason=then.get("reason", ""),
        half_close=entry.pop("half_close", False),
        forwarded=_forwarded(entry) if "method" in entry else None,
    )
    if entry or (case.status == 200) != (case.forwarded is not None) or bool(case.reason) == (case.status == 200):
        raise ValueError(f"{CORPUS_FILE.name}: the entry {case.name} has keys too many or too few: {sorted(entry)}")
    return case


def _forwarded(entry: dict[str, Any]) -> Forwarded:
    return Forwarded(
        method=_bytes(entry.pop("method")),
        target=_bytes(entry.pop("target")),
        authority=_bytes(entry.pop("authority")),
        framing=entry.pop("framing"),
        body=_bytes(entry.pop("body")),
        has=tuple((_bytes(name), _bytes(value)) for name, value in entry.pop("has", {}).items()),
        lacks=tuple(_bytes(name) for name in entry.pop("lacks", [])),
    )


def _bytes(text: str | list[Any]) -> bytes:
    """Turn text, or a list of texts and repetitions, into one byte per character."""
    if isinstance(text, str):
        return text.encode("latin-1")
    return b"".join(
        part.encode("latin-1") if isinstance(part, str) else part["text"].encode("latin-1") * part["times"]
        for part in text
    )
