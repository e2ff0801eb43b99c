"""Compiles the byte path to C with mypyc when REMORA_COMPILE=1 is set; without it the wheel is pure Python.

    REMORA_COMPILE=1 pip wheel --no-deps --no-build-isolation .    needs mypy, a C compiler and Python's headers

The same typed sources, read by the same `mypy`, become one shared library, and beside each source that is part of it a
small module that the interpreter prefers. The sources are installed all the same: tracebacks and people read them.

What is in the list was measured (benchmarks/README.md, "The compiled form"). Left out: what opens a connection and
not what moves its bytes; the policy, of which a decision by memory is all that a request usually needs; and values
and errors, whose classes Python makes better than mypyc (enums with a `__new__`, subclasses of OSError).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from setuptools import setup  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from setuptools import Extension

COMPILED: Final = (
    "proxy/forward/answer.py",
    "proxy/forward/balance.py",
    "proxy/forward/endpoint.py",
    "proxy/forward/exchange.py",
    "proxy/forward/http.py",
    "proxy/forward/pool.py",
    "proxy/forward/route.py",
    "proxy/forward/served.py",
    "proxy/forward/tunnel.py",
    "proxy/forward/upstream.py",
    "proxy/policy/decisions.py",
    "proxy/protocol/canonical.py",
    "proxy/protocol/chunked.py",
    "proxy/protocol/fast.py",
    "proxy/protocol/fields.py",
    "proxy/protocol/gate.py",
    "proxy/protocol/headers.py",
    "proxy/protocol/http1.py",
    "proxy/protocol/path.py",
    "proxy/protocol/reading.py",
    "proxy/protocol/remembered.py",
    "proxy/protocol/stream.py",
    "proxy/routes.py",
    "proxy/runtime/clock.py",
    "proxy/runtime/wire.py",
    "proxy/telemetry/label_sets.py",
    "proxy/telemetry/parts.py",
    "proxy/telemetry/record.py",
    "proxy/telemetry/series.py",
    "proxy/telemetry/trace.py",
)
"""All in one: a call from one of them to another is a call in C, a call that leaves the list is one of Python."""

MYPY_OPTIONS: Final = ("--follow-imports=silent", "--ignore-missing-imports", "--no-warn-unused-ignores")
"""Here mypy is a compiler: whether the types hold is the business of `make check`, with every dependency installed."""


def extensions(wanted: str) -> list[Extension]:
    """Give what is to be compiled for a value of REMORA_COMPILE: all of it for "1", nothing for "0" and ""."""
    if wanted in ("", "0"):
        return []
    if wanted != "1":
        raise SystemExit(f"REMORA_COMPILE is {wanted!r}; set it to 1 to compile the byte path, or unset it")
    try:
        from mypyc.build import mypycify
    except ModuleNotFoundError:
        raise SystemExit(
            "REMORA_COMPILE=1 needs mypy where the wheel is built: install it and build with --no-build-isolation, "
            "or call `make compiled`"
        ) from None
    made: list[Extension] = mypycify(
        [*MYPY_OPTIONS, *COMPILED],
        opt_level="2",
        debug_level="0",  # with symbols the library is half as large again
        group_name="remora",
    )
    return made


setup(ext_modules=extensions(os.environ.get("REMORA_COMPILE", "")))
