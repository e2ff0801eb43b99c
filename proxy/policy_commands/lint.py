"""The command `remora policy lint`: what policies say that is probably not meant.

Exit codes: 0 nothing as grave as --fail-on, 1 findings, 2 wrong usage or files that cannot be read. Files that do not
load are findings too (RM0001), so that a pipeline has one report to read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any, Final

from proxy.errors import ConfigError, Fault
from proxy.policy import load
from proxy.policy.lint import MAX_FINDINGS, Scene, lint
from proxy.policy.lint.boolean import boolean_form
from proxy.policy.lint.catalogue import CATALOGUE, LOAD_ERROR, Severity, severity_of
from proxy.policy.lint.known import read_known
from proxy.policy.lint.scene import Known
from proxy.policy.lint.scopes import documents_of
from proxy.policy.model import PolicySet
from proxy.policy.peers import PeerModes
from proxy.policy.read import read_files
from proxy.policy_commands import inputs
from proxy.types import Generation

EXIT_FINDINGS: Final = 1

PAGES: Final = "proxy/policy/lint/pages"
"""Where the pages stand in this project."""

_NEVER: Final = "never"
_WORKLOAD: Final = ("namespace", "account", "labels", "name")

_DESCRIPTION: Final = """\
Find what policies say that is probably not meant.

