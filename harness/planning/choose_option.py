"""Chooses the value of an option on a validation split, never on test data."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.planning.arms import Arm
from harness.planning.request import Request
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Entry, Registry
from harness.store.cells import key_of
from harness.store.locking.leases import LeaseLost
from harness.store.records import ChoiceCondition, ChoiceResult, HoldOutResult, StoredChoice
from harness.store.store import Store
from harness.types.data.hold_out import HoldOut
from harness.types.names import Name, expand
from harness.types.plurals import counted, plural
from harness.types.score import CONDITION

CHOOSABLE = ("method", "pool", "evaluator")
_NAMED = 3
"""Groups without a choice are named up to this number; the others are counted."""
Group = tuple[Any, ...]
"""The fields that rows which differ only in the swept option have in common."""
ScoredRow = Mapping[str, Any]
"""A row of the run table: by field, its value."""


@dataclass(frozen=True)
class SweptOption:
    """An option of a component that a request sweeps: ``kd.temperature``."""

    kind: str
    component: str
    option: str

    def __str__(self) -> str:
        return f"{self.component}.{self.option}"

    def group(self, arm: Arm) -> Group:
        """Return the values that an arm shares with those that differ from it only in this option."""
        described, rest = arm.describe(), self._without_option(arm)
        return tuple((rest.name, rest.options) if kind == self.kind else described[kind] for kind in CONDITION)

    def condition(self, arm: Arm) -> dict[str, Any]:
        """Return the values that an arm's group shares, by field, as records and pages hold them."""
        described, rest = arm.describe(), self._without_option(arm)
        return {kind: str(rest) if kind == self.kind else described[kind] for kind in CONDITION}

    def concerns(self, arm: Arm) -> bool:
        """Return whether the arm uses the component."""
        return self.kind in arm.names and arm.names[self.kind].name == self.component

    def _without_option(self, arm: Arm) -> Name:
        name = arm.names[self.kind]
        return Name(name.name, tuple(pair for pair in name.options if pair[0] != self.option))


def swept_option(request: Request, registry: Registry) -> SweptOption:
    """Return the option that ``--choose`` names.

    Raises:
        UsageError: it names nothing that the request sweeps.
    """
    component, _, option = (request.choose or "").rpartition(".")
    for kind in CHOOSABLE:
        entry = _entry(registry, kind, component)
        texts = getattr(request, kind) if entry else ()
        names = [name for text in texts for name in expand(text, request.max_cells)]
        values = {dict(name.options).get(option) for name in names if _entry(registry, kind, name.name) == entry}
        if entry and len(values) > 1:
            return SweptOption(kind, registry.display_name(entry), option)
    raise nothing_swept(request.choose)


def _entry(registry: Registry, kind: str, name: str) -> Entry | None:
    """Return the component of this name; None if there is none, for which planning has the better message."""
    try:
        return registry.find(kind, name)
    except UsageError:
        return None


def nothing_swept(choose: object) -> UsageError:
    """Return the error for an option of which there are not two values to choose from."""
    return UsageError(
        f"--choose {choose}: nothing sweeps it; write for instance --pool 'main-similar[main=[0.7,0.9]]' "
        "--choose main-similar.main, or --evaluator 'kd[temperature=[1,2,4]]' --choose kd.temperature"
    )


@dataclass(frozen=True)
class Candidates:
    """Rows that differ only in the swept option, as they were scored on validation.

    Attributes:
        condition: what they have in common, by field.
        hold_out: the validation split.
        curve: by full component name, the mean on validation; without those that failed.
        failed: names that could not be scored.
        incomplete: names that lack some of their students or distillations.
        probed: names in the curve whose pool was rewarded by scores on the same split.
    """

    condition: Mapping[str, Any]
    hold_out: HoldOut | None
    curve: Mapping[str, float]
    failed: Sequence[str]
    incomplete: Sequence[str]
    probed: Sequence[str] = ()

    @property
    def chosen(self) -> str | None:
        """The name with the highest mean, the first of equals; None if all failed."""
        # Of equals max() returns the first, so that the order in which the user typed the values decides.
        return max(self.curve, key=lambda name: self.curve[name]) if self.curve else None


