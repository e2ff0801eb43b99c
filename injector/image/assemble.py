"""Lays out the image's root file system in the last step of the build: only what runs, and the list of it.

    python3 -m injector.image.assemble --environment /opt/remora --into /image --pip-report FILE ...

Files come from the base image that the build runs in: the interpreter with its library (Debian's or another in
/usr/local), the programs that set capture rules, every library that one of them or a wheel is linked with. Then
everything gets one time and bytecode that depends on nothing but the sources, so that equal input gives equal layers.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import os
import platform
import py_compile
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from injector import names
from injector.image import packages, sbom

DPKG: Final = Path("/var/lib/dpkg")
SBOM: Final = Path("/usr/share/sbom/remora.cdx.json")
BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
NOBODY: Final = 65534
FILES: Final = {
    "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nremora:x:{names.USER}:{names.USER}::/:/sbin/nologin\n"
    f"nobody:x:{NOBODY}:{NOBODY}:nobody:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nremora:x:{names.USER}:\nnogroup:x:{NOBODY}:\n",
    # Without it a resolver may ask DNS before the pod's own /etc/hosts.
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Where an interpreter that is not Debian's has its library.
    "etc/ld.so.conf": "/usr/local/lib\n",
}


class AssemblyError(Exception):
    """The image cannot be laid out; the message says what is missing and how to mend it."""


class Assembly:
    """A root file system that grows: what was copied into it, and the Debian packages that this came from."""

    def __init__(self, into: Path) -> None:
        self.into = into
        self.packages: dict[str, packages.Package] = {}
        self._installed = packages.read_status((DPKG / "status").read_text())
        self._lists = {path.stem.partition(":")[0]: path.read_text() for path in (DPKG / "info").glob("*.list")}
        self._owners = packages.owners(self._lists)
        self._looked_at: set[str] = set()
        self._programs: set[str] = set()

    def add_package(self, name: str) -> None:
        """Copy what is kept of a package. Raises AssemblyError if the base does not have it."""
        if name in self.packages:
            return
        if name not in self._installed:
            raise AssemblyError(f"the base has no package {name}: install it in an earlier step of the build")
        self.packages[name] = self._installed[name]
        for path in self._lists[name].splitlines():
            if packages.is_kept(path):
                self.add(Path(path))

    def add_owned(self, path: Path) -> None:
        """Copy the package that a file belongs to, or the file alone if it belongs to none."""
        owner = self._owners.get(packages.merged(str(path)))
        if owner is None:
            self.add(path)
        else:
            self.add_package(owner)

    def add_tree(self, top: Path) -> None:
        """Copy a directory with what is kept below it."""
        for path in sorted(top.rglob("*")):
            if packages.is_kept(str(path)):
                self.add(path)

    def add(self, path: Path) -> None:
        """Copy a file, a link as a link, or make a directory with the same mode. Other kinds and absence: nothing."""
        place = self.inside(path)
        if path.is_symlink():
            self._make_parents(path)
            place.unlink(missing_ok=True)
            place.symlink_to(path.readlink())
        elif path.is_dir():
            self._make_parents(path)
            place.mkdir(exist_ok=True)
            place.chmod(mode(path))
        elif path.is_file():
            self._make_parents(path)
            shutil.copyfile(path, place)
            place.chmod(mode(path))
            if is_program(path):
                self._programs.add(str(path))

    def add_libraries(self) -> None:
        """Copy the packages with the libraries that programs are linked with, and those that these are, to the end."""
        while new := sorted(self._programs - self._looked_at):
            self._looked_at.update(new)
            # ldd fails for a program that is linked with nothing, which is no fault.
            told = subprocess.run(["ldd", *new], check=False, capture_output=True, text=True)  # noqa: S603, S607
            for library in sorted(packages.libraries(told.stdout)):
                self.add_owned(Path(library))

    def inside(self, path: Path) -> Path:
        """Give the place in the image of a path of the base: directories that are links are followed."""
        real = path.parent.resolve() / path.name
        return self.into / real.relative_to("/")

    def _make_parents(self, path: Path) -> None:
        real = path.parent.resolve()
        for parent in [*reversed(real.parents), real]:
            place = self.into / parent.relative_to("/")
            if not place.exists():
                place.mkdir()
                place.chmod(mode(parent))


def mode(path: Path) -> int:
    """Give the mode of a file or directory in the image: nothing gains rights by being run, and root alone writes.

    What is everybody's in the base (/tmp) stays so.
    """
    found = path.stat().st_mode
    return found & (0o1777 if path.is_dir() and found & stat.S_ISVTX else 0o755)


def is_program(path: Path) -> bool:
    """Say whether a file is an ELF program or library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code: 0 done, 1 something is missing in the base."""
    parser = argparse.ArgumentParser(prog="injector.image.assemble", description="lay out the image's file system")
    parser.add_argument("--environment", type=Path, required=True, help="the virtual environment with remora in it")
    parser.add_argument("--into", type=Path, required=True, help="an empty directory")
    parser.add_argument("--pip-report", type=Path, action="append", default=[], help="what pip install --report wrote")
    options = parser.parse_args(argv)
    try:
        assemble(options.environment, options.into, options.pip_report, int(os.environ["SOURCE_DATE_EPOCH"]))
    except (AssemblyError, packages.LibraryMissing) as error:
        sys.stderr.write(f"assemble: {error}\n")
        return 1
    return 0


def assemble(environment: Path, into: Path, reports: Iterable[Path], epoch: int) -> None:
    """Lay out the whole file system below `into`, every file with the time `epoch`."""
    assembly = Assembly(into)
    into.mkdir(parents=True, exist_ok=True)
    into.chmod(0o755)
    for link in sorted(Path("/").iterdir()):
        if link.is_symlink() and link.name.startswith(("bin", "lib", "sbin")):
            assembly.add(link)
    for name in packages.ROOTS:
        assembly.add_package(name)
    for path in sorted(Path("/etc/alternatives").glob("ip*tables*")):
        if packages.is_kept(str(path)) and not path.name.endswith(".gz"):
            assembly.add(path)
            assembly.add(Path("/usr/sbin") / path.name)
    assembly.add(BUNDLE)
    add_interpreter(assembly)
    assembly.add_tree(environment)
    point_at_interpreter(into / environment.relative_to("/"))
    assembly.add_libraries()
    for name, text in FILES.items():
        (into / name).write_text(text)
        (into / name).chmod(0o644)
    subprocess.run(["ldconfig", "-X", "-r", str(into)], check=True)  # noqa: S603, S607
    shutil.rmtree(into / "var/cache/ldconfig", ignore_errors=True)
    compile_all(into, [Path(sysconfig.get_path("stdlib")), environment / "lib"])
    write_records(assembly, environment, reports, epoch)
    for path in [into, *into.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def add_interpreter(assembly: Assembly) -> None:
    """Copy the interpreter that runs this, with its library: from Debian's packages, or as files from elsewhere."""
    library = Path(sysconfig.get_path("stdlib"))
    assembly.add_owned(Path(sys.executable).resolve())
    for path in sorted(library.rglob("*")):
        if path.is_file() and packages.is_kept(str(path)):
            assembly.add_owned(path)


