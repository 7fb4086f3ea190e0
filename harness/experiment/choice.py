"""Choosing the value of an option on a validation split, never on test data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.experiment.arms import Arm
from harness.experiment.cells import key_of
from harness.experiment.request import Request
from harness.experiment.rows import Row
from harness.experiment.store import Store
from harness.plugins.registry import Registry
from harness.types.errors import UsageError
from harness.types.names import expand, parse

CHOOSABLE = ("method", "pool", "evaluator")


@dataclass(frozen=True)
class SweptOption:
    """An option of a component that a request sweeps: ``kd.temperature``."""

    kind: str
    component: str
    option: str

    def __str__(self) -> str:
        return f"{self.component}.{self.option}"

    def group(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """What a row has in common with those that differ from it only in this option."""
        name = parse(row[self.kind] or "none")
        rest = tuple(pair for pair in name.options if pair[0] != self.option)
        others = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture")
        return tuple((name.name, rest) if kind == self.kind else row[kind] for kind in others)

    def concerns(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is of the component."""
        return row[self.kind] is not None and parse(row[self.kind]).name == self.component


def swept_option(request: Request, registry: Registry) -> SweptOption:
    """The option that ``--choose`` names.

    Raises:
        UsageError: it names nothing that the request sweeps.
    """
    component, _, option = (request.choose or "").rpartition(".")
    for kind in CHOOSABLE:
        names = [name for text in getattr(request, kind) for name in expand(text) if name.name == component]
        values = {dict(name.options).get(option) for name in names} - {None}
        if len(values) > 1:
            registry.resolve(kind, names[0])
            return SweptOption(kind, component, option)
    raise UsageError(
        f"--choose {request.choose}: nothing sweeps it; write for instance "
        "--evaluator 'kd[temperature=[1,2,4]]' --choose kd.temperature"
    )


@dataclass(frozen=True)
class Choice:
    """For each group of rows that differ only in the option, the value with the best mean on validation."""

    option: SweptOption
    curves: Mapping[tuple[Any, ...], Mapping[str, float]]
    """By group, the validation mean of each full component name."""

    @classmethod
    def made(cls, option: SweptOption, rows: Sequence[Row]) -> "Choice":
        """Choose from rows that were scored on validation."""
        curves: dict[tuple[Any, ...], dict[str, float]] = {}
        for row in rows:
            if option.concerns(row) and row["mean"] is not None:
                curves.setdefault(option.group(row), {})[row[option.kind]] = row["mean"]
        return cls(option, curves)

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is scored on test: the chosen ones, and all that the option does not concern."""
        if not self.option.concerns(row):
            return True
        curve = self.curves.get(self.option.group(row))
        return curve is not None and best_of(curve) == row[self.option.kind]

    def told(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The choice and its curve, for a row's record."""
        if not self.option.concerns(row):
            return None
        return {
            "option": str(self.option),
            "value": row[self.option.kind],
            "curve": dict(self.curves[self.option.group(row)]),
        }


def best_of(curve: Mapping[str, float]) -> str:
    """The name with the highest mean, the first of equals."""
    return max(curve, key=lambda name: curve[name])


def chosen_arms(arms: Sequence[Arm], choice: Choice) -> list[Arm]:
    """The arms that are scored on test."""
    return [arm for arm in arms if choice.takes(arm.describe())]


def record_choice(choice: Choice, cells: Sequence[str], store: Store) -> None:
    """Keep in the store what was chosen, from which curve, by which cells; once for each group of rows."""
    option = str(choice.option)
    for group, curve in choice.curves.items():
        identity = {"kind": "choice", "option": option, "among": sorted(cells), "group": str(group)}
        if store.folder(key_of(identity)) is None:
            best = best_of(curve)
            told = {"option": option, "value": best, "curve": dict(curve)}
            label = f"{best} chosen for {option}"
            record = {"kind": "choice", "label": label, "identity": identity, "result": told, "provenance": {}}
            store.commit(key_of(identity), record)
