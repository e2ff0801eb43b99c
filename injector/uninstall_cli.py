"""The command `remora uninstall`: prints what `remora install` made, for `kubectl delete` to take away again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from injector.inject_cli import complain
from injector.inputs import BadInput
from injector.install.objects import removals
from injector.install_options import plan_of, plan_parser
from injector.yaml_text import dump

_DESCRIPTION: Final = """\
Print the names of everything that `remora install` printed with the same options, in the order in which it can go:
first the webhook, which would hold back pods, last the namespace, and with it the authority's keys. Pods keep their
sidecars until they are made anew; without an authority their certificates end.
"""
_EXAMPLES: Final = """\
example:
  remora uninstall --mesh-namespace shop | kubectl delete --ignore-not-found -f -
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, or 2 for options that make no plan."""
    parser = plan_parser("uninstall", _DESCRIPTION, _EXAMPLES)
    try:
        plan = plan_of(parser.parse_args(argv))
    except BadInput as fault:
        return complain("uninstall", fault)
    for item in removals(plan):
        sys.stdout.write(f"---\n{dump(item)}")
    return 0
