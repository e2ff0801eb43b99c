"""Loads directories and sets of files that are far too large, and prints what each was refused for.

Run as a program under limits of the kernel, by test_policy_malformed.py: a line for each, its name, the number of
faults, the first and the last, with tabs between.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from policy_world import workload  # noqa: E402 (a program finds the tests' own modules only after the line above)

from proxy.errors import ConfigError  # noqa: E402
from proxy.policy import PolicyDefault, PolicySettings, load  # noqa: E402
from proxy.types import Generation  # noqa: E402
from proxy.watch import read_policy_files  # noqa: E402

MIB = 1024 * 1024
ADDRESS_SPACE = 1024 * MIB
SECONDS = 120  # a machine that does nothing else takes ten

HEAD = b"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: orders}\nspec: "
TOKENS = HEAD.replace(b"AuthorizationPolicy", b"RequestAuthentication")


def mounted(directory: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Read a directory of sparse files: they have a size and no blocks."""
    directory.mkdir()
    for name, size in sizes.items():
        with (directory / name).open("wb") as file:
            file.truncate(size)
    return read_policy_files(str(directory))


def huge(directory: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    yield "one file of a tebibyte", mounted(directory / "a", {"f.yaml": 1024 * 1024 * MIB})
    yield "a thousand files of a gibibyte", mounted(directory / "b", {f"{n:03}.yaml": 1024 * MIB for n in range(1000)})
    faulty = b"{rules: [" + b"".join(b"{a%d: 1}," % n for n in range(500)) + b"]}\n"
    yield "ten thousand faults in one file", {"f.yaml": (HEAD + faulty + b"---\n") * 20}
    yield "ten thousand faulty files", {f"{n:05}.yaml": HEAD + b"{rule: []}\n" for n in range(10_000)}
    yield "a value of fifteen mebibytes", {"f.yaml": HEAD + b"{action: " + b"x" * (15 * MIB) + b"}\n"}
    yield "a million documents in many files", {f"{n:03}.yaml": b"---\n" * 4_000 + b"- 1\n" for n in range(250)}
    rules = b"".join(b"{issuer: a, jwks: '{}'}, " for n in range(5_000))
    yield "more token rules than a document may have", {"f.yaml": TOKENS + b"{jwtRules: [" + rules + b"]}\n"}


def told(files: Mapping[str, bytes]) -> str:
    """Load the files; give the number of faults, the first and the last."""
    try:
        load(
            files,
            workload=workload(),
            settings=PolicySettings(default=PolicyDefault.DENY),
            generation=Generation(1),
        )
    except ConfigError as failure:
        first, last = failure.faults[0], failure.faults[-1]
        return "\t".join([str(len(failure.faults)), str(first), str(last)])
    return "taken"


def main() -> None:
    """Load them all under limits of the kernel."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for name, files in huge(Path(sys.argv[1])):
        print(name, told(files), sep="\t", flush=True)


if __name__ == "__main__":
    main()