def point_at_interpreter(environment: Path) -> None:
    """Let a copied environment name the interpreter's file: links like /usr/bin/python3 are not in the image."""
    interpreter = Path(sys.executable).resolve()
    for link in (environment / "bin").glob("python*"):
        link.unlink()
    (environment / "bin/python").symlink_to(interpreter)
    (environment / "bin/python3").symlink_to("python")
    for script in (environment / "bin").glob("[Aa]ctivate*"):
        script.unlink()
    settings = (
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n"
    )
    (environment / "pyvenv.cfg").write_text(settings)


def compile_all(into: Path, tops: Iterable[Path]) -> None:
    """Compile Python below these directories of the image. Raises AssemblyError for a file that does not compile.

    Bytecode with the source's hash and not its time: the same bytes in every build. The hash is not looked at when
    the module is imported, because the file system is read-only there.
    """
    for top in tops:
        is_compiled = compileall.compile_dir(
            into / top.relative_to("/"),
            maxlevels=32,
            stripdir=str(into),
            prependdir="/",
            quiet=1,
            workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if not is_compiled:
            raise AssemblyError(f"{top} has a module that does not compile; the lines above name it")


def write_records(assembly: Assembly, environment: Path, reports: Iterable[Path], epoch: int) -> None:
    """Write what tells the content of the image: dpkg's status of its packages, and the SBOM."""
    into = assembly.into
    admin = into / DPKG.relative_to("/")
    for directory in ("info", "updates"):
        (admin / directory).mkdir(parents=True, exist_ok=True)
    (admin / "status").write_text(packages.write_status(assembly.packages))
    python = list(python_components(environment, reports))
    listed = [*python, *debian_components(assembly.packages.values())]
    if all(component.name != f"python{platform.python_version_tuple()[0]}" for component in listed) and not any(
        name.endswith("-minimal") for name in assembly.packages
    ):
        listed.append(
            sbom.Component(
                ecosystem=sbom.Ecosystem.GENERIC,
                name="python",
                version=platform.python_version(),
                expression="PSF-2.0",
            )
        )
    subject = next(component for component in python if component.name == "remora")
    place = into / SBOM.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(sbom.document(listed, subject=subject, epoch=epoch))


def python_components(environment: Path, reports: Iterable[Path]) -> Iterator[sbom.Component]:
    """Give the Python distributions of the environment."""
    hashes: dict[str, str] = {}
    for report in reports:
        hashes |= sbom.archive_hashes(report.read_text())
    sites = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    for distribution in importlib.metadata.distributions(path=sites):
        about = distribution.metadata
        name = about["Name"]
        expression, licenses = sbom.python_licenses(
            about["License-Expression"], about["License"], about.get_all("Classifier") or []
        )
        yield sbom.Component(
            ecosystem=sbom.Ecosystem.PYTHON,
            name=name,
            version=distribution.version,
            licenses=licenses,
            expression=expression,
            sha256=hashes.get(sbom.normal_name(name), ""),
        )


def debian_components(installed: Iterable[packages.Package]) -> Iterator[sbom.Component]:
    """Give the Debian packages as components, with hashes where apt's index still has that version."""
    listed = sorted(installed, key=lambda package: package.name)
    release = platform.freedesktop_os_release()
    distribution = f"{release['ID']}-{release.get('VERSION_ID', 'testing')}"
    wanted = [f"{package.name}={package.version}" for package in listed]
    # One that the index no longer has makes the command fail, and only that one is missing.
    told = subprocess.run(  # noqa: S603
        ["apt-cache", "show", *wanted],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    )
    hashes = sbom.index_hashes(told.stdout)
    for package in listed:
        about = Path("/usr/share/doc") / package.name / "copyright"
        yield sbom.Component(
            ecosystem=sbom.Ecosystem.DEBIAN,
            name=package.name,
            version=package.version,
            architecture=package.architecture,
            distribution=distribution,
            licenses=sbom.debian_licenses(about.read_text(errors="replace")) if about.is_file() else (),
            sha256=hashes.get((package.name, package.version, package.architecture), ""),
        )


if __name__ == "__main__":
    sys.exit(main())
