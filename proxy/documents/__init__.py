"""YAML and JSON read with the place of every value: the one way in which files written by people are read.

`parse` turns bytes into `Node` trees and faults; `Checker` walks a tree, hands out plain values and collects a fault
with line and column for everything that is not as it must be. Configuration and policy both use the pair, so that a
person sees the same messages for both, and all of them at once.

What is read is the part of YAML on which YAML 1.1, YAML 1.2 and JSON agree:

* no anchors, aliases, merge keys and tags: an alias is how ten lines become ten gigabytes, and a tag changes a type
  where nobody looks;
* a key is text (an undecorated integer key counts as its digits, as in JSON and Kubernetes), and stands once;
* a plain number that the versions read differently (`010` is 8 or 10) is a fault, not a guess;
* `yes`, `no`, `on`, `off` are booleans where a boolean is wanted and a fault where text is wanted.

Work is bounded: bytes, nesting, nodes and reported faults have limits, and nothing here is recursive.
"""

from __future__ import annotations

from proxy.documents.checker import MAX_FAULTS, Checker, did_you_mean, nearest
from proxy.documents.node import Node, Position, quoted, shown
from proxy.documents.reader import HAS_C_LOADER, MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES, parse

__all__ = [
    "HAS_C_LOADER",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_DOCUMENTS",
    "MAX_FAULTS",
    "MAX_NODES",
    "Checker",
    "Node",
    "Position",
    "did_you_mean",
    "nearest",
    "parse",
    "quoted",
    "shown",
]
