"""Explanations from a running sidecar: of a denial that it made, and of a question that somebody puts to it.

The policies in force answer. The mounted files are read for the edit and for the policies that select other workloads,
and count only while they are those in force. Nothing is made before somebody asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.answers.live import explain_kept
from proxy.answers.question import World
from proxy.answers.reading import read_question
from proxy.answers.report import Report, explain
from proxy.documents import Checker, parse
from proxy.errors import ConfigError
from proxy.material import read_policy, settings_of, workload_of
from proxy.policy import PolicySnapshot
from proxy.policy.load import digest_of
from proxy.sidecar import Sidecar
from proxy.telemetry.decisions_log import Decision
from proxy.types import Protocol

MAX_EDITED: Final = 64 * 1024
"""Bytes of policy files up to which an edit is looked for here. Each try loads the set, and traffic waits meanwhile:
20 ms at this size. For larger ones there is the command."""

QUESTION: Final = "question"
"""The name of a question in faults."""


def of_decision(sidecar: Sidecar, decision: Decision) -> Report | None:
    """Explain a denial by policy; None where there is nothing to explain beyond what the record says."""
    asked, policy = decision.asked, sidecar.policy
    if asked is None or policy is None:
        return None
    world = world_of(sidecar, policy)
    report = explain_kept(world, asked, rule=decision.rule, generation=decision.generation)
    return _without_edit(world, report)


def of_question(sidecar: Sidecar, policy: PolicySnapshot, text: str, now: float) -> Report:
    """Explain what would become of a request document. Raises ConfigError with every fault."""
    documents, faults = parse(text.encode("utf-8", "surrogatepass"), QUESTION)
    checker = Checker(QUESTION)
    if faults or len(documents) != 1:
        checker.fault((1, 1), "a question is one document", "write {identity: ..., method: ..., path: ...}")
        raise ConfigError(faults or checker.faults)
    ports = [port.port for port in sidecar.config.inbound]
    question = read_question(documents[0], checker, QUESTION, port=ports[0] if ports else 0)
    if checker.faults:
        raise ConfigError(checker.faults)
    world = world_of(sidecar, policy)
    return _without_edit(world, explain(world, question, now))


def _without_edit(world: World, report: Report) -> Report:
    """Say why there is no edit where the files were not looked at."""
    if world.files is not None or report.allowed:
        return report
    note = "the mounted files are too large, or not those in force: `remora policy explain` looks for an edit of them"
    return replace(report, notes=(*report.notes, note))


def world_of(sidecar: Sidecar, policy: PolicySnapshot) -> World:
    """Describe the world in which this sidecar decides; with the files only when they are what is in force."""
    config = sidecar.config
    try:
        files = read_policy(config)
    except ConfigError:
        files = None
    if files is not None and (sum(map(len, files.values())) > MAX_EDITED or digest_of(files) != policy.source_digest):
        files = None
    uris = policy.authentication.uris if policy.authentication is not None else ()
    found = {uri: sidecar.key_store.keys(uri) for uri in uris}
    return World(
        snapshot=policy,
        workload=workload_of(config),
        settings=settings_of(config),
        normalization=sidecar.normalization,
        files=files,
        keys={uri: keys for uri, keys in found.items() if keys is not None},
        tcp_ports=frozenset(port.port for port in config.inbound if port.protocol is Protocol.TCP),
    )
