"""The fast path: heads in canonical form, understood line by line from memory.

A client sends the same lines again and again. A line that passed the rules once is remembered with its Field, so the
next time it costs one look-up instead of the rules (0.7 to 1.2 µs), and instead of the gate with h11 (24 µs for the
shortest head). So is the whole block of lines under the request line: a request whose line and block are known costs
two look-ups, whatever the number of its lines. Where blocks seldom come again (a cookie, a date, an identifier that
is new each time), looking for them would cost 10 to 40 % of a reading, so it is accounted for and rests. What the
fast path does not recognise at once goes, from the same bytes, to the gate, which decides: every refusal comes from
there, with its Reason.

    request line | lines before | x-request-id, traceparent | lines after      the key of a block is what is left when
                                  each request has its own                     these two lines, or one, are cut out

Invariants:

1. Whatever is accepted here, the gate accepts with an equal head (held by a differential test).
2. Memory is bounded: `LINES` lines of at most `LINE_BYTES` bytes and `BLOCKS` blocks, dropped all at once when full,
   because attackers choose lines. Trace fields are never remembered: each request has its own.
3. Nothing remembered depends on another line. What does (one Host, one length) is checked per head or block, and the
   version, the limits and the trace lines per head.
4. Where trace lines were cut out, the key has a NUL, and another memory. No head with a NUL of its own is remembered,
   so none can be taken for one that was cut.
"""

from __future__ import annotations

from typing import Final, TypeVar

from proxy.protocol.canonical import (
    PARENT_SIZE,
    StatusLine,
    match_trace_lines,
    maybe_field,
    maybe_request_line,
    maybe_status_line,
    trace_fields,
)
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.headers import write_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.remembered import Answer, FieldBlock, RequestLine
from proxy.protocol.stream import CHUNKED, UNTIL_CLOSE, Field, HeadLimits, RequestHead, ResponseHead

LINES: Final = 2_048
"""Lines remembered of each sort: a few hundred make up the traffic of one workload; at 0.6 KiB each, 1.2 MiB."""
LINE_BYTES: Final = 256
"""Longer lines (cookies, tokens) seldom come twice through different connections, and would cost memory."""
BLOCKS: Final = 512
"""Blocks and answers remembered of each sort: the callers of one workload, times what they ask for. A block costs up to
9 KiB, so in the worst case 4.6 MiB."""
BLOCK_BYTES: Final = 2_048
BLOCK_LINES: Final = 40
SEEN: Final = 4_096
"""Blocks of which it is known that they were there once, by their hash; a quarter of a MiB."""
HIT: Final = 3
LEARN: Final = 4
"""What a block is worth that is found, and what one costs that is learned, in blocks that are looked for in vain.

In vain costs 0.7 to 2.1 µs; one that is found saves 2 to 5.5 until the head is on record and written; to learn one
costs 2.4 to 6. So looking pays where a block is found for three that are not, or comes four times."""
CREDIT: Final = 512
"""How much may go in vain before it rests: enough to learn the blocks of a hundred clients at once."""
REST: Final = 36
"""Heads that are read without looking for their blocks when that does not pay, before the next look. One look in 37, a
prime, meets each of several clients that take turns."""

# The values of Kind as plain numbers: looking a member up on its class costs 40 ns, four times per line.
_HOP: Final = 1
_FRAMING: Final = 2
_TRACE: Final = 4
_PARENT_BEGINS: Final = (b"\r\ntraceparent: ", b"\r\nTraceparent: ")

_Meaning = TypeVar("_Meaning", Field, RequestLine, StatusLine, FieldBlock, Answer)


