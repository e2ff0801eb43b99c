"""The command `remora policy explain`: why a request was denied or allowed, and the smallest edit that would allow it.

Exit codes: 0 explained, whatever the decision; 1 no sidecar answers; 2 something is wrong with what was given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from proxy.admin_client import AdminError, ask_admin, parse_admin
from proxy.answers.question import DEFAULT_PORT, World
from proxy.answers.reading import NoQuestion, Recorded, plain, read_question, record_of_line, recorded
from proxy.answers.report import Report, explain
from proxy.answers.told import as_json, as_text
from proxy.config_text import TextError
from proxy.documents import Checker, Node, parse
from proxy.errors import ConfigError, Fault
from proxy.policy_commands import inputs

EXIT_SILENT: Final = 1

_SINGLE: Final = (
    ("identity", "ID", "who calls: spiffe://DOMAIN/ns/NAMESPACE/sa/NAME; without it a peer without identity"),
    ("method", "NAME", "default: GET"),
    ("path", "PATH", "as it is sent, with its query; default: /"),
    ("host", "NAME", "the Host of the request"),
    ("port", "PORT", f"the workload port; default: the first of --config, or {DEFAULT_PORT}"),
    ("token", "JWT", "a bearer token, to be verified"),
    ("source", "IP", "the address of the peer"),
    ("destination", "IP", "the address that it connected to"),
    ("sni", "NAME", "the server name of its TLS handshake"),
)

_DESCRIPTION: Final = """\
Say why a request is denied or allowed: the rule that decides, for every other rule the clause that fails with the value
seen and the value wanted, what became of the path, the nearest miss, and the smallest edit that would allow it, as a
diff for `patch -p1`.

A request is given by options, as a document (--request), as a line of the access log (--record), or by the request id
that a denied caller got (--request-id, with --log or --admin).
"""

_EXAMPLES: Final = """\
a request document, in YAML or JSON; every key may be left out:
  identity: spiffe://cluster.local/ns/demo/sa/web     # "" or nothing: a peer without identity
  method: GET
  path: /orders/7?full=1
  host: orders.demo
  port: 8080
  headers: {x-role: admin, x-tag: [a, b]}
  token: eyJ...                                       # verified; or, as if it were verified:
  claims: {iss: https://issuer.example, sub: alice}
  source: 10.0.0.7
  destination: 10.0.0.8
  sni: orders.demo
  protocol: http                                      # tcp: a connection that is not HTTP

examples:
  remora policy explain -f policy/ --namespace demo --labels app=orders \\
      --identity cluster.local/ns/demo/sa/web --path /orders/7
  remora policy explain --config remora.yaml --request request.yaml --output json
  remora policy explain --config remora.yaml --request-id 7f0c... --log access.log
  remora policy explain --admin 127.0.0.1:15000 --request-id 7f0c...
  remora policy explain -f policy/ --namespace demo --path /orders/7 | sed -n '/^--- /,$p' | patch -p1

exit codes: 0 explained, whatever the decision; 1 no sidecar answers; 2 something is wrong with what was given
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "explain",
        help="say why a request is denied or allowed, and what would change it",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inputs.add_options(parser)
    group = parser.add_argument_group("the request")
    for name, metavar, what in _SINGLE:
        group.add_argument(f"--{name}", metavar=metavar, help=what)
    group.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="may stand several times")
    group.add_argument("--tcp", action="store_true", help="a connection that is not HTTP")
    instead = parser.add_argument_group("or")
    instead.add_argument("--request", metavar="FILE", help="a request document, - for standard input")
    instead.add_argument("--record", metavar="FILE", help="one line of the access log, - for standard input")
    instead.add_argument("--request-id", metavar="ID", help="the x-request-id of an answer; takes --log or --admin")
    instead.add_argument("--log", metavar="FILE", help="the access log that has it, - for standard input")
    parser.add_argument("--admin", metavar="ADDR", help="ask a running sidecar, HOST:PORT or unix:PATH")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="default: text")


