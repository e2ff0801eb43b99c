"""A bare pod: a network namespace with two interfaces, and the world beyond them, which has every address there is.

    pod  eth0 10.77.1.2, fd77:1::2  ----  world     (the default route)
    pod  eth1 10.77.2.2, fd77:2::2  ----  world     (10.200.0.0/16, fd02::/16)

In the pod stand an application at some ports and, where the sidecar would be, two listeners that tell what reached
them. Whoever dials learns who answered: `app`, `world`, or the sidecar's port with the destination that the kernel
remembered. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pod_network import OwnSpace, Space

from proxy.accept.original_destination import original_destination

REMORA: Final = Path(sys.executable).parent / "remora"
ANSWER_SECONDS: Final = 3.0
INBOUND, OUTBOUND = 15006, 15001
APP_PORTS: Final = (80, 8080, 9005, 15020)
WORLD_PORTS: Final = (25, 53, 80, 443, 8005)
OWN: Final = {4: ("10.77.1.2", "10.77.2.2"), 6: ("fd77:1::2", "fd77:2::2")}
"""The pod's addresses by version of IP: at eth0, at eth1."""
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
PASS_SOURCE: Final = {4: "127.0.0.6", 6: "::6"}

_WORLD: Final = """
for n in 1 2; do
  ip link add peer$n type veth peer name eth$((n-1)) netns "$1"
  ip address add 10.77.$n.1/24 dev peer$n
  ip address add fd77:$n::1/64 dev peer$n nodad
  ip link set peer$n up
done
# It has every address, so that whatever the pod dials is answered.
ip route add local default dev lo table main
ip -6 route add local default dev lo table main
"""
_POD: Final = """
for n in 1 2; do
  ip address add 10.77.$n.2/24 dev eth$((n-1))
  ip address add fd77:$n::2/64 dev eth$((n-1)) nodad
  ip link set eth$((n-1)) up
done
ip route add default via 10.77.1.1
ip route add default via fd77:1::1
ip route add 10.200.0.0/16 via 10.77.2.1
ip route add fd02::/16 via fd77:2::1
"""


_SAVES: Final = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save")
_TABLE: Final = re.compile(r"^\*.*?^COMMIT$", re.MULTILINE | re.DOTALL)
_COUNTERS: Final = re.compile(r" \[\d+:\d+\]")
_RULE: Final = re.compile(r"^-A|^:\S+ -", re.MULTILINE)
_HIDE: Final = """
if [ ! -d /mnt/sbin ]; then
  mount -t tmpfs none /mnt
  cp -a /usr/sbin /mnt/sbin
  mount --bind /mnt/sbin /usr/sbin
fi
rm "/usr/sbin/$1"
printf '#!/bin/sh\\necho broken >&2\\nexit 3\\n' > "/usr/sbin/$1"
chmod 755 "/usr/sbin/$1"
"""