class HeadReader:
    """Reads heads fast; one per process, shared by all connections of its event loop.

    It serves one path normalisation at a time: asked for another one, it forgets the request lines.
    """

    __slots__ = (
        "_answers",
        "_blocks",
        "_credit",
        "_cut_blocks",
        "_lines",
        "_normalization",
        "_request_lines",
        "_rest",
        "_seen",
        "_status_lines",
    )

    def __init__(self) -> None:
        self._lines: dict[bytes, Field] = {}
        self._request_lines: dict[bytes, RequestLine] = {}
        self._status_lines: dict[bytes, StatusLine] = {}
        self._blocks: dict[bytes, FieldBlock] = {}
        self._cut_blocks: dict[bytes, FieldBlock] = {}
        self._answers: dict[bytes, Answer] = {}
        self._seen: set[int] = set()
        self._credit = CREDIT
        self._rest = 0
        self._normalization = PathNormalization.BASE

    @property
    def remembered(self) -> int:
        """How many lines are remembered now, of all sorts."""
        return len(self._lines) + len(self._request_lines) + len(self._status_lines)

    @property
    def remembered_blocks(self) -> int:
        """How many blocks and answers are remembered now."""
        return len(self._blocks) + len(self._cut_blocks) + len(self._answers)

    def read_request_head(
        self, head: bytes, *, limits: HeadLimits, normalization: PathNormalization, stream: int = 1
    ) -> RequestHead:
        """Do what `gate.parse_request_head` does, faster when the head is canonical."""
        parsed = self.try_request_head(head, limits, normalization, stream)
        if parsed is None:
            return parse_request_head(head, limits=limits, normalization=normalization, stream=stream)
        return parsed

    def read_response_head(
        self, head: bytes, *, request_method: bytes, limits: HeadLimits, stream: int = 1
    ) -> ResponseHead:
        """Do what `gate.parse_response_head` does, faster when the head is canonical."""
        parsed = self.try_response_head(head, request_method, limits, stream)
        if parsed is None:
            return parse_response_head(head, request_method=request_method, limits=limits, stream=stream)
        return parsed

    def try_request_head(
        self, head: bytes, limits: HeadLimits, normalization: PathNormalization, stream: int
    ) -> RequestHead | None:
        """Parse a canonical request head, or return None: then the gate decides."""
        if self._rest:
            self._rest -= 1
            return self._read_lines(head, limits, normalization, stream)
        end = head.find(b"\r\n")
        first = head[:end]
        # As libraries spell them; a `find` costs 70 to 120 ns, one search for all spellings 170 to 700.
        at = head.find(b"\r\nx-request-id: ", end)
        if at < 0:
            at = head.find(b"\r\nX-Request-I", end)
            if at < 0:
                at = head.find(b"\r\ntraceparent: ", end)
        if at - PARENT_SIZE >= end and head.startswith(_PARENT_BEGINS, at - PARENT_SIZE):
            at -= PARENT_SIZE
        cut = match_trace_lines(head, at + 2) if at >= 0 else None
        if cut is None:
            key, blocks = head[end:], self._blocks
        else:
            key, blocks = head[end : at + 2] + b"\0" + head[cut.end() :], self._cut_blocks
        block = blocks.get(key)
        if block is None:
            parsed = self._read_lines(head, limits, normalization, stream)
            self._credit -= 1
            if parsed is not None and len(key) <= BLOCK_BYTES:
                self._learn_block(parsed, key, head[end : at + 2].count(b"\r\n") - 1 if cut else -1)
            if self._credit <= 0:
                self._credit, self._rest = 0, REST
            return parsed
        if self._credit < CREDIT:
            self._credit += HIT
        if normalization is not self._normalization:
            self._request_lines.clear()
            self._normalization = normalization
        line = self._request_lines.get(first) or self._learn_request_line(first)
        if line is None:
            return None
        if not line.opening:
            line.prepare()
        version, content_length = line.version, block.content_length
        if len(head) > limits.head_bytes or (version == b"1.0" and content_length == CHUNKED):
            return None
        if cut is None:
            trace, request_id, traced = b"", b"", False
            fields = block.before.copy()
        else:
            trace = cut.group()
            fields = [*block.before, *trace_fields(cut), *block.after]
            request_id = cut[1] or cut[4] or b""
            traced = (cut[2] or cut[3]) is not None
        if len(fields) > limits.fields:
            return None
        parsed = RequestHead(
            stream,
            line.method,
            line.target,
            line.path,
            line.query,
            block.authority,
            version,
            fields,
            content_length,
            block.has_length,
            not block.closes and (version == b"1.1" or block.persists),
            False,
            b"",
        )
        parsed.remembered = line, block, trace, request_id, traced
        return parsed

    def _read_lines(
        self, head: bytes, limits: HeadLimits, normalization: PathNormalization, stream: int
    ) -> RequestHead | None:
        """Parse a canonical head line by line."""
        lines = head.split(b"\r\n")
        # A whole head ends in two empty elements; a third one would be an empty line within, which is not canonical.
        if len(head) > limits.head_bytes or lines.pop() or lines.pop() or len(lines) > limits.fields + 1:
            return None
        if normalization is not self._normalization:
            self._request_lines.clear()
            self._normalization = normalization
        first = lines.pop(0)
        line = self._request_lines.get(first) or self._learn_request_line(first)
        if line is None:
            return None
        version = line.version
        authority = None
        content_length = 0
        has_length = False
        keep_alive = version == b"1.1"
        closes = False
        fields = []
        get = self._lines.get
        for raw in lines:
            field = get(raw) or self._learn_line(raw)
            if field is None:
                return None
            fields.append(field)
            kind = field[3]
            if kind == _FRAMING:
                name = field[0]
                if name == b"host":
                    if authority is not None:
                        return None
                    authority = field[1]
                elif has_length or content_length:
                    return None
                elif name == b"content-length":
                    has_length = True
                    content_length = int(field[1])
                elif version == b"1.0":
                    return None
                else:
                    content_length = CHUNKED
            elif kind == _HOP and field[0] == b"connection":
                if field[1].lower() == b"close":
                    closes = True
                else:
                    keep_alive = True
        if authority is None:
            return None
        return RequestHead(
            stream,
            line.method,
            line.target,
            line.path,
            line.query,
            authority,
            version,
            fields,
            content_length,
            has_length,
            keep_alive and not closes,
            False,
            b"",
        )

    def _learn_block(self, head: RequestHead, key: bytes, before: int) -> None:
        """Remember the block of a head whose like was there before; most blocks that come once come never again.

        `before` is the number of fields before the trace lines that `key` lacks, -1 where it lacks none.
        """
        seen, fingerprint = self._seen, hash(key)
        if fingerprint not in seen:
            if len(seen) >= SEEN:
                seen.clear()
            seen.add(fingerprint)
            return
        self._credit -= LEARN
        fields = head.fields
        kept = key.count(b"\r\n") - 2
        if before < 0:
            before = kept
        first, last = fields[:before], fields[len(fields) - kept + before :]
        if kept <= BLOCK_LINES and not any(field[3] == _TRACE for field in first + last):
            blocks = self._blocks if kept == len(fields) else self._cut_blocks
            _remember(blocks, key, FieldBlock(head, first, last), BLOCKS)

    def read_answer(self, head: bytes, limits: HeadLimits) -> Answer | None:
        """Understand the canonical head of an answer to anything but HEAD, or return None.

        None, too, for one that ends with its connection or whose body is chunked.
        """
        answer = self._answers.get(head)
        if answer is not None and len(head) <= limits.head_bytes and len(answer.head.fields) <= limits.fields:
            return answer
        parsed = self.try_response_head(head, b"GET", limits, 0)
        if parsed is None or parsed.content_length < 0 or not parsed.keep_alive:
            return None
        answer = Answer(parsed, write_response_head(parsed, close=False, chunked=False))
        if len(head) <= BLOCK_BYTES and len(parsed.fields) <= BLOCK_LINES:
            _remember(self._answers, head, answer, BLOCKS)
        return answer

    def try_response_head(
        self, head: bytes, request_method: bytes, limits: HeadLimits, stream: int
    ) -> ResponseHead | None:
        """Parse a canonical answer's head, or return None: then the gate decides."""
        lines = head.split(b"\r\n")
        if len(head) > limits.head_bytes or lines.pop() or lines.pop() or len(lines) > limits.fields + 1:
            return None
        first = lines.pop(0)
        status_line = self._status_lines.get(first) or self._learn_status_line(first)
        if status_line is None:
            return None
        status, reason_phrase, version = status_line
        declared = None
        chunked = False
        keep_alive = version == b"1.1"
        closes = False
        fields = []
        get = self._lines.get
        for line in lines:
            field = get(line) or self._learn_line(line)
            if field is None:
                return None
            fields.append(field)
            kind = field[3]
            if kind == _FRAMING:
                name = field[0]
                if name == b"host":
                    return None
                if chunked or declared is not None or status == 204:
                    return None
                if name == b"content-length":
                    declared = int(field[1])
                elif version == b"1.0":
                    return None
                else:
                    chunked = True
            elif kind == _HOP and field[0] == b"connection":
                if field[1].lower() == b"close":
                    closes = True
                else:
                    keep_alive = True
        if request_method == b"HEAD" or status in (204, 304):
            content_length = 0
        elif chunked:
            content_length = CHUNKED
        elif declared is not None:
            content_length = declared
        else:
            content_length = UNTIL_CLOSE
            closes = True
        return ResponseHead(
            stream,
            status,
            reason_phrase,
            version,
            fields,
            content_length,
            declared,
            keep_alive and not closes,
            b"",
        )

    def _learn_line(self, line: bytes) -> Field | None:
        field = maybe_field(line)
        if field is not None and len(line) <= LINE_BYTES and field[3] != _TRACE:
            _remember(self._lines, line, field)
        return field

    def _learn_request_line(self, line: bytes) -> RequestLine | None:
        request_line = maybe_request_line(line, self._normalization)
        if request_line is not None and len(line) <= LINE_BYTES:
            _remember(self._request_lines, line, request_line)
        return request_line

    def _learn_status_line(self, line: bytes) -> StatusLine | None:
        status_line = maybe_status_line(line)
        if status_line is not None and len(line) <= LINE_BYTES:
            _remember(self._status_lines, line, status_line)
        return status_line


def _remember(memory: dict[bytes, _Meaning], line: bytes, meaning: _Meaning, limit: int = LINES) -> None:
    if len(memory) >= limit:
        memory.clear()
    memory[line] = meaning
