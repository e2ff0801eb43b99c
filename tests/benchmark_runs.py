"""Makes runs of the suite, as files hold them, for tests of whoever reads them."""

from __future__ import annotations

from typing import Any

from benchmarks.host import Build, Cores, Machine
from benchmarks.results import MachineFacts, Repetition, Results, RunSettings, ScenarioResult

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)
FACTS = MachineFacts(
    processor="a processor",
    processors=2,
    memory_mib=4_096,
    kernel="Linux 6.1",
    system="Debian",
    python="CPython 3.11.2",
    python_build="optimised",
    python_optimised=True,
    openssl="OpenSSL 4.0.0",
    proxies_core=0,
    others_core=1,
    peers={"envoy": "1.40.0"},
)


def scenario(name: str, series: dict[str, list[float]], **facts: Any) -> ScenarioResult:
    """Make a scenario from a series of rounds for each figure; `facts` are fields that differ from the usual ones."""
    rounds = max(map(len, series.values()))
    foreign, used = facts.pop("foreign_share", 0.0), facts.pop("proxy_share", 0.99)
    repetitions = tuple(
        Repetition(
            round=number + 1,
            figures={metric: values[number] for metric, values in series.items()},
            proxy_share=used,
            foreign_share=foreign,
        )
        for number in range(rounds)
    )
    values: dict[str, Any] = {
        "name": name,
        "contender": name.rsplit("/", 1)[1],
        "protocol": "http",
        "load": name.split("-")[0].split("/")[0],
        "tls": "mtls",
        "sides": "both",
        "rules": 10,
        "log": True,
        "connections": 32,
        "payload": 0,
        "rate": 0,
        "repetitions": repetitions,
    }
    return ScenarioResult(**{**values, **facts})


def run_of(*scenarios: ScenarioResult, **fields: Any) -> Results:
    """Make a run of scenarios; `fields` differ from a quick run without a flaw."""
    values: dict[str, Any] = {
        "taken_at": "2026-01-01T00:00:00+00:00",
        "remora": "remora 0.1.0",
        "machine": FACTS,
        "settings": RunSettings(mode="quick", seconds=2.0, repetitions=3),
        "scenarios": scenarios,
    }
    return Results(**{**values, **fields})
