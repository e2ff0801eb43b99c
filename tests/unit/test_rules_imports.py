"""The rules of the house: who may import whom, and what may be called where.

    libraries  <-  shells  <-  roots          certs imports nothing of proxy

Libraries import only libraries. Shells import libraries, never another shell. Roots join them. Pure places see bytes
and `now` as arguments: they import nothing that does I/O or tells the time. Each rule is a function of a module's name
and its source, and is shown to find a small bad sample before it is held against the tree.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("certs", "proxy", "injector", "demo", "benchmarks", "remora")

LIBRARIES = (
    "proxy.types",
    "proxy.errors",
    "proxy.constants",
    "proxy.limits",
    "proxy.config",
    "proxy.config_values",
    "proxy.config_text",
    "proxy.config_checker",
    "proxy.config_identity",
    "proxy.config_files",
    "proxy.config_health",
    "proxy.config_inbound",
    "proxy.config_outbound",
    "proxy.documents",
    "proxy.interfaces",
    "proxy.detect",
    "proxy.identity",
    "proxy.authn",
    "proxy.protocol",
    "proxy.policy",
    "proxy.answers",
)
SHELLS = (
    "proxy.accept",
    "proxy.handshake",
    "proxy.forward",
    "proxy.telemetry",
    "proxy.runtime",
    "proxy.watch",
    "proxy.jwks",
    "proxy.admin",
)
ROOTS = (
    "proxy.connection",
    "proxy.captured",
    "proxy.standing",
    "proxy.sidecar",
    "proxy.routes",
    "proxy.material",
    "proxy.enrolment",
    "proxy.authority",
    "proxy.https",
    "proxy.mounts",
    "proxy.config_read",
    "proxy.application",
    "proxy.commands",
    "proxy.inforce",
    "proxy.view",
    "proxy.pagelisteners",
    "proxy.workers",
    "proxy.traffic",
    "proxy.observe",
    "proxy.overview",
    "proxy.explained",
    "proxy.adminapi",
    "proxy.app",
    "proxy.status",
    "proxy.admin_client",
    "proxy.cli",
    "proxy.policy_commands",
    "demo",
    "benchmarks",
    "injector",
    "remora",
)
PURE = (
    "proxy.types",
    "proxy.constants",
    "proxy.limits",
    "proxy.config",
    "proxy.config_values",
    "proxy.config_text",
    "proxy.config_checker",
    "proxy.config_identity",
    "proxy.config_files",
    "proxy.config_health",
    "proxy.config_inbound",
    "proxy.config_outbound",
    "proxy.documents",
    "proxy.detect",
    "proxy.authn",
    "proxy.protocol",
    "proxy.policy",
    "proxy.answers",
    "proxy.identity.verify",
    "proxy.identity.revocation",
    "proxy.identity.renewal",
    "proxy.identity.enrolled",
    "proxy.enrolment.authority_answers",
    "proxy.enrolment.authority_messages",
    "proxy.https.web_pair",
    "certs.audit",
    "certs.bundle_feed",
    "certs.caller",
    "certs.callers",
    "certs.confirmations",
    "certs.crl",
    "certs.crl_extension",
    "certs.documents",
    "certs.federation",
    "certs.held",
    "certs.joins",
    "certs.keeper",
    "certs.lease",
    "certs.rates",
    "certs.refusals",
    "certs.requests",
    "certs.revocations",
    "certs.revocations_json",
    "certs.rotation",
    "certs.rotation_json",
    "certs.rotation_values",
    "certs.rotation_words",
    "certs.service",
    "certs.signers",
    "certs.signing",
    "certs.state_check",
    "certs.state_keys",
    "certs.state_store",
    "certs.strict_json",
    "certs.workload_api",
    "injector.access",
    "injector.annotations",
    "injector.blocks",
    "injector.bounds",
    "injector.bypass",
    "injector.callers",
    "injector.capture.iptables",
    "injector.capture.nft",
    "injector.capture.rules",
    "injector.capture.trial",
    "injector.certificate",
    "injector.check",
    "injector.check_cluster",
    "injector.check_control",
    "injector.check_pods",
    "injector.check_rights",
    "injector.check_run",
    "injector.decision",
    "injector.defaults",
    "injector.documents",
    "injector.doors",
    "injector.flows",
    "injector.image.packages",
    "injector.image.sbom",
    "injector.inject",
    "injector.install",
    "injector.jsonpatch",
    "injector.kubeconfig",
    "injector.manifests",
    "injector.mesh",
    "injector.mesh_policies",
    "injector.mesh_read",
    "injector.names",
    "injector.netpol",
    "injector.netpol_read",
    "injector.netpol_verify",
    "injector.ports",
    "injector.probes",
    "injector.protocols",
    "injector.readers",
    "injector.record",
    "injector.review",
    "injector.selectors",
    "injector.service_entries",
    "injector.services",
    "injector.settings",
    "injector.sidecar",
    "injector.sidecar_config",
    "injector.values",
    "injector.yaml_text",
)
IMPURE_MODULES = (
    "asyncio",
    "socket",
    "ssl",
    "time",
    "os",
    "logging",
    "pathlib",
    "selectors",
    "subprocess",
    "threading",
    "random",
    "uvloop",
    "OpenSSL",
)
TELLS_THE_TIME = ("now", "utcnow", "today")
TASK_MAKERS = ("create_task", "ensure_future", "TaskGroup")
TASK_PLACE = "proxy.runtime.tasks"
DEPENDENCIES = ("cryptography", "OpenSSL", "uvloop", "h11", "h2", "hpack", "prometheus_client", "yaml", "jwt")
EXTRAS = {"proxy.enrolment.grpc_stream": ("grpc",)}
"""What a module imports from an extra of ours, when it is asked for."""
PRINTERS = ("certs.cli", "proxy.cli", "proxy.policy_commands", "demo", "benchmarks")

TEST_HELPERS = ("certs.cli", "certs.testing", "certs.broken")
"""What no library imports: a command, and certificates that are broken on purpose."""

Rule = Callable[[str, str], list[str]]


# --- the tools of the rules ------------------------------------------------------------------------------------------


def lies_in(module: str, places: tuple[str, ...]) -> bool:
    """Say whether a module is one of the places or lies below one."""
    return any(module == place or module.startswith(place + ".") for place in places)


def place_of(module: str, places: tuple[str, ...]) -> str:
    """Name the place in which a module lies, "" for none."""
    return next((place for place in places if lies_in(module, (place,))), "")


def imports(module: str, source: str) -> Iterator[tuple[int, str]]:
    """Give the line and the full name of everything imported, at the top or inside functions.

    `from a import b` counts as `a.b`: b may be a module, and if it is none, `a.b` still lies in `a`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            source_module = ".".join(part for part in (base, node.module or "") if part)
            yield from ((node.lineno, f"{source_module}.{alias.name}") for alias in node.names)