Without a workload the policies of all namespaces are judged by their own text. With one (--config, or --namespace and
--labels) also what they say to it: ports, plaintext, selectors. With --known also whether anybody is called so.
"""

_EXAMPLES: Final = """\
examples:
  remora policy lint policy/ --fail-on warning
  remora policy lint policy/ --output sarif > remora.sarif
  remora policy lint --config remora.yaml
  kubectl get namespaces,serviceaccounts,pods -A -o yaml > known.yaml && remora policy lint policy/ --known known.yaml
  remora policy lint --explain RM0101
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "lint",
        help="find what policies say that is probably not meant",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="policies, as with -f")
    inputs.add_options(parser)
    parser.add_argument(
        "--known",
        "--workloads",
        dest="known",
        action="append",
        default=[],
        metavar="PATH",
        help="what exists: namespaces, identities, workloads, in a list or as kubectl prints them",
    )
    severities = [severity.value for severity in Severity]
    parser.add_argument(
        "--fail-on", choices=(*severities, _NEVER), default="error", help="exit 1 from this severity on; default: error"
    )
    parser.add_argument("--ignore", action="append", default=[], metavar="ID", help="do not report this finding")
    parser.add_argument("--output", choices=("text", "json", "sarif"), default="text", help="default: text")
    instead = parser.add_argument_group("instead of linting").add_mutually_exclusive_group()
    instead.add_argument("--boolean", action="store_true", help="print every rule as a boolean expression")
    instead.add_argument("--list", action="store_true", help="list all findings")
    instead.add_argument("--explain", metavar="ID", help="print the page of a finding")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code. Raises ConfigError for what cannot be read."""
    if options.list:
        for code, entry in CATALOGUE.items():
            sys.stdout.write(f"{code}  {entry.severity.value:<7}  {entry.title}\n")
        return 0
    if options.explain is not None:
        return _explain(options.explain)
    unknown = [code for code in options.ignore if code.upper() not in CATALOGUE]
    if unknown:
        raise ConfigError([_no_such(code, "--ignore") for code in unknown])
    options.files = [*options.files, *options.paths]
    files = inputs.read_policies(options)
    surroundings = inputs.read_surroundings(options)
    scene = _scene(options, surroundings)
    found, policies, modes = _read(files, surroundings, scene)
    if options.boolean and modes is not None:
        _write_boolean(policies)
        return 0
    if modes is not None:
        found += lint(policies, _with_hints(scene, policies), modes=modes if scene.workload is not None else None)
    ignored = {code.upper() for code in options.ignore}
    found = [fault for fault in sorted(dict.fromkeys(found)) if fault.code not in ignored]
    _WRITERS[options.output](found, len(files))
    if options.fail_on == _NEVER:
        return 0
    least = Severity(options.fail_on).weight
    return EXIT_FINDINGS if any(severity_of(fault.code).weight >= least for fault in found) else 0


def page_of(code: str) -> str:
    """Read the page of a finding."""
    return resources.files("proxy.policy.lint").joinpath("pages", f"{code}.md").read_text(encoding="utf-8")


def _explain(code: str) -> int:
    if code.upper() not in CATALOGUE:
        raise ConfigError([_no_such(code, "--explain")])
    sys.stdout.write(page_of(code.upper()))
    return 0


def _no_such(code: str, option: str) -> Fault:
    return Fault(file=option, message=f"no finding is called {code!r}", hint="remora policy lint --list shows all")


# --- what is judged ---


def _scene(options: argparse.Namespace, surroundings: inputs.Surroundings) -> Scene:
    workload = surroundings.workload
    has_workload = options.config is not None or any(getattr(options, name) is not None for name in _WORKLOAD)
    knows_domain = has_workload or options.trust_domain is not None
    config = inputs.read_config(options.config) if options.config is not None else None
    known = read_known(inputs.read_files(options.known)) if options.known else Known()
    if config is not None:
        identities = [each for service in config.outbound.services.values() for each in service.identities]
        accounts = {f"{each.namespace}/{each.service_account}" for each in identities if each.namespace}
        accounts.add(f"{workload.namespace}/{workload.service_account}")
        namespaces = frozenset(account.partition("/")[0] for account in accounts)
        known = replace(known, hinted_namespaces=namespaces, hinted_accounts=frozenset(accounts))
    return Scene(
        settings=surroundings.settings,
        workload=workload if has_workload else None,
        trust_domains=(workload.trust_domain, *workload.trust_domain_aliases) if knows_domain else (),
        normalization=surroundings.normalization,
        ports=None if config is None else {port.port: port.protocol for port in config.inbound},
        tcp_ports=frozenset(surroundings.tcp_ports),
        is_configured=config is not None,
        known=known,
    )


def _with_hints(scene: Scene, policies: PolicySet) -> Scene:
    """Take the namespaces in which policies stand as known to exist."""
    known = scene.known
    namespaces = {document.namespace for document in documents_of(policies)} - {scene.settings.root_namespace}
    hinted = replace(known, hinted_namespaces=known.hinted_namespaces | namespaces)
    return replace(scene, known=hinted)


def _read(
    files: Mapping[str, bytes], surroundings: inputs.Surroundings, scene: Scene
) -> tuple[list[Fault], PolicySet, PeerModes | None]:
    """Read the set: faults and what the reader remarked, the documents, and the modes if the set loads."""
    policies, _, remarked = read_files(files, surroundings.workload, surroundings.settings)
    try:
        snapshot = load(
            files,
            workload=surroundings.workload,
            settings=surroundings.settings,
            generation=Generation(1),
            tcp_ports=surroundings.tcp_ports if scene.workload is not None else (),
        )
    except ConfigError as failure:
        return [*(replace(fault, code=LOAD_ERROR) for fault in failure.faults), *remarked], policies, None
    return remarked, policies, snapshot.modes


# --- how it is told ---


def _write_boolean(policies: PolicySet) -> None:
    for policy in policies.authorization:
        for index, rule in enumerate(policy.rules):
            place = f"{policy.origin.file}:{rule.line}:{rule.column}"
            sys.stdout.write(f"{place}: {policy.rule_id(index)}: {boolean_form(rule, policy.action)}\n")


def _write_text(found: Sequence[Fault], files: int) -> None:
    for fault in found:
        hint = f"; {fault.hint}" if fault.hint else ""
        severity = severity_of(fault.code).value
        sys.stdout.write(f"{fault.place}: {severity} {fault.code}: {fault.message}{hint}\n")
    counts = {severity: sum(severity_of(fault.code) is severity for fault in found) for severity in Severity}
    told = ", ".join(_count(count, severity.value) for severity, count in counts.items() if count)
    sys.stdout.write(f"{_count(files, 'file')}: {told or 'nothing found'}\n")
    if len(found) >= MAX_FINDINGS:
        sys.stdout.write(f"there may be more: no more than {MAX_FINDINGS} are shown\n")
    if found:
        sys.stdout.write(f"remora policy lint --explain {found[0].code} says more\n")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 and word != "info" else "")


def _write_json(found: Sequence[Fault], files: int) -> None:
    _dump(
        [
            {
                "id": fault.code,
                "severity": severity_of(fault.code).value,
                "file": fault.file,
                "line": fault.line,
                "column": fault.column,
                "message": fault.message,
                "hint": fault.hint,
                "page": f"{PAGES}/{fault.code}.md",
            }
            for fault in found
        ]
    )


_SARIF_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def _write_sarif(found: Sequence[Fault], files: int) -> None:
    """Write SARIF 2.1.0, which code hosts show beside the lines."""
    used = sorted({fault.code for fault in found})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CATALOGUE[code].title},
            "help": {"text": page_of(code), "markdown": page_of(code)},
            "defaultConfiguration": {"level": _SARIF_LEVELS[severity_of(code)]},
        }
        for code in used
    ]
    results = [
        {
            "ruleId": fault.code,
            "level": _SARIF_LEVELS[severity_of(fault.code)],
            "message": {"text": fault.message + (f"; {fault.hint}" if fault.hint else "")},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": fault.file},
                        "region": {"startLine": max(fault.line, 1), "startColumn": max(fault.column, 1)},
                    }
                }
            ],
        }
        for fault in found
    ]
    tool = {"driver": {"name": "remora policy lint", "rules": rules}}
    _dump(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{"tool": tool, "columnKind": "unicodeCodePoints", "results": results}],
        }
    )


def _dump(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


_WRITERS: Final = {"text": _write_text, "json": _write_json, "sarif": _write_sarif}
