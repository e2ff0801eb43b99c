"""The stage with several endpoints: each has a pool of its own, and dials end where the play says."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any

from stage import App, Stage, StageRoute

from proxy.config import Address
from proxy.forward.balance import Balancer
from proxy.forward.pool import Pool, PoolLimits


def address(number: int) -> Address:
    return Address(host="10.0.0.1", port=number)


class BalancedStage(Stage):
    """A stage whose clients are served by a balancer; `down` endpoints refuse, `deaf` ones let a dial hang."""

    def __init__(self, *ports: int, connections: int = 4, waiters: int = 4, **more: Any) -> None:
        super().__init__(**more)
        self.down: set[int] = set()
        self.deaf: set[int] = set()
        self._dialled: dict[int, deque[Coroutine[Any, Any, Any]]] = {}
        self._port_of: dict[int, int] = {}
        """By the id of a connection's wire: where it leads."""
        self._pools: list[Pool] = []
        self._limits = PoolLimits(connections=connections, waiters=waiters, wait=1.0, idle=4.0, max_age=1_000.0)
        self.balancer = Balancer("orders", make_pool=self._make_pool, clock=self.clock, wait=5.0, rand=lambda: 0.0)
        self.balancer.probes = True
        self.balancer.set_endpoints(map(address, ports))

    def route(self) -> StageRoute:
        return StageRoute(self.balancer)

    def _make_pool(self, to: Address) -> Pool:
        dials = self._dialled.setdefault(to.port, deque())
        pool = Pool(
            f"orders at {to}",
            dial=self._dial,
            spawn=lambda work, name: dials.append(work),
            clock=self.clock,
            limits=self._limits,
            generation=lambda: self.generation,
        )
        self._pools.append(pool)
        return pool

    def apps_of(self, port: int) -> list[App]:
        """The connections to one endpoint, in the order in which they stood."""
        return [app for app in self.apps if self._port_of[id(app.wire)] == port]

    def steps(self) -> list[Any]:
        found = super().steps()
        for port, dials in self._dialled.items():
            if dials and port not in self.deaf:
                found.append(lambda port=port: self.answer_dial(port))
        return found

    def answer_dial(self, port: int) -> None:
        """Let the oldest dial of an endpoint end as it must."""
        self.dials.append(self._dialled[port].popleft())
        if port in self.down:
            self.refuse()
            return
        count = len(self.apps)
        try:
            self.accept()
        finally:
            self._port_of[id(self.apps[count].wire)] = port

    def check(self) -> None:
        super().check()
        for pool in self._pools:
            live = [app for app in self.apps if app.connection.pool is pool]
            assert not any(app.closed for app in live)
            busy = [app.connection.stream for app in live if app.connection.stream is not None]
            assert len(busy) == len(set(busy)), "two connections serve one stream"
            assert pool.load == len(busy) + pool.waiting + len(pool._opaque)
            assert pool.total == len(live) + len(pool._dials)

    def close(self) -> None:
        super().close()
        for dials in self._dialled.values():
            while dials:
                dials.popleft().close()