class BarePod:
    """The pod, the world, and who listens in both."""

    def __init__(self, *, ipv6: bool = True) -> None:
        self._stack = contextlib.ExitStack()
        without_6 = "for each in all default; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done"
        self.pod = OwnSpace("" if ipv6 else without_6)
        self._stack.callback(self.pod.close)
        world = _WORLD if ipv6 else _only_4(_WORLD)
        self.world = OwnSpace(world, str(self.pod.pid))
        self._stack.callback(self.world.close)
        self.versions = (4, 6) if ipv6 else (4,)
        done = self.pod.run("sh", "-euc", _POD if ipv6 else _only_4(_POD))
        assert done.returncode == 0, done.stderr
        self._answers = _Answers()
        self._stack.callback(self._answers.close)
        for port in WORLD_PORTS:
            self._listen(self.world, "world", "any", port)
        for port in APP_PORTS:
            self._listen(self.pod, "app", "any", port)

    def start_sidecar(self) -> None:
        """Listen where the sidecar does: at every address for callers, on loopback for calls."""
        self._listen(self.pod, "inbound", "dual", INBOUND)
        self._listen(self.pod, "outbound", "loopback", OUTBOUND)

    def capture(self, *words: str, code: int = 0) -> str:
        """Run `remora injector capture`; gives what it said on both outputs, standard output first."""
        done = self.pod.run(str(REMORA), "injector", "capture", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def unprivileged(self, *words: str, user: int = 65532) -> subprocess.CompletedProcess[str]:
        """Run `remora` as another user, without any capability."""
        drop = (
            "setpriv",
            f"--reuid={user}",
            f"--regid={user}",
            "--clear-groups",
            "--bounding-set=-all",
            "--no-new-privs",
        )
        return self.pod.run(*drop, str(REMORA), *words)

    def dial(
        self,
        to: str,
        port: int,
        *,
        source: str = "",
        uid: int = 0,
        gid: int = 0,
        mark: int = 0,
        from_world: bool = False,
    ) -> str:
        """Open a connection and give who answers; "no answer" when nobody does."""

        def connect() -> str:
            if gid:
                _act_as("setfsgid", gid)
            if uid:
                _act_as("setfsuid", uid)
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(ANSWER_SECONDS)
                if mark:
                    _act_as("setfsuid", 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                if source:
                    sock.bind((source, 0))
                try:
                    sock.connect((to, port))
                    return sock.recv(200).decode()
                except OSError:
                    return "no answer"

        return (self.world if from_world else self.pod).inside(connect)

    def state(self) -> str:
        """Give every rule and address of the pod as the kernel has it, without counters.

        Tables in which no chain and no rule was made are left out: iptables makes them when it is asked for anything,
        they do nothing, and the kernel gives no way to take the older kind back.
        """
        said = "".join(self.pod.run(program).stdout for program in _SAVES)
        parts = [table for table in _TABLE.findall(_COUNTERS.sub("", said)) if _RULE.search(table)]
        parts.append(self.pod.run("nft", "list", "ruleset", "inet").stdout)
        addresses = json.loads(self.pod.run("ip", "-json", "address", "show").stdout)
        parts += [f"{each['ifname']} {_addresses(each)}" for each in addresses]
        return "\n".join(parts)

    def hide(self, program: str) -> None:
        """Let a program of the pod's file system fail whatever it is asked."""
        # Many names lead to one file, so the name itself must become another: the folder is copied.
        done = self.pod.run("sh", "-euc", _HIDE, "sh", program)
        assert done.returncode == 0, done.stderr

    def _listen(self, where: Space, name: str, kind: str, port: int) -> None:
        for sock in where.inside(lambda: list(_sockets(kind, port, self.versions))):
            self._answers.add(sock, name)

    def __enter__(self) -> BarePod:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Answers:
    """Answers every connection with who took it, and for the sidecar's ports with where it was going."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ, None)
        self._new: list[tuple[socket.socket, str]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="answers")
        self._thread.start()

    def add(self, listener: socket.socket, name: str) -> None:
        self._selector.register(listener, selectors.EVENT_READ, name)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                accepted, _ = key.fileobj.accept()
                with accepted, contextlib.suppress(OSError):
                    accepted.sendall(_told(key.data, accepted).encode())

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _told(name: str, accepted: socket.socket) -> str:
    if name not in ("inbound", "outbound"):
        return name
    found = original_destination(accepted)
    return f"{name} {found}" if found else f"{name} of nobody knows where"


def _sockets(kind: str, port: int, versions: tuple[int, ...]) -> Iterator[socket.socket]:
    """Give the sockets of a listener: `dual` is one for both versions, as the sidecar has it where both are."""
    places = {"loopback": LOOPBACK, "any": {4: "0.0.0.0", 6: "::"}, "dual": {4: "0.0.0.0", 6: "::"}}[kind]
    for version in versions[-1:] if kind == "dual" else versions:
        sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind != "dual")
        sock.bind((places[version], port))
        sock.listen(64)
        yield sock


def _addresses(interface: Mapping[str, Any]) -> list[str]:
    # Those of the link come when the kernel likes.
    return [info["local"] for info in interface["addr_info"] if info["scope"] != "link"]


def _act_as(call: str, number: int) -> None:
    """Let this thread alone be another user or group: what the kernel remembers of the sockets that it makes."""
    getattr(ctypes.CDLL(None), call)(number)


def _only_4(script: str) -> str:
    return "\n".join(line for line in script.splitlines() if "fd" not in line and "-6" not in line)
