"""Loads files that are made to cost time or memory, one after the other, and prints what each was refused for.

Run as a program under limits of the kernel, by test_policy_hostile.py. A line of JSON for each: the name, what the
first fault must hold, and the first fault, null when the file was taken; then the largest resident size in MiB.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from policy_corpus import bad_files  # noqa: E402 (a program finds the tests' own modules only after the line above)
from policy_world import workload  # noqa: E402

from proxy.errors import ConfigError  # noqa: E402
from proxy.policy import PolicyDefault, PolicySettings, load  # noqa: E402
from proxy.types import Generation  # noqa: E402

MIB = 1024 * 1024
ADDRESS_SPACE = 2048 * MIB
SECONDS = 120  # a machine that does nothing else takes five

HEAD = b"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: orders}\n"
RULES = HEAD + b"spec:\n  rules:\n"


def laughs(levels: int, width: int) -> bytes:
    lines = [b"l0: &l0 [lol]"]
    for level in range(1, levels):
        before = b", ".join([b"*l%d" % (level - 1)] * width)
        lines.append(b"l%d: &l%d [%b]" % (level, level, before))
    return b"\n".join(lines) + b"\n"


def hostile() -> Iterator[tuple[str, str, bytes]]:
    yield "empty lines", "the file has more than 1048576 bytes", b"\n" * (MIB + 1)
    yield (
        "one byte too many",
        "the file has more than 1048576 bytes",
        RULES + b"  - {} #" + b"x" * (MIB - len(RULES) - 7),
    )
    yield (
        "a comment of the largest size and a fault",
        ":5:7: `spec` must be a mapping",
        HEAD + b"#" + b"x" * (MIB - len(HEAD) - 12) + b"\nspec: 1\n",
    )
    yield (
        "a value of the largest size",
        "must be one of ALLOW, DENY, AUDIT",
        HEAD + b"spec: {action: " + b"x" * (MIB - len(HEAD) - 20) + b"}\n",
    )
    yield "a key of the largest size", "unknown key", HEAD + b"spec: {? " + b"x" * (MIB - len(HEAD) - 20) + b" : 1}\n"
    yield (
        "a number of a million digits",
        "is too long",
        HEAD + b"spec: {action: " + b"9" * (MIB - len(HEAD) - 20) + b"}\n",
    )
    yield "brackets", "nesting depth", b"[" * (MIB - 1)
    yield "brackets that close", "nesting depth", b"[" * 500_000 + b"]" * 500_000
    yield "braces", "nested deeper than 64 levels", b"{a: " * 200_000
    yield "nested blocks", "nested deeper than 64 levels", b"\n".join(b" " * depth + b"a:" for depth in range(1_400))
    yield "dashes on one line", "nested deeper than 64 levels", b"- " * 500_000
    yield "laughter that grows by ten", "the document lacks `kind`", laughs(12, 10)
    yield "laughter that grows by a thousand", "the file has more than 1048576 bytes", laughs(200, 1_000)
    yield "aliases", "an anchor (&a) is not read", b"a: &a b\nc: [" + b"*a, " * 200_000 + b"]\n"
    yield "anchors", "not a list", b"".join(b"- &a%d x\n" % number for number in range(80_000))
    yield "tags", "not a list", b"".join(b"- !!str x\n" for _ in range(90_000))
    yield "merge keys", "a merge key (<<) is not read", HEAD + b"spec: {" + b"<<: {a: b}, " * 80_000 + b"}\n"
    yield "values", "more than 200000 values", RULES + b"  - to: [{operation: {paths: [" + b"/a, " * 240_000 + b"]}}]\n"
    yield "documents", "not the number 1", b"---\n1\n" * 150_000
    yield "documents that are empty", "more than 4096 documents", b"---\n" * 250_000
    yield "one key again and again", "never denies", HEAD + b"spec: {" + b"action: DENY, " * 70_000 + b"}\n"
    yield (
        "keys that nobody knows",
        'unknown key "k0"',
        HEAD + b"spec: {" + b"".join(b"k%d: 1, " % n for n in range(80_000)) + b"}\n",
    )
    yield (
        "long keys that nobody knows",
        "not YAML",
        HEAD + b"spec: {" + b"".join(b"%d%b: 1, " % (n, b"rules" * 2_000) for n in range(100)) + b"}\n",
    )
    yield "rules", "more than 512 rules", RULES + b"  - {}\n" * 100_000
    yield "rules that are faulty", "more than 200000 values", RULES + b"  - {a: b}\n" * 80_000
    yield "sources", "more than 512 items", RULES + b"  - from:\n" + b"    - source: {namespaces: [a]}\n" * 30_000
    yield (
        "conditions that are faulty",
        "neither `values` nor `notValues`",
        RULES + b"  - when:\n" + b"    - {key: nothing}\n" * 40_000,
    )
    yield (
        "templates of many segments",
        "must be the last operator",
        RULES + b'  - to: [{operation: {paths: ["' + b"/{**}" * 150_000 + b'"]}}]\n',
    )
    yield "stars", "may have one star", RULES + b'  - from: [{source: {trustDomains: ["' + b"*" * 900_000 + b'"]}}]\n'
    yield "quotes that are never closed", "not YAML", b'- "' * 300_000
    yield "tabs", "a tab indents this line", HEAD + b"\t" * 900_000 + b"a"
    yield "escapes", "unexpected end of stream", HEAD + b'spec: "' + b"\\u0041" * 150_000 + b"\n"
    yield "bytes that are no text", "the byte 0xff is not UTF-8", b"\xff" * MIB
    yield "nul", "the character U+0000", b"\0" * MIB
    yield "json brackets", "nested deeper than 64 levels", b'{"a":' * 180_000
    yield (
        "a key set of brackets",
        "cannot be used",
        (
            b"apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\n"
            b"spec: {jwtRules: [{issuer: a, jwks: '" + b"[" * 900_000 + b"'}]}\n"
        ),
    )
    yield (
        "a key set with a long number",
        "cannot be used",
        (
            b"apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\n"
            b'spec: {jwtRules: [{issuer: a, jwks: \'{"keys": ' + b"9" * 900_000 + b"}'}]}\n"
        ),
    )
    for bad in bad_files():
        yield bad.name, bad.expected[0], bad.content


def refused(content: bytes) -> str | None:
    """Load one file; give its first fault, None when it is taken."""
    try:
        load(
            {"file.yaml": content},
            workload=workload(),
            settings=PolicySettings(default=PolicyDefault.DENY),
            generation=Generation(1),
            tcp_ports=(3306,),
        )
    except ConfigError as failure:
        return str(failure.faults[0])
    return None


def largest_resident() -> int:
    """The largest resident size of this program in KiB. `ru_maxrss` would count the process that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def main() -> None:
    """Load them all under limits of the kernel."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for name, expected, content in hostile():
        print(json.dumps([name, expected, refused(content)]), flush=True)
    print(largest_resident() // 1024)


if __name__ == "__main__":
    main()
