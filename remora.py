"""The command `remora`: finds the package that a subcommand belongs to and hands the rest of the line over.

A package is imported when its subcommand is called and not before, so `remora certs inspect` needs no event loop and
a broken installation of one part leaves the others usable.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple


class Command(NamedTuple):
    """A subcommand: the module whose `main(argv) -> int` runs it, and what it does in a few words."""

    module: str
    summary: str


COMMANDS: Final[dict[str, Command]] = {
    "demo": Command("demo.cli", "run a small mesh on this machine and watch who may call whom"),
    "proxy": Command("proxy.cli", "run a sidecar, check its configuration"),
    "policy": Command("proxy.policy_commands.cli", "ask the policies: explain, lint, test, diff"),
    "status": Command("proxy.status", "show what a running sidecar does"),
    "authority": Command("proxy.authority.cli", "give a cluster its identities: serve, rotate, revoke"),
    "inject": Command("injector.inject_cli", "put sidecars into the pods of manifests"),
    "uninject": Command("injector.uninject_cli", "take them out again, exactly"),
    "injector": Command("injector.injector_cli", "serve the webhook of a cluster, list the annotations"),
    "services": Command("injector.services_cli", "generate what sidecars know of services, from manifests"),
    "netpol": Command("injector.netpol_cli", "generate NetworkPolicies from mesh policies, verify a set"),
    "install": Command("injector.install_cli", "print a control plane for kubectl apply"),
    "uninstall": Command("injector.uninstall_cli", "print what kubectl delete takes away again"),
    "check": Command("injector.check_cli", "look whether a cluster can have a mesh, and whether it works"),
    "certs": Command("certs.cli", "make identities with a small authority, look into certificates"),
    "bench": Command("benchmarks.cli", "measure what a hop costs beside other proxies"),
}

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells report it."""
EXIT_BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: the reader of our output went away (`remora certs inspect | head`)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and give its exit code: 0 done, 2 wrong usage or configuration, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit and would complain: give it somewhere to write.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if name in ("version", "--version", "-V"):
        sys.stdout.write(_version())
        return 0
    command = COMMANDS.get(name)
    if command is None:
        sys.stderr.write(f"remora: {_complaint(name)}\n\n{_help()}" if not name else f"remora: {_complaint(name)}\n")
        return EXIT_USAGE
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        missing = error.name or command.module
        sys.stderr.write(f"remora {name}: the module {missing} is not installed; {_remedy(name, missing)}\n")
        return EXIT_USAGE
    return int(module.main(arguments[1:]))


def _complaint(name: str) -> str:
    if not name:
        return "which command?"
    import difflib

    near = difflib.get_close_matches(name, [*COMMANDS, "version"], n=1)
    hint = f"did you mean `remora {near[0]}`?" if near else "`remora --help` lists the commands"
    return f"there is no command {name!r}; {hint}"


def _remedy(name: str, missing: str) -> str:
    if name == "bench" and missing.partition(".")[0] not in ("benchmarks", "proxy", "certs"):
        return "install the extra that measuring needs: pip install 'remora[bench]', or `make bench` in the checkout"
    return "install remora with its dependencies: pip install remora, or `make demo` in the checkout"


def _help() -> str:
    width = max(len(name) for name in (*COMMANDS, "version"))
    lines = [
        "usage: remora COMMAND ...",
        "",
        "Remora is a sidecar: it gives an application a SPIFFE identity, speaks mutual TLS to other sidecars and lets",
        "through what mounted policies allow.",
        "",
    ]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines += [
        f"  {'version':<{width}}  say what is installed",
        "",
        "`remora COMMAND --help` says more. Begin with `remora demo`.",
    ]
    return "\n".join(lines) + "\n"


def _version() -> str:
    # Imported when somebody asks: with its mail parser and archives it is 0.7 MiB of an idle sidecar.
    import platform
    from importlib import metadata

    try:
        version = metadata.version("remora")
    except metadata.PackageNotFoundError:
        version = "(not installed: run from a checkout)"
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        f"remora {version}, {_form()}",
        f"{interpreter}, {platform.python_compiler()}, {_build()}, {sys.executable}",
        _openssl(),
    ]
    return "\n".join(lines) + "\n"


def _form() -> str:
    """Say which form of the byte path would be imported: the sources, or what mypyc made of them. Imports neither."""
    spec = importlib.util.find_spec("proxy")
    for name in ("proxy.forward", "proxy.forward.http"):
        if spec is not None:
            spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
    if spec is None or spec.origin is None:
        return "without the proxy"
    is_compiled = spec.origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    return "byte path compiled by mypyc" if is_compiled else "pure Python"


def _build() -> str:
    """Say how the interpreter was built: without optimisations the same work takes up to a quarter more CPU."""
    import sysconfig

    if sysconfig.get_config_var("Py_DEBUG"):
        return "debug build"
    if "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")):
        return "optimised build"
    # What Debian's sysconfig tells is of the shared library, which is not what runs; `remora bench` looks closer.
    debian = os.path.exists("/etc/debian_version") and os.path.realpath(sys.executable).startswith("/usr/bin/")
    return "Debian's build" if debian else "build without optimisations"


def _openssl() -> str:
    from importlib import metadata

    try:
        backend = importlib.import_module("cryptography.hazmat.backends.openssl.backend").backend
    except ModuleNotFoundError:
        return "cryptography is not installed"
    return f"{backend.openssl_version_text()}, cryptography {metadata.version('cryptography')}"


if __name__ == "__main__":
    sys.exit(main())
