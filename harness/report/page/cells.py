"""The section of cells: the commands that compute them again, their environments and checksums."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.page.panel import Line, Panel
from harness.report.page.view import Column, Entry, Group, Part, Rerun, Section, Table, TableRow
from harness.report.tables.wording import DASH
from harness.types.plurals import counted
from harness.types.report import Origin, Results
from harness.types.score import Score

_DIGITS = 16
"""Digits of keys and checksums that are shown: enough to find a record, and to distinguish two."""


def cells_section(panels: Sequence[Panel], results: Results, most: int) -> Section:
    """Return, for each arm of each panel, the command that computes its cells again, and the cells if they are few."""
    environments = _environments(results)
    number = len(results.scores)
    seen: set[tuple[str, str]] = set()
    parts = []
    for panel in panels:
        commands: list[Rerun] = []
        for place, ((line, architecture), arm) in enumerate(_arms_in_order(panel)):
            what = f"{line}{_iterations_suffix(line)} → {architecture}"
            # Each cell is listed once, though sets of real images stand in many panels.
            fresh = _scores_not_shown(arm, seen)
            commands += _reruns(f"{panel.id}-cells-{place}", what, fresh, results, environments, number <= most)
        if commands:
            parts.append(Part(panel.title, reruns=commands))
    intro = [
        "Each command computes its cells again, under the same keys, in a store of its own (--store). On the same "
        "machine, with the same versions and number of threads, it gives the same numbers."
    ]
    if number > most:
        intro.append(
            f"The {counted(number, 'cell')} are more than the {most:,} that a page lists one by one, so only commands "
            f"and counts are shown (--report 'page[cells={number}]' lists them all)."
        )
    environment = Part("Environments", tables=[_environment_table(environments)])
    return Section("cells", "Every cell", intro, [*parts, environment])


def _iterations_suffix(line: Line) -> str:
    return "" if line.iterations is None else f", {counted(line.iterations, 'iteration')}"


def _arms_in_order(panel: Panel) -> list[tuple[tuple[Line, str], ArmScores]]:
    places = {line: index for index, line in enumerate(panel.lines)}
    return sorted(panel.tiles.items(), key=lambda item: (places[item[0][0]], panel.architectures.index(item[0][1])))


def _scores_not_shown(arm: ArmScores, seen: set[tuple[str, str]]) -> list[Score]:
    """Return the scores of an arm that no other panel has shown; sets of all images stand in several panels."""
    fresh = [score for score in arm.scores if (score.store, score.key) not in seen]
    seen.update((score.store, score.key) for score in fresh)
    return sorted(fresh, key=lambda score: (score.seed, score.distillation, score.student))


def _reruns(
    name: str,
    what: str,
    scores: Sequence[Score],
    results: Results,
    environments: Mapping[str, int],
    listed: bool,
) -> list[Rerun]:
    """Return an arm's cells by command; there is more than one command only if seeds differ."""
    by_command: dict[tuple[str | None, str], list[Score]] = defaultdict(list)
    for score in scores:
        origin = results.origin(score)
        by_command[origin.command, origin.reason].append(score)
    reruns = []
    for place, ((command, reason), several) in enumerate(by_command.items()):
        mean = 100 * sum(score.accuracy for score in several) / len(several)
        outcome = f"{mean:.1f} %, {counted(len(several), 'cell')}"
        table = _table(f"{name}-{place}", several, results) if listed else None
        facts = _facts(several, results, environments)
        reruns.append(Rerun(what, outcome, command, reason, facts, table))
    return reruns


def _facts(scores: Sequence[Score], results: Results, environments: Mapping[str, int]) -> list[tuple[str, str]]:
    seeds = ", ".join(map(str, sorted({score.seed for score in scores})))
    used = ", ".join(map(str, sorted({environments[_environment(results.origin(score))] for score in scores})))
    return [
        ("protocol", ", ".join(sorted({score.protocol for score in scores}))),
        ("seed", seeds),
        ("environment", used),
    ]


def _table(name: str, scores: Sequence[Score], results: Results) -> Table:
    columns = [Column("distillation, student")]
    columns += [Column(text, number=True) for text in ("accuracy, %", "loss", "seconds")]
    columns += [Column("key"), Column("record's checksum")]
    rows = [
        TableRow(
            f"{score.distillation}, {score.student}",
            [
                Entry(f"{100 * score.accuracy:.2f}", below="collapsed" if score.collapsed else ""),
                Entry(DASH if score.loss is None else f"{score.loss:.4g}"),
                Entry(f"{score.seconds:.1f}"),
                Entry(score.key[:_DIGITS], number=False),
                Entry(results.origin(score).checksum[:_DIGITS], number=False),
            ],
        )
        for score in scores
    ]
    caption = f"Students; keys and checksums by their first {_DIGITS} digits"
    return Table(name, caption, columns, [Group("", rows)])


def _environment(origin: Origin) -> str:
    facts: dict[str, Any] = {**origin.versions, **origin.compute}
    facts["providers"] = " ".join(sorted(set(origin.components.values())))
    return json.dumps(facts, sort_keys=True)


def _environments(results: Results) -> dict[str, int]:
    """Number the different sets of versions, machine and providers from 1."""
    different = dict.fromkeys(_environment(results.origin(score)) for score in results.scores)
    return {text: number for number, text in enumerate(sorted(different), 1)}


def _environment_table(environments: Mapping[str, int]) -> Table:
    facts = {number: json.loads(text) for text, number in environments.items()}
    keys = list(dict.fromkeys(key for environment in facts.values() for key in environment))
    columns = [Column("what"), *(Column(str(number)) for number in facts)]
    rows = [
        TableRow(key, [Entry(str(environment.get(key, DASH)), number=False) for environment in facts.values()])
        for key in keys
    ]
    return Table("environments", "Versions, device and providers of components", columns, [Group("", rows)])
