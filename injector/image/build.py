"""Builds the image with podman or buildah, from a base that is named or is made here: `make image`.

    python -m injector.image.build [--base IMAGE] [--tag NAME] [--compile] [--no-cache]

Where no registry can be reached, debootstrap makes the base from Debian's packages (as root, in half a minute); what is
in the base does not matter to the image, whose layers are laid out anew. pip's own settings go in as secrets of the
build and stay out of the image. Times in the image are all the same, so equal input gives an equal image.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
EPOCH: Final = 315_532_800
"""1980, the earliest time that a zip archive can have; the Dockerfile's own default."""
SUITE: Final = "bookworm"
MADE_BASE: Final = f"localhost/remora-base:{SUITE}"
BUILDERS: Final = ("podman", "buildah")
PIP_CERTIFICATE: Final = "/run/pip-ca.pem"
"""Where the Dockerfile mounts the authority by which pip believes its index."""
_HANDED_ON: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_SETTING: Final = re.compile(r"^(?:global|install|:env:)\.\.?([a-z-]+)=(.*)$", re.MULTILINE)


class BuildError(Exception):
    """The image cannot be built; the message says what is missing and how to mend it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code: 0 built, 1 not."""
    parser = argparse.ArgumentParser(prog="injector.image.build", description="build the container image")
    parser.add_argument("--base", default="", help=f"the base image; without it debootstrap makes {MADE_BASE}")
    parser.add_argument("--tag", default="localhost/remora:latest", help="the image's name (default %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the byte path with mypyc")
    parser.add_argument("--no-cache", action="store_true", help="do every step anew")
    parser.add_argument("--builder", choices=BUILDERS, help="by default the first that is here")
    options = parser.parse_args(argv)
    try:
        builder = options.builder or _first_builder()
        base = options.base or make_base(builder)
        build(builder, base, options.tag, is_compiled=options.compile, uses_cache=not options.no_cache)
        size = _output(builder, "images", "--format", "{{.Size}}", options.tag)
    except BuildError as fault:
        sys.stderr.write(f"image: {fault}\n")
        return 1
    _say(f"{options.tag}, {size.splitlines()[0]}")
    return 0


def make_base(builder: str) -> str:
    """Make the base image from Debian's packages, where it is not there yet; gives its name. Raises BuildError."""
    if _runs(builder, "inspect", "--type=image", MADE_BASE):
        return MADE_BASE
    if shutil.which("debootstrap") is None:
        raise BuildError("no base: name one with --base IMAGE, or install debootstrap, which makes one (as root)")
    _say(f"making {MADE_BASE} from Debian's packages")
    with tempfile.TemporaryDirectory(prefix="remora-base-") as directory:
        _must("debootstrap", "--variant=minbase", SUITE, directory)
        # By a build, because of the two only podman has a command that makes an image of a tree.
        (Path(directory) / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
        (Path(directory) / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        _must(builder, "build", "--quiet", "--tag", MADE_BASE, directory)
    return MADE_BASE


def build(builder: str, base: str, tag: str, *, is_compiled: bool, uses_cache: bool) -> None:
    """Build the image. Raises BuildError."""
    _say(f"building {tag} from {base} with {builder}")
    with tempfile.TemporaryDirectory(prefix="remora-pip-") as directory:
        words = ["build", "--quiet", "--network=host", f"--timestamp={EPOCH}", "--tag", tag]
        words += ["--build-arg", f"BASE_IMAGE={base}"]
        # Layers are asked for by name: buildah keeps none without.
        words += ["--layers"] if uses_cache else ["--no-cache"]
        if is_compiled:
            words += ["--build-arg", "REMORA_COMPILE=1"]
        words += _secrets(Path(directory))
        _must(builder, *words, str(ROOT))


def pip_settings(listed: str) -> dict[str, str]:
    """Read what `pip config list` prints; what stands in the environment wins.

    >>> pip_settings("global.timeout='9'\\n:env:.timeout='30'\\ninstall.user='no'\\n")
    {'timeout': '30', 'user': 'no'}
    """
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        if match := _SETTING.match(line):
            found[match[1]] = str(ast.literal_eval(match[2]))
    return found


def pip_file(settings: dict[str, str]) -> str:
    """Give the settings file for pip inside the build: where packages come from, and nothing of this machine else."""
    kept = {key: value for key, value in settings.items() if key in _HANDED_ON}
    if settings.get("cert"):
        kept["cert"] = PIP_CERTIFICATE
    # Several values of one key stand below each other, indented.
    lines = (f"{key} = " + "\n    ".join(value.split()) + "\n" for key, value in kept.items())
    return "".join(["[global]\n", *lines])


def _secrets(directory: Path) -> Iterator[str]:
    settings = pip_settings(_output(sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"))
    file = directory / "pip.conf"
    file.write_text(pip_file(settings))
    yield from ("--secret", f"id=pip,src={file}")
    if settings.get("cert"):
        yield from ("--secret", f"id=pip-ca,src={settings['cert']}")


def _first_builder() -> str:
    for name in BUILDERS:
        if shutil.which(name):
            return name
    raise BuildError(f"neither {' nor '.join(BUILDERS)} is here: install one (Debian: apt-get install podman)")


def _must(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise BuildError(f"{words[0]} {words[1]} failed ({done.returncode}):\n{told}")


def _runs(*words: str) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0  # noqa: S603


def _output(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise BuildError(f"{words[0]} {words[1]} failed: {done.stderr.strip()}")
    return done.stdout


def _say(text: str) -> None:
    sys.stdout.write(f"== {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
