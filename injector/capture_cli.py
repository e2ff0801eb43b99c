"""The command `remora injector capture`: the step of a pod that sets the capture rules, or looks whether they work.

Exit codes: 0 done; 1 the rules are not as they should be, or cannot be set; 2 arguments that make no rules.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from injector.capture.apply import Applied, CaptureError, apply, foreign_rules, remove
from injector.capture.iptables import remove_text, restore_text
from injector.capture.nft import REMOVE, script
from injector.capture.rules import ARGUMENTS, DNS_PORT, Backend, Family, Rules, RulesError, read_rules
from injector.capture.verify import Findings, verify

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def add_capture_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser; without any of them nothing is captured."""
    for name, meaning in ARGUMENTS.items():
        parser.add_argument(
            f"--{name}", metavar="LIST" if name.startswith(("include", "exclude")) else "N", help=meaning
        )
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--check", action="store_true", help="set nothing, look whether the rules work (a CNI set them)")
    does.add_argument("--remove", action="store_true", help="take away what this command has set")
    parser.add_argument("--dry-run", action="store_true", help="print the rules, or their removal, and do nothing")
    parser.add_argument(
        "--backend",
        choices=("auto", *(each.value for each in Backend)),
        default="auto",
        help="how the rules get into the kernel; by default the first of these that works",
    )


def run(options: argparse.Namespace) -> int:
    """Do what the arguments of `add_capture_options` ask for; gives the exit code."""
    given = {name: value for name in ARGUMENTS if (value := getattr(options, name.replace("-", "_"))) is not None}
    try:
        rules = read_rules(given)
        backend = None if options.backend == "auto" else Backend(options.backend)
        if options.dry_run:
            sys.stdout.write(_dry_run(rules, backend, is_removal=options.remove))
        elif options.check:
            return _check(rules)
        elif options.remove:
            remove()
            _say("the capture rules and the address are gone, or were not there")
        else:
            return _capture(rules, backend)
    except RulesError as fault:
        _say(str(fault))
        return EXIT_USAGE
    except CaptureError as fault:
        _say(str(fault))
        return EXIT_FAILED
    return 0


def _capture(rules: Rules, backend: Backend | None) -> int:
    applied = apply(rules, backend)
    others = foreign_rules()
    if others:
        _say(
            f"warning: rules of another mesh are here: {', '.join(others)}; a pod is in one mesh alone: take it out "
            "of the other"
        )
    findings = verify(rules)
    _say_gaps(findings)
    if findings.faults:
        # The rules stay: a pod that calls nobody is safer than one that goes round its policies.
        return EXIT_FAILED
    verified = ", ".join(findings.verified) or "nothing"
    _say(f"{_how(applied)}; {_what(rules)}; verified: {verified}")
    return 0


def _check(rules: Rules) -> int:
    findings = verify(rules)
    _say_gaps(findings)
    if findings.faults:
        return EXIT_FAILED
    if not findings.verified:
        _say("nothing could be verified, so nothing is known of the rules: check before the sidecar has its ports")
        return EXIT_FAILED
    _say(f"the rules work; verified: {', '.join(findings.verified)}")
    return 0


def _say_gaps(findings: Findings) -> None:
    for gap in findings.not_verified:
        _say(f"not verified: {gap}")
    for fault in findings.faults:
        _say(fault)


def _dry_run(rules: Rules, backend: Backend | None, *, is_removal: bool) -> str:
    if backend in (None, Backend.NFT):
        return REMOVE if is_removal else script(rules)
    parts = []
    for family, program in ((Family.IPV4, "iptables-restore"), (Family.IPV6, "ip6tables-restore")):
        text = restore_text(rules, family, "")
        parts.append(f"# {program} --noflush\n{remove_text(text) if is_removal else text}")
    return "".join(parts)


def _how(applied: Applied) -> str:
    return f"{applied.backend.value}, {' and '.join(f'IPv{family.value}' for family in applied.families)}"


def _what(rules: Rules) -> str:
    inbound = _but(f"ports {rules.include_inbound_ports}", str(rules.exclude_inbound_ports))
    if not rules.include_inbound_ports:
        inbound = "nothing"
    captured = [",".join(rules.include_outbound_ip_ranges)] if rules.include_outbound_ip_ranges else []
    if rules.include_outbound_ports:
        captured.append(f"ports {rules.include_outbound_ports}")
    excluded = [f"port {DNS_PORT}", *rules.exclude_outbound_ip_ranges]
    if rules.exclude_outbound_ports:
        excluded.append(f"ports {rules.exclude_outbound_ports}")
    outbound = _but(" and ".join(captured), ",".join(excluded)) if captured else "nothing"
    past = f"; not by {','.join(rules.exclude_interfaces)}" if rules.exclude_interfaces else ""
    return f"inbound {inbound} to {rules.inbound_port}; outbound {outbound} to {rules.outbound_port}{past}"


def _but(captured: str, excluded: str) -> str:
    return f"{captured} but {excluded}" if excluded else captured


def _say(text: str) -> None:
    sys.stderr.write(f"remora injector capture: {text}\n")
