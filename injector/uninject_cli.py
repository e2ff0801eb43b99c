"""The command `remora uninject`: takes out what `remora inject` put in, exactly."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from injector.doors import uninject_manifest
from injector.inject_cli import complain, show
from injector.inputs import BadInput, add_files, read_parts


def main(argv: Sequence[str]) -> int:
    """Run the command; gives 0, 1 when a record cannot be read, 2 for input that cannot be read."""
    text = "Take the sidecar out of every pod of the manifests, by the record that the injection left in each."
    parser = argparse.ArgumentParser(prog="remora uninject", description=text)
    add_files(parser)
    parser.add_argument("-n", "--namespace", default="default", help="of objects that do not say, in the report")
    options = parser.parse_args(argv)
    try:
        parts = read_parts(options.files)
    except BadInput as fault:
        return complain("uninject", fault)
    return show("uninject", *uninject_manifest(parts, namespace=options.namespace))
