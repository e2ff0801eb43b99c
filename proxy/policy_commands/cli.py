"""The command `remora policy ...`: finds the subcommand, runs it, says what is wrong with the files.

Exit codes: 0 done, 1 the answer is no (a test fails, access is lost), 2 something is wrong with what was given, each
fault on a line.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from proxy.errors import ConfigError

SUBCOMMANDS: Final = ("explain", "lint", "test", "diff")
"""The modules beside this one; each has `add_parser(commands)` and `run(options) -> int`."""

EXIT_INPUT: Final = 2

_DESCRIPTION: Final = """\
Ask the policies, without a cluster: the answers come from the code that a running sidecar judges by.

Every subcommand takes policies the same way:

  -f policy/                 a directory, read as a sidecar reads it (*.yaml *.yml *.json, hidden files skipped)
  -f orders.yaml -f -        files, and standard input; several documents, JSON and kind: List are taken
  --config remora.yaml       the configuration of a sidecar: its policy directory, workload, trust domain and default

Without --config, --namespace, --account and --labels say which workload is asked.
"""

_EXAMPLES: Final = """\
examples:
  remora policy lint -f policy/ --namespace demo --labels app=orders
  remora policy test --init -f policy/ --namespace demo --labels app=orders > orders.test.yaml
  remora policy test orders.test.yaml
  remora policy diff policy/ new-policy/ --namespace demo --labels app=orders
  kubectl get authorizationpolicies -A -o yaml | remora policy lint -f -
"""


def main(argv: Sequence[str]) -> int:
    """Run the subcommand given by `argv`, the words after `remora policy`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="remora policy",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules: dict[str, ModuleType] = {}
    for name in SUBCOMMANDS:
        modules[name] = importlib.import_module(f"proxy.policy_commands.{name}")
        modules[name].add_parser(commands)
    options = parser.parse_args(argv)
    try:
        return int(modules[options.command].run(options))
    except ConfigError as failure:
        for fault in failure.faults:
            sys.stderr.write(f"{fault}\n")
        return EXIT_INPUT