@dataclass(frozen=True)
class Choice:
    """The value with the best mean on validation, for each group of rows that differ only in the option."""

    option: SweptOption
    groups: Mapping[Group, Candidates]

    @classmethod
    def of(cls, option: SweptOption, arms: Sequence[Arm], rows: Sequence[ScoredRow]) -> "Choice":
        """Choose from arms that were scored on validation, each with its row of the table."""
        grouped: dict[Group, list[tuple[Arm, ScoredRow]]] = {}
        for arm, row in zip(arms, rows, strict=True):
            if option.concerns(arm):
                grouped.setdefault(option.group(arm), []).append((arm, row))
        return cls(option, {group: _candidates(option, members) for group, members in grouped.items()})

    def takes(self, arm: Arm) -> bool:
        """Return whether an arm is scored on test: the chosen ones, and all that the option does not concern."""
        candidates = self._candidates_of(arm)
        return candidates is None or candidates.chosen == str(arm.names[self.option.kind])

    def row_fields(self, arm: Arm) -> dict[str, Any]:
        """Return the fields of an arm's row on the choice: its curve and validation split; None if not chosen."""
        candidates = self._candidates_of(arm)
        if candidates is None:
            return {"chosen": None, "validation": None}
        return {"chosen": self._result(candidates), "validation": _as_json(candidates.hold_out)}

    def notes(self) -> list[str]:
        """Return lines on what failed on validation: names that were no candidates, and groups without a choice."""
        every = list(self.groups.values())
        choosable = [candidates for candidates in every if candidates.curve]
        lines = _lines_by_name(
            choosable, [c.failed for c in choosable], "could not be scored on validation: no candidate"
        )
        lines += _lines_by_name(choosable, [c.incomplete for c in choosable], "was scored on validation in part only")
        lost = [candidates for candidates in every if not candidates.curve]
        for candidates in lost[:_NAMED]:
            what = " ".join(f"{field} {value}" for field, value in candidates.condition.items() if value is not None)
            values = f"all {len(candidates.failed)} values" if len(candidates.failed) > 1 else "its only value"
            lines.append(f"--choose {self.option}: {values} failed on validation, so nothing is scored on test: {what}")
        if len(lost) > _NAMED:
            lines.append(f"--choose {self.option}: so they did in {len(lost) - _NAMED} more rows")
        return lines

    @property
    def names(self) -> str:
        """The chosen names, each once."""
        return ", ".join(dict.fromkeys(c.chosen for c in self.groups.values() if c.chosen is not None))

    def record(self, cells: Sequence[str], store: Store) -> None:
        """Record in the store what was chosen, from which curve, by which cells; once for each group of rows.

        A choice that changes, because a cell that had failed was made meanwhile, is a newer attempt.
        """
        for group, candidates in self.groups.items():
            if candidates.chosen is None:
                continue
            identity = {"kind": "choice", "option": str(self.option), "among": sorted(cells), "group": str(group)}
            record = StoredChoice(
                kind="choice",
                label=f"{candidates.chosen} chosen for {self.option}",
                key=key_of(identity),
                identity=identity,
                result=ChoiceResult.model_validate(self._result(candidates)),
                condition=ChoiceCondition.model_validate(candidates.condition),
                validation=_hold_out_result(candidates.hold_out),
                provenance={},
            )
            before = store.sound(record.key)
            # An equal choice is not recorded again, or every repetition of the command would add an attempt.
            if not isinstance(before, StoredChoice) or before.result != record.result:
                with contextlib.suppress(LeaseLost):  # another process has recorded the same choice
                    store.commit(record)

    def _candidates_of(self, arm: Arm) -> Candidates | None:
        """Return the candidates of the arm's group; None if the option does not concern it."""
        return self.groups[self.option.group(arm)] if self.option.concerns(arm) else None

    def _result(self, candidates: Candidates) -> dict[str, Any]:
        chosen = {"option": str(self.option), "value": candidates.chosen, "curve": dict(candidates.curve)}
        return {**chosen, **({"probed": list(candidates.probed)} if candidates.probed else {})}


def _candidates(option: SweptOption, members: Sequence[tuple[Arm, ScoredRow]]) -> Candidates:
    named = [(str(arm.names[option.kind]), row) for arm, row in members]
    probed = [str(arm.names[option.kind]) for arm, row in members if is_probed(arm) and row["mean"] is not None]
    first_arm, first_row = members[0]
    return Candidates(
        condition=option.condition(first_arm),
        hold_out=HoldOut.from_json(first_row["hold_out"]),
        curve={name: row["mean"] for name, row in named if row["mean"] is not None},
        failed=[name for name, row in named if row["mean"] is None],
        incomplete=[name for name, row in named if row["status"] == "incomplete"],
        probed=probed,
    )


def is_probed(arm: Arm) -> bool:
    """Return whether the probes of an arm's pool are scored on the same images as its students."""
    source = arm.source
    return isinstance(source, TrajectorySource) and source.panel is not None and source.problem.score_on == "validation"


def probed_note(option: SweptOption, arms: Sequence[Arm]) -> list[str]:
    """Return a line if values are probed on the split by which they are chosen; none otherwise.

    Args:
        option: what is chosen.
        arms: all values of it, as they are scored on validation.
    """
    every = dict.fromkeys(str(arm.names[option.kind]) for arm in arms)
    probed = dict.fromkeys(str(arm.names[option.kind]) for arm in arms if is_probed(arm))
    if not probed:
        return []
    which = f"{len(probed)} of {counted(len(every), 'value')} {plural(len(probed), 'is', 'are')}"
    return [
        f"--choose {option}: {which} probed on the validation split that decides: their scores there are optimistic"
    ]


def _lines_by_name(groups: Sequence[Candidates], names: Iterable[Sequence[str]], what: str) -> list[str]:
    """Return a line for each name, with the number of groups if there are several."""
    counts = Counter(name for several in names for name in several)
    where = f" in {{}} of {len(groups)} rows" if len(groups) > 1 else ""
    return [f"{name} {what}{where.format(count)}" for name, count in counts.items()]


def _hold_out_result(hold_out: HoldOut | None) -> HoldOutResult | None:
    return HoldOutResult.model_validate(hold_out.as_json()) if hold_out else None


def _as_json(hold_out: HoldOut | None) -> dict[str, int | None] | None:
    return hold_out.as_json() if hold_out else None
