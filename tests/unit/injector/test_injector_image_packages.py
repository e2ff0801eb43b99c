"""Which files of a base go into the image, whose they are, and what programs need besides."""

from __future__ import annotations

import pytest

from injector.image.packages import LibraryMissing, is_kept, libraries, merged, owners, read_status, write_status

STATUS = """\
Package: nftables
Status: install ok installed
Architecture: amd64
Version: 1.0.6-2
Description: rules
 with a second line

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: half
Status: install ok half-installed
Architecture: all
Version: 2

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
"""
LDD = """\
/usr/sbin/nft:
	linux-vdso.so.1 (0x00007ffd)
	libnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x00007f01)
	/lib64/ld-linux-x86-64.so.2 (0x00007f03)
/opt/plain:
	not a dynamic executable
/usr/bin/other:
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f02)
"""


def test_the_status_file_gives_what_is_installed_and_writes_the_same_stanzas() -> None:
    found = read_status(STATUS)
    assert list(found) == ["nftables", "libc6"]
    assert (found["nftables"].version, found["nftables"].architecture) == ("1.0.6-2", "amd64")
    written = write_status(found)
    assert read_status(written) == found
    assert list(read_status(written)) == ["libc6", "nftables"]
    assert " with a second line\n" in written


def test_a_status_file_of_nothing_is_nothing() -> None:
    assert read_status("") == {}
    assert write_status({}) == ""


@pytest.mark.parametrize(
    "path",
    [
        "/usr/sbin/nft",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/share/doc/libc6/copyright",
        "/usr/lib/python3.11/asyncio/base_events.py",
        "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
        "/usr/local/lib/python3.13/json/decoder.py",
        "/opt/remora/lib/python3.11/site-packages/h11/_events.py",
        "/opt/remora/lib/python3.11/site-packages/prometheus_client/bridge/graphite.py",
        "/etc/protocols",
        "/etc/ssl/certs/ca-certificates.crt",
    ],
)
def test_what_runs_is_kept(path: str) -> None:
    assert is_kept(path)


@pytest.mark.parametrize(
    "path",
    [
        "/usr/share/doc/libc6/changelog.gz",
        "/usr/share/man/man8/nft.8.gz",
        "/usr/share/locale/de/x.mo",
        "/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
        "/lib/systemd/system/nftables.service",
        "/usr/include/python3.11/Python.h",
        "/usr/local/include/python3.13/Python.h",
        "/usr/lib/python3.11/test/test_ssl.py",
        "/usr/lib/python3.11/ensurepip/__init__.py",
        "/usr/local/lib/python3.13/site-packages/pip/__init__.py",
        "/usr/lib/python3/dist-packages/x.py",
        "/usr/lib/python3.11/__pycache__/abc.cpython-311.pyc",
        "/usr/lib/python3.11/lib-dynload/_tkinter.cpython-311-x86_64-linux-gnu.so",
        "/usr/lib/x86_64-linux-gnu/libpython3.11.a",
        "/etc/init.d/nftables",
        "/usr/sbin/iptables-apply",
        "/usr/sbin/update-ca-certificates",
    ],
)
def test_what_nobody_runs_is_left_out(path: str) -> None:
    assert not is_kept(path)


@pytest.mark.parametrize(
    ("path", "one"),
    [
        ("/usr/lib/x", "/lib/x"),
        ("/lib/x", "/lib/x"),
        ("/usr/sbin", "/sbin"),
        ("/usr/lib64/ld.so", "/lib64/ld.so"),
        ("/usr/libexec/x", "/usr/libexec/x"),
        ("/usr/share/x", "/usr/share/x"),
    ],
)
def test_a_path_with_two_names_has_one(path: str, one: str) -> None:
    assert merged(path) == one


def test_a_file_is_owned_by_the_package_that_lists_it_under_either_name() -> None:
    found = owners({"libc6": "/lib/x86_64-linux-gnu/libc.so.6\n/usr/share/doc\n", "nft": "/usr/sbin/nft"})
    assert found[merged("/usr/lib/x86_64-linux-gnu/libc.so.6")] == "libc6"
    assert found[merged("/sbin/nft")] == "nft"


def test_the_libraries_of_programs_are_read_and_what_is_in_the_kernel_is_none() -> None:
    assert libraries(LDD) == {
        "/lib/x86_64-linux-gnu/libnftables.so.1",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
    }


def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(LibraryMissing, match=r"^libx\.so\.1, liby\.so: not found; install the package with it"):
        libraries("\tliby.so => not found\n\tlibx.so.1 => not found\n\tliby.so => not found\n")