def run(options: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code. Raises ConfigError for what cannot be read."""
    _check(options)
    if options.admin is not None:
        return _ask_sidecar(options)
    if options.record is not None or options.request_id is not None:
        write(_of_record(options), options.output)
        return 0
    node, checker = _request_node(options)
    world = inputs.read_world(options)
    question = read_question(node, checker, port=_first_port(options))
    if checker.faults:
        raise ConfigError(checker.faults)
    write(explain(world, question, time.time()), options.output)
    return 0


def write(report: Report, output: str) -> None:
    """Write a report to standard output: coloured on a terminal, unless NO_COLOR is set."""
    if output == "json":
        sys.stdout.write(json.dumps(as_json(report), indent=2) + "\n")
    else:
        sys.stdout.write(as_text(report, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other. Raises ConfigError."""
    single = [f"--{name}" for name, _, _ in _SINGLE if getattr(options, name) is not None]
    single += ["--header"] * bool(options.header) + ["--tcp"] * options.tcp
    ways = [name for name in ("request", "record", "request_id") if getattr(options, name) is not None]
    faults: list[Fault] = []
    if len(ways) > 1 or (ways and single):
        names = [f"--{name.replace('_', '-')}" for name in ways] + single
        faults.append(_fault(names[0], f"{' and '.join(names[:2])} both say what is asked", "keep one of them"))
    if options.request_id is not None and (options.log is None) is (options.admin is None):
        faults.append(_fault("--request-id", "it is looked for in one place", "give --log FILE or --admin ADDR"))
    if options.log is not None and options.request_id is None:
        faults.append(_fault("--log", "a log has many requests", "say which one with --request-id ID"))
    if options.admin is not None and (options.files or options.config):
        faults.append(_fault("--admin", "a running sidecar has its own policies", "leave -f and --config out"))
    if options.admin is not None and options.record is not None:
        faults.append(_fault("--admin", "a running sidecar finds its records itself", "give --request-id ID"))
    if [options.request, options.record, options.log, *options.files].count("-") > 1:
        faults.append(_fault("-", "standard input can be read once only", "give one of them as a file"))
    if faults:
        raise ConfigError(faults)


def _fault(option: str, message: str, hint: str) -> Fault:
    return Fault(file=option, message=message, hint=hint)


# --- what is asked ---


def _request_node(options: argparse.Namespace) -> tuple[Node, Checker]:
    """Read the request document, or make one of the options: they are checked in the same way."""
    if options.request is not None:
        name, data = inputs.read_file(options.request)
    else:
        name, data = "request", json.dumps(_document(options)).encode()
    documents, faults = parse(data, name)
    if faults:
        raise ConfigError(faults)
    if len(documents) != 1 or documents[0].value is None:
        raise ConfigError([Fault(file=name, message="a request is one document", hint="see remora policy explain -h")])
    return documents[0], Checker(name)


def _document(options: argparse.Namespace) -> dict[str, Any]:
    document: dict[str, Any] = {
        name: getattr(options, name) for name, _, _ in _SINGLE if getattr(options, name) is not None
    }
    if "port" in document and str(document["port"]).isdecimal():
        document["port"] = int(document["port"])
    headers: dict[str, list[str]] = {}
    for line in options.header:
        header, colon, value = line.partition(":")
        if not colon:
            raise ConfigError([_fault("--header", f"{line!r} is no header", "write 'NAME: VALUE'")])
        headers.setdefault(header.strip(), []).append(value.strip())
    if headers:
        document["headers"] = headers
    if options.tcp:
        document["protocol"] = "tcp"
    return document


def _first_port(options: argparse.Namespace) -> int:
    if options.config is None:
        return DEFAULT_PORT
    inbound = inputs.read_config(options.config).inbound
    return inbound[0].port if inbound else DEFAULT_PORT


# --- records ---


def _of_record(options: argparse.Namespace) -> Report:
    if options.record is not None:
        name, data = inputs.read_file(options.record)
        lines = [line for line in data.decode("utf-8", "replace").split("\n") if line.strip()]
        if len(lines) != 1:
            hint = "pick one by its request id: --request-id ID --log FILE"
            raise ConfigError([_fault(name, f"{len(lines)} lines are no single record", hint)])
        line = lines[0]
    else:
        name, line = options.log, _line_of(options.log, options.request_id)
    try:
        record = recorded(record_of_line(line))
    except NoQuestion as failure:
        raise ConfigError([Fault(file=name, message=str(failure))]) from failure
    world, now = inputs.read_world(options), time.time()
    return report_of(world, record, now)


def report_of(world: World, record: Recorded, now: float) -> Report:
    """Explain what a record tells of by the policies of `world`, and say where the two differ."""
    report = explain(world, record.question, now)
    notes = list(record.missing)
    same_reason = record.allowed or record.reason == report.reason
    if (record.allowed, record.rule) != (report.allowed, report.rule) or not same_reason:
        decision, by = "allowed" if record.allowed else "denied", f" by {record.rule}" if record.rule else ""
        told = f": {record.explanation}" if record.explanation else ""
        notes.insert(0, f"the record says {decision}{by} ({record.reason}{told}); these policies answer otherwise")
    return replace(report, notes=(*notes, *report.notes))


def _line_of(path: str, request_id: str) -> str:
    """Find the record of a request in a log; of several, the last that was denied."""
    found, denied = "", ""
    wanted = json.dumps(request_id)
    for line in _lines(path):
        if wanted not in line:
            continue
        try:
            record = record_of_line(line)
        except NoQuestion:
            continue
        if record.get("request_id") == request_id:
            found = line
            denied = line if record.get("decision") == "deny" else denied
    if not found:
        hint = "the log of the sidecar that answered has it, if it is kept that long"
        raise ConfigError([_fault(path, f"no record has the request id {request_id!r}", hint)])
    return denied or found


def _lines(path: str) -> Iterator[str]:
    if path == "-":
        for line in sys.stdin.buffer:
            yield line.decode("utf-8", "replace")
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as failure:
        raise ConfigError([Fault(file=path, message=f"the log cannot be read: {failure.strerror}")]) from failure


# --- a running sidecar ---


def _ask_sidecar(options: argparse.Namespace) -> int:
    try:
        where = parse_admin(options.admin)
    except TextError as failure:
        raise ConfigError([_fault("--admin", str(failure), failure.hint)]) from failure
    query: Mapping[str, str]
    if options.request_id is not None:
        query = {"request_id": options.request_id}
    else:
        node, checker = _request_node(options)
        read_question(node, checker)
        if checker.faults:
            raise ConfigError(checker.faults)
        query = {"question": json.dumps(plain(node))}
    try:
        answer = ask_admin(where, "/explain?" + urlencode({**query, "format": options.output}))
    except AdminError as failure:
        sys.stderr.write(f"remora policy explain: {failure}\n")
        return EXIT_SILENT
    text = answer.body.decode("utf-8", "replace")
    if answer.status != 200:
        raise ConfigError([Fault(file=options.admin, message=text.strip() or f"it answers {answer.status}")])
    sys.stdout.write(text)
    return 0
