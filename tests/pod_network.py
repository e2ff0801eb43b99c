"""Networks and mounts of a node and its pods, by the kernel's namespaces: each pod has an address and a loopback.

The node has a bridge and no way out; nothing of it is seen from the machine's own network. Pods have IPv4 and IPv6 and
reach everything by the node, as with most network plugins; the node leads a service's address to a pod, as kube-proxy
does. A pod has an empty /etc and /run, `hosts` in the place of the cluster's DNS, and a root file system that cannot be
written. Needs root.

    with Node() as node:
        pod = node.pod("orders", address, hosts, mounts)
        pod.run("remora", "proxy", "wait")
        pod.inside(lambda: http.client.HTTPConnection("127.0.0.1", 8080).connect())
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

Result = TypeVar("Result")

PREFIX: Final = "10.77.0."
PREFIX_6: Final = "fd77::"
NODE: Final = f"{PREFIX}1"
"""The address of the node, where kubelet and authority are."""
NODE_6: Final = f"{PREFIX_6}1"

_NET: Final = 0x4000_0000
"""CLONE_NEWNET."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Space:
    """The network of a process, and its mounts where those are ours."""

    def __init__(self, pid: int, *, mounts: bool = False) -> None:
        self.pid = pid
        self._kinds = ("--net", "--mount") if mounts else ("--net",)

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that start a program in it; it keeps the process id."""
        return ("nsenter", f"--target={self.pid}", *self._kinds, "--")

    def run(self, *words: str, timeout: float = 40) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as root."""
        return subprocess.run([*self.enter, *words], capture_output=True, text=True, timeout=timeout, check=False)

    def inside(self, work: Callable[[], Result]) -> Result:
        """Do something in this network. A socket stays in the network in which it was made, whoever uses it later."""
        results: list[Result] = []
        faults: list[BaseException] = []

        def there() -> None:
            namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                if _LIBC.setns(namespace, _NET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                results.append(work())
            except BaseException as fault:  # given on to whoever asked
                faults.append(fault)
            finally:
                os.close(namespace)

        thread = threading.Thread(target=there, name="in a namespace")
        thread.start()
        thread.join()
        if faults:
            raise faults[0]
        return results[0]


class OwnSpace(Space):
    """A network and mounts of their own, which live as long as a process that sleeps in them."""

    def __init__(self, script: str, *words: str) -> None:
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "sh",
                "-euc",
                f"ip link set lo up\n{script}\necho\nexec sleep infinity",
                "sh",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        super().__init__(self._holder.pid, mounts=True)
        with self._holder.stdout as said:
            is_made = said.readline() == b"\n"
        if not is_made:
            self.close()
            raise AssertionError("the namespaces cannot be made; the reason is above")

    def close(self) -> None:
        """End the holder; the namespaces end with the last process in them."""
        self._holder.kill()
        self._holder.wait()


_BRIDGE: Final = """
ip link add br0 type bridge
ip address add "$1/24" dev br0
ip address add "$2/64" dev br0 nodad
ip link set br0 up
for each in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > "/proc/sys/net/$each"; done
# Where bridges ask the rules of IP, a pod that calls itself would be lost in the bridge.
for each in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e "$each" ] || echo 0 > "$each"; done
for each in all br0; do echo 0 > "/proc/sys/net/ipv4/conf/$each/send_redirects"; done
"""

_MOUNTS: Final = """
mount -t tmpfs none /etc
mount -t tmpfs none /run
printf '%s' "$1" > /etc/hosts
shift
while [ $# -gt 0 ]; do
  mkdir -p "$2"
  mount --bind "$1" "$2"
  shift 2
done
for each in / /etc /run; do mount -o remount,bind,ro "$each"; done
"""


class Node(OwnSpace):
    """A node: a bridge, and the pods that it starts."""

    def __init__(self) -> None:
        super().__init__(_BRIDGE, NODE, NODE_6)
        self._pods: list[OwnSpace] = []

    def pod(self, name: str, number: int, hosts: Mapping[str, str], mounts: Mapping[str, Path]) -> Space:
        """Make a pod's namespaces with the addresses PREFIX + `number` and PREFIX_6 + `number`.

        `hosts` are names with their addresses, `mounts` directories with their paths in it.
        """
        lines = "".join(f"{address} {host}\n" for host, address in {"localhost": "127.0.0.1", **hosts}.items())
        pod = OwnSpace(_MOUNTS, lines, *(word for path, directory in mounts.items() for word in (str(directory), path)))
        self._pods.append(pod)
        self.connect(pod, name, number)
        return pod

    def connect(self, pod: Space, name: str, number: int) -> None:
        """Give a network that has loopback alone the addresses of a pod, and the way to everything by the node."""
        peer = f"veth-{name}"
        self._must("ip", "link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", str(pod.pid))
        self._must("ip", "link", "set", peer, "master", "br0", "up")
        for words in (
            "link set eth0 up",
            f"address add {PREFIX}{number}/32 dev eth0",
            f"address add {PREFIX_6}{number}/128 dev eth0 nodad",
            f"route add {NODE} dev eth0",
            f"route add default via {NODE}",
            f"-6 route add {NODE_6} dev eth0",
            f"-6 route add default via {NODE_6}",
        ):
            done = pod.run("ip", *words.split())
            assert done.returncode == 0, (words, done.stderr)

    def service(self, address: str, port: int, target: str, target_port: int) -> None:
        """Lead a service's address to a pod, as kube-proxy does: a pod that calls itself sees the node's address."""
        family, brackets = ("ip6", f"[{target}]") if ":" in address else ("ip", target)
        self._must(
            "nft",
            "add table inet services; "
            "add chain inet services to_pods { type nat hook prerouting priority dstnat ; }; "
            f"add rule inet services to_pods {family} daddr {address} tcp dport {port} "
            f"dnat {family} to {brackets}:{target_port}; "
            "add chain inet services from_pods { type nat hook postrouting priority srcnat ; }; "
            f"add rule inet services from_pods {family} saddr {target} {family} daddr {target} masquerade",
        )

    def forget_services(self) -> None:
        """Lead no new connection anywhere; those that are open stay where they are."""
        self._must("nft", "add table inet services; delete table inet services")

    def _must(self, *words: str) -> None:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr

    def __enter__(self) -> Node:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for space in (*self._pods, self):
            space.close()
