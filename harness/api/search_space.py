"""The options that a search varies: each with its range, as it is typed or as the option declares it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from harness.errors import UsageError, did_you_mean
from harness.plugins.registry import Resolved
from harness.types.names import Name, split
from harness.types.options import as_text

if TYPE_CHECKING:  # optional, and only imported by who tunes
    import optuna

_DECADES = 100.0
"""A real option without declared bounds is searched from its start divided by this to its start times this."""
_TIMES = 4
"""A whole option without declared bounds: the same with this."""
_DIGITS = 3
"""Significant digits of a suggested real value: more would only make names longer."""
_RANGE = re.compile(r"([^\[\]]+?)\.\.([^\[\]]+)")


@dataclass(frozen=True)
class SearchedOption:
    """An option with its range.

    Attributes:
        name: as it is typed, without the component.
        low, high: bounds, both included; None if it is one of ``choices``.
        whole: whether it is a whole number.
        log: whether values are drawn evenly over their logarithm.
        choices: the values of an option that is not a number, as text.
        start: the value of the first trial, as text; None if it has none in the range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    log: bool = False
    choices: tuple[str, ...] = ()
    start: str | None = None

    def suggest(self, trial: "optuna.Trial") -> str:
        """Return the value that a trial takes, as text."""
        if self.low is None or self.high is None:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return as_text(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        value = float(f"{trial.suggest_float(self.name, self.low, self.high, log=self.log):.{_DIGITS}g}")
        return as_text(min(max(value, self.low), self.high))

    @property
    def first(self) -> Any:  # noqa: ANN401
        """The value of the first trial as optuna takes it; None if there is none."""
        if self.start is None or self.low is None:
            return self.start
        return int(self.start) if self.whole else float(self.start)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.name}: {', '.join(self.choices)}"
        return f"{self.name}: {self.low:g} to {self.high:g}{' (logarithmic)' if self.log else ''}"


def search_space(
    over: Sequence[str], method: Name, resolved: Resolved[Any], defaults: Mapping[str, str]
) -> list[SearchedOption]:
    """Return the options that a search varies.

    Args:
        over: ``METHOD.OPTION``, ``METHOD.OPTION=LOW..HIGH`` or ``METHOD.OPTION=[A,B]``.
        method: as it is typed; its options are the start.
        resolved: the method.
        defaults: the values that its options take on the data set.

    Raises:
        UsageError: an option is not of the method, or has no range.
    """
    space: list[SearchedOption] = []
    for text in over:
        path, _, values = text.partition("=")
        component, dot, option = path.strip().rpartition(".")
        if not dot or component != method.name:
            raise UsageError(f"--over {text}: write {method.name}.OPTION: a search varies options of the method")
        fields = type(resolved.options).fields_by_name()
        if option not in fields:
            raise UsageError(f"--over {text}: {method.name} has no option {option!r}: {did_you_mean(option, fields)}")
        if option in {searched.name for searched in space}:
            raise UsageError(f"--over {text}: {option} is named twice")
        typed = {**defaults, **dict(method.options)}.get(option)
        start = as_text(fields[option].get_default()) if typed is None else typed
        space.append(_searched(text, option, fields[option], values.strip(), None if start == "auto" else start))
    if not space:
        raise UsageError(f"--over names what is searched, for instance --over {method.name}.lr_img")
    return space


def _searched(text: str, option: str, field: FieldInfo, values: str, start: str | None) -> SearchedOption:
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not NoneType]
    if values.startswith("["):
        choices = tuple(part.strip() for part in split(values.removeprefix("[").removesuffix("]"), ","))
        return SearchedOption(option, choices=choices, start=start if start in choices else None)
    if get_origin(field.annotation) is Literal:
        return SearchedOption(option, choices=tuple(map(as_text, kinds)), start=start)
    if bool in kinds:
        return SearchedOption(option, choices=("false", "true"), start=start)
    if not (float in kinds or int in kinds):
        raise UsageError(f"--over {text}: {option} is no number: write its values, {text.partition('=')[0]}=[A,B]")
    whole = float not in kinds
    low, high, log = _typed_range(text, values) if values else _declared_range(text, field, start, whole)
    inside = start is not None and low <= float(start) <= high
    return SearchedOption(option, low, high, whole, log, start=start if inside else None)


def _typed_range(text: str, values: str) -> tuple[float, float, bool]:
    match = _RANGE.fullmatch(values)
    try:
        low, high = (float(part) for part in match.groups()) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not low < high < float("inf"):
        raise UsageError(f"--over {text}: write a range as LOW..HIGH, or values as [A,B]")
    # Over more than a decade of positive numbers, equal ratios matter and not equal distances.
    return low, high, low > 0 and high / low > 10


def _declared_range(text: str, field: FieldInfo, start: str | None, whole: bool) -> tuple[float, float, bool]:
    """Return the bounds that an option declares, or those around its start, and whether they are logarithmic."""
    low, high = _bounds(field, whole)
    if low is not None and high is not None:
        return low, high, False
    if start is None or float(start) <= 0:
        where = text.partition("=")[0]
        raise UsageError(f"--over {text}: its default gives no range: write {where}=LOW..HIGH")
    around = _TIMES if whole else _DECADES
    below, above = float(start) / around, float(start) * around
    if whole:
        below, above = max(1, round(below)), round(above)
    return max(below, low or 0), above if high is None else min(above, high), True


def _bounds(field: FieldInfo, whole: bool) -> tuple[float | None, float | None]:
    """Return the lowest and highest value that an option declares, a little inside of a bound that is excluded."""
    low = high = None
    for constraint in field.metadata:
        if (bound := getattr(constraint, "ge", None)) is not None:
            low = float(bound)
        if (bound := getattr(constraint, "gt", None)) is not None:
            low = bound + 1.0 if whole else float(bound) + (1e-3 if bound else 1e-9)
        if (bound := getattr(constraint, "le", None)) is not None:
            high = float(bound)
        if (bound := getattr(constraint, "lt", None)) is not None:
            high = bound - 1.0 if whole else float(bound) - 1e-3
    return low, high
