"""A sidecar of several workers as real processes, looked at through its metrics, its admin pages and /proc."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_caller import MEANT, ask
from mesh import Mesh, Message, Process, Stream, eventually, fetch_page, free_port, get, loop_name

WORKERS = 2


class Crew:
    """A process with workers. `admin` is the port of its admin listener."""

    def __init__(self, process: Process, admin: int) -> None:
        self.process = process
        self.admin = admin

    @property
    def workers(self) -> list[int]:
        """The processes of the workers, by the kernel's account."""
        pid = self.process.popen.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [int(child) for child in children]

    async def metrics(self) -> dict[str, float]:
        """Sample with its labels -> value."""
        text = (await fetch_page(self.process.health_port, "/metrics")).body.decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    async def requests(self) -> float:
        """Finished requests, whatever became of them."""
        return sum(value for name, value in (await self.metrics()).items() if name.startswith("remora_requests_total"))

    async def page(self, path: str) -> Any:
        """An admin page as JSON."""
        answer = await ask(self.admin, path, {"Accept": "application/json"})
        return json.loads(answer.body)

    async def act(self, path: str) -> Message:
        """Do what an admin action does."""
        return await ask(self.admin, path, {**MEANT, "Accept": "application/json"}, method="POST")

    async def who(self, clients: Sequence[Stream]) -> list[int]:
        """The number of the worker behind each of these open connections."""
        rows = (await self.page("/connections"))["connections"]
        workers = {row["remote"]: row["worker"] for row in rows}
        found = []
        for client in clients:
            host, port = client.sock.getsockname()[:2]
            found.append(workers[f"{host}:{port}"])
        return found

    def pid_of(self, number: int) -> int:
        """The process of a worker, by its command line."""
        for pid in self.workers:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"worker" in words and words[words.index(b"--number") + 1] == str(number).encode():
                return pid
        raise AssertionError(f"no worker {number}: {self.process.output}")

    async def clients_of_each(self, mesh: Mesh, each: int = 1) -> dict[int, list[Stream]]:
        """Open connections until every worker has `each`, by number; each has served a request."""
        found: dict[int, list[Stream]] = {number: [] for number in range(1, WORKERS + 1)}
        for _ in range(100):
            client = await mesh.client(self.process)
            await client.send(get("/"))
            assert (await client.message()).status == 200
            [number] = await self.who([client])
            found[number].append(client)
            if all(len(clients) >= each for clients in found.values()):
                return found
        raise AssertionError(f"the kernel gave no connection to some worker: {found}")


async def crew(mesh: Mesh, *, ready: bool = True, watch: str = "0.05s", **options: Any) -> Crew:
    """Start a sidecar with two workers."""
    admin = free_port()
    process = await mesh.process(
        "orders",
        ready=ready,
        admin={"listen": f"127.0.0.1:{admin}"},
        runtime={"loop": loop_name(), "watch_interval": watch, "workers": WORKERS},
        **options,
    )
    return Crew(process, admin)


async def until_replaced(one: Crew, gone: int) -> None:
    """Wait until a worker that was killed has another in its place, which serves."""

    def replaced() -> bool:
        return gone not in one.workers and len(one.workers) == WORKERS

    await eventually(replaced, f"a worker in the place of {gone}: {one.process.output}")
    await one.process.readiness(200)


def generations(output: str, kind: str) -> list[int]:
    """The generations of a kind that the log says were put in force."""
    return [int(found) for found in re.findall(rf"{kind} generation (\d+) in force", output)]
