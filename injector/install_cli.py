"""The command `remora install`: prints a control plane, which `kubectl apply -f -` makes true."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from injector.inject_cli import complain
from injector.inputs import BadInput
from injector.install.objects import groups
from injector.install.plan import Plan
from injector.install_options import plan_of, plan_parser
from injector.yaml_text import dump

_DESCRIPTION: Final = """\
Print everything that makes a mesh of a cluster: namespace, accounts, rights, authority, injector, webhook, network
policies, defaults. The same options print the same bytes, and no key and no certificate is among them: authority and
injector make their own in the cluster.
"""
_EXAMPLES: Final = """\
examples:
  remora install --mesh-namespace shop | kubectl apply -f -
  kubectl label namespace shop remora.io/inject=enabled
  remora check
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, or 2 for options that make no plan."""
    parser = plan_parser("install", _DESCRIPTION, _EXAMPLES)
    try:
        plan = plan_of(parser.parse_args(argv))
    except BadInput as fault:
        return complain("install", fault)
    sys.stdout.writelines(_lines(plan))
    return 0


def _lines(plan: Plan) -> Iterator[str]:
    for group in groups(plan):
        for number, item in enumerate(group.objects):
            yield "---\n"
            if number == 0:
                yield f"# {group.meaning}\n"
            yield dump(item)