def calls(source: str) -> Iterator[tuple[int, str, ast.Call]]:
    """Give the line and the last name of everything called."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id, node
            elif isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr, node


# --- the rules -------------------------------------------------------------------------------------------------------


def every_module_has_a_place(module: str, source: str) -> list[str]:
    if module == "proxy.__init__" or lies_in(module, ("certs", *LIBRARIES, *SHELLS, *ROOTS)):
        return []
    return [f"{module} is neither a library, a shell nor a root: give it a place in this file"]


def certs_imports_nothing_of_the_others(module: str, source: str) -> list[str]:
    if not lies_in(module, ("certs",)):
        return []
    others = tuple(package for package in PACKAGES if package != "certs")
    return [f"{module}:{line} imports {name}" for line, name in imports(module, source) if lies_in(name, others)]


def libraries_import_only_libraries(module: str, source: str) -> list[str]:
    if not lies_in(module, LIBRARIES):
        return []
    ours = [(line, name) for line, name in imports(module, source) if lies_in(name, PACKAGES)]
    allowed = ("certs", *LIBRARIES)
    return [
        f"{module}:{line} imports {name}"
        for line, name in ours
        if not lies_in(name, allowed) or lies_in(name, TEST_HELPERS)
    ]


def shells_import_no_other_shell_and_no_root(module: str, source: str) -> list[str]:
    shell = place_of(module, SHELLS)
    if not shell:
        return []
    ours = [(line, name) for line, name in imports(module, source) if lies_in(name, PACKAGES)]
    allowed = ("certs", *LIBRARIES, shell)
    return [f"{module}:{line} imports {name}" for line, name in ours if not lies_in(name, allowed)]


def the_product_imports_no_demo_and_no_benchmark(module: str, source: str) -> list[str]:
    if not lies_in(module, ("proxy", "certs", "injector")):
        return []
    outside = ("demo", "benchmarks", "tests", "remora")
    return [f"{module}:{line} imports {name}" for line, name in imports(module, source) if lies_in(name, outside)]


def pure_places_do_no_io(module: str, source: str) -> list[str]:
    if not lies_in(module, PURE):
        return []
    found = [
        f"{module}:{line} imports {name}" for line, name in imports(module, source) if lies_in(name, IMPURE_MODULES)
    ]
    for line, name, call in calls(source):
        is_method = isinstance(call.func, ast.Attribute)
        if name in TELLS_THE_TIME and is_method:
            found.append(f"{module}:{line} asks the clock by {name}()")
        if name == "open" and not is_method:
            found.append(f"{module}:{line} opens a file")
    return found


def only_policy_makes_a_permit(module: str, source: str) -> list[str]:
    if lies_in(module, ("proxy.policy",)):
        return []
    return [f"{module}:{line} makes a Permit" for line, name, _ in calls(source) if name == "Permit"]


def tasks_are_created_in_one_place(module: str, source: str) -> list[str]:
    if module == TASK_PLACE or lies_in(module, ("benchmarks",)):
        return []
    return [f"{module}:{line} calls {name}" for line, name, _ in calls(source) if name in TASK_MAKERS]


def a_check_is_never_an_assert(module: str, source: str) -> list[str]:
    found = [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    return [f"{module}:{line} asserts: python -O would remove it" for line in found]


def only_commands_print(module: str, source: str) -> list[str]:
    if lies_in(module, PRINTERS):
        return []
    return [
        f"{module}:{line} prints"
        for line, name, call in calls(source)
        if name == "print" and isinstance(call.func, ast.Name)
    ]


def only_declared_dependencies_are_imported(module: str, source: str) -> list[str]:
    if lies_in(module, ("benchmarks",)):  # has an extra of its own
        return []
    allowed = (*PACKAGES, *DEPENDENCIES, *EXTRAS.get(module, ()), *sys.stdlib_module_names)
    return [f"{module}:{line} imports {name}" for line, name in imports(module, source) if not lies_in(name, allowed)]


RULES: tuple[Rule, ...] = (
    every_module_has_a_place,
    certs_imports_nothing_of_the_others,
    libraries_import_only_libraries,
    shells_import_no_other_shell_and_no_root,
    the_product_imports_no_demo_and_no_benchmark,
    pure_places_do_no_io,
    only_policy_makes_a_permit,
    tasks_are_created_in_one_place,
    a_check_is_never_an_assert,
    only_commands_print,
    only_declared_dependencies_are_imported,
)


# --- each rule finds what it is for ----------------------------------------------------------------------------------

BAD: list[tuple[Rule, str, str]] = [
    (every_module_has_a_place, "proxy.helpers", ""),
    (certs_imports_nothing_of_the_others, "certs.bundle", "from proxy.errors import Reason"),
    (certs_imports_nothing_of_the_others, "certs.bundle", "import proxy"),
    (certs_imports_nothing_of_the_others, "certs.cli", "def main():\n    import proxy.policy.engine\n"),
    (libraries_import_only_libraries, "proxy.policy.decide", "from proxy.telemetry import record"),
    (libraries_import_only_libraries, "proxy.detect", "from proxy import runtime"),
    (libraries_import_only_libraries, "proxy.protocol.h1", "from ..forward import pool"),
    (libraries_import_only_libraries, "proxy.protocol.__init__", "from ..forward import pool"),
    (libraries_import_only_libraries, "proxy.types", "from proxy.app import App"),
    (libraries_import_only_libraries, "proxy.identity.verify", "from certs.testing import Authority"),
    (shells_import_no_other_shell_and_no_root, "proxy.accept.listener", "from proxy.runtime.wire import SocketWire"),
    (shells_import_no_other_shell_and_no_root, "proxy.forward", "import proxy.telemetry"),
    (shells_import_no_other_shell_and_no_root, "proxy.watch.files", "from proxy.connection import serve"),
    (shells_import_no_other_shell_and_no_root, "proxy.admin.pages", "from ..runtime import http"),
    (the_product_imports_no_demo_and_no_benchmark, "proxy.cli", "import demo.mesh"),
    (the_product_imports_no_demo_and_no_benchmark, "certs.cli", "from tests import conftest"),
    (pure_places_do_no_io, "proxy.policy.load", "import os.path"),
    (pure_places_do_no_io, "proxy.detect", "from socket import MSG_PEEK"),
    (pure_places_do_no_io, "proxy.authn.jwt", "def f():\n    import time\n"),
    (pure_places_do_no_io, "proxy.identity.verify", "import datetime\nx = datetime.datetime.now()"),
    (pure_places_do_no_io, "proxy.protocol.h1", "open('x')"),
    (only_policy_makes_a_permit, "proxy.forward.http", "from proxy.types import Permit\nPermit(rule='x')"),
    (only_policy_makes_a_permit, "demo.mesh", "import proxy.types\nproxy.types.Permit()"),
    (tasks_are_created_in_one_place, "proxy.app", "import asyncio\nasyncio.create_task(f())"),
    (tasks_are_created_in_one_place, "proxy.runtime.signals", "loop.create_task(f())"),
    (tasks_are_created_in_one_place, "demo.mesh", "from asyncio import ensure_future\nensure_future(f())"),
    (tasks_are_created_in_one_place, "proxy.watch.files", "import asyncio\nasyncio.TaskGroup()"),
    (a_check_is_never_an_assert, "certs.testing", "assert 1"),
    (only_commands_print, "proxy.app", "print('x')"),
    (only_declared_dependencies_are_imported, "proxy.forward", "import aiohttp"),
    (only_declared_dependencies_are_imported, "demo.cli", "from rich.table import Table"),
]

GOOD: list[tuple[Rule, str, str]] = [
    (every_module_has_a_place, "proxy.policy.engine", ""),
    (certs_imports_nothing_of_the_others, "certs.bundle", "from certs.spiffe import SpiffeId\nimport proxyish"),
    (libraries_import_only_libraries, "proxy.policy", "import re\nfrom proxy.types import Permit\nimport certs.spiffe"),
    (libraries_import_only_libraries, "proxy.protocol.__init__", "from .h1 import codec\nfrom . import gate"),
    (shells_import_no_other_shell_and_no_root, "proxy.runtime.wire", "from .tasks import spawn\nimport proxy.errors"),
    (the_product_imports_no_demo_and_no_benchmark, "demo.cli", "from demo import mesh\nimport proxy.app"),
    (pure_places_do_no_io, "proxy.identity.files", "import os, time\nopen('x')"),
    (pure_places_do_no_io, "proxy.policy.decide", "def f(now: float) -> float:\n    return now"),
    (only_policy_makes_a_permit, "proxy.policy.decide", "Permit(rule='x')"),
    (only_policy_makes_a_permit, "proxy.forward.http", "def f(permit: Permit) -> None: ..."),
    (tasks_are_created_in_one_place, "proxy.runtime.tasks", "loop.create_task(f())"),
    (a_check_is_never_an_assert, "proxy.types", "from typing import assert_never\nassert_never(x)"),
    (only_commands_print, "certs.cli", "print('x')"),
    (only_commands_print, "proxy.app", "pretty.print('x')"),
    (only_declared_dependencies_are_imported, "proxy.forward", "import h11._state, yaml, socket, certs.spiffe"),
]


@pytest.mark.parametrize(("rule", "module", "source"), BAD)
def test_a_rule_finds_what_it_is_for(rule: Rule, module: str, source: str) -> None:
    found = rule(module, source)
    assert len(found) == 1, found
    assert module in found[0]


@pytest.mark.parametrize(("rule", "module", "source"), GOOD)
def test_a_rule_leaves_the_rest_alone(rule: Rule, module: str, source: str) -> None:
    assert rule(module, source) == []


def test_every_rule_has_samples() -> None:
    assert {rule for rule, _, _ in BAD} == {rule for rule, _, _ in GOOD} == set(RULES)


# --- the tree --------------------------------------------------------------------------------------------------------


def tree() -> Iterator[tuple[str, str]]:
    """Give the name (a package's is `package.__init__`) and the source of every module that is shipped."""
    paths = [ROOT / "remora.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    for path in paths:
        source = path.read_text()
        ast.parse(source, str(path))  # what cannot be parsed is named by its file
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), source


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    found = [fault for module, source in tree() for fault in rule(module, source)]
    assert found == []


def test_the_tree_is_looked_at_whole() -> None:
    modules = {module for module, _ in tree()}
    assert {"remora", "proxy.types", "certs.spiffe", "proxy.policy.__init__"} <= modules
    assert len(modules) > 25
