"""Values that records may hold: an impossible one is named, so that no reader computes with it."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]
_SHOWN = 40
"""Characters of a wrong value that are shown."""
_MISSING = object()


def is_number(value: Any, low: float = -sys.float_info.max, high: float = sys.float_info.max) -> bool:  # noqa: ANN401
    """Whether it is a finite number within bounds; a truth value is none, and NaN lies within no bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_whole(value: Any) -> bool:  # noqa: ANN401
    """Whether it is a whole number from 0 that any program can hold."""
    return isinstance(value, int) and is_number(value, 0, 2**63 - 1)


def is_scalar(value: Any) -> bool:  # noqa: ANN401
    """Whether it is a number, or None in place of one that was not finite."""
    return value is None or is_number(value)


def is_list_of(check: Check) -> Check:
    """A check of a list by a check of its members."""
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _is_text(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:  # noqa: ANN401
    return value is None or isinstance(value, str)


def _is_counts(value: Any) -> bool:  # noqa: ANN401
    return value is None or (isinstance(value, dict) and all(map(is_whole, value.values())))


_STUDENT: Mapping[str, Check] = {
    "student": is_whole,
    "accuracy": lambda value: is_number(value, 0, 1),
    "collapsed": lambda value: isinstance(value, bool),
    "seconds": lambda value: is_number(value, 0),
    "peak_memory": is_whole,
    "loss": is_scalar,
}
_STUDENT_MAY_LACK: Mapping[str, Check] = {
    "losses": is_list_of(is_scalar),
    "epochs": is_whole,
    "set_status": _is_text_or_none,
    "set_storage": is_whole,
    "like": _is_text_or_none,
    "preprocessing": _is_text_or_none,
}
_SET: Mapping[str, Check] = {"status": _is_text, "seconds": lambda value: is_number(value, 0)}
_SET_MAY_LACK: Mapping[str, Check] = {"draws": _is_counts, "main": _is_text_or_none, "storage_floats": is_whole}
_HISTORY: Mapping[str, Check] = {
    "scalars": lambda value: isinstance(value, dict) and all(map(is_list_of(is_scalar), value.values())),
    "architectures": is_list_of(_is_text),
    "draws": is_list_of(is_list_of(is_whole)),
}


def student_fault(result: Any) -> str | None:  # noqa: ANN401
    """What a student's result holds that no student can have, as a phrase; None if it is sound."""
    return _fault(result, _STUDENT, _STUDENT_MAY_LACK)


def set_fault(result: Any) -> str | None:  # noqa: ANN401
    """What the result of a distilled set holds that no set can have, as a phrase; None if it is sound."""
    return _fault(result, _SET, _SET_MAY_LACK)


def history_fault(history: Any) -> str | None:  # noqa: ANN401
    """What the history of a trajectory holds that no trajectory can have, as a phrase; None if it is sound."""
    if wrong := _fault(history, _HISTORY, {}):
        return wrong
    known = len(history["architectures"])
    unknown = next((index for drawn in history["draws"] for index in drawn if index >= known), None)
    return None if unknown is None else f"it draws architecture {unknown} of {known}"


def _fault(values: Any, needed: Mapping[str, Check], may_lack: Mapping[str, Check]) -> str | None:  # noqa: ANN401
    if not isinstance(values, Mapping):
        return f"it is {_shown(values)}"
    for name, check in needed.items():
        value = values.get(name, _MISSING)
        if value is _MISSING:
            return f"it has no {name}"
        if not check(value):
            return f"{name} is {_shown(value)}"
    wrong = (name for name, check in may_lack.items() if name in values and not check(values[name]))
    return next((f"{name} is {_shown(values[name])}" for name in wrong), None)


def _shown(value: Any) -> str:  # noqa: ANN401
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list too deep
        return f"no {type(value).__name__} that could be shown"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
