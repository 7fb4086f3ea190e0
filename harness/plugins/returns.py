"""Checks that what a plugin's code returns is what its contract promises, in type and in values.

Every check names the code and the fault, and returns the value as plain Python or torch: an object of the plugin's
never enters a record, a key or a checkpoint.
"""

import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.errors import DataError, PluginError
from harness.types.artifact import Artifact, ArtifactRequest, SharedRequest
from harness.types.dataset import RunDefaults, Traits
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord
from harness.types.problem import Problem

T = TypeVar("T")
_LONGEST_NAME, _LONGEST_TEXT, _SHOWN = 200, 2000, 80
_METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(\[[^\[\]]*(\[.*\])?[^\[\]]*\](\.[A-Za-z0-9_.-]+)?)?")
"""A word; of a run's metric, its name with options, and a part of it."""
_STORABLE = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip
"""The types of tensors that a safetensors file can hold."""


def call_of(component: object, name: str) -> str:
    """Return the words for a method of a component, as the checks of this module use them in messages."""
    return f"{getattr(component, 'ddbench_name', type(component).__name__)}: {name}()"


def returned(value: Any, wanted: type[T], what: str) -> T:  # noqa: ANN401
    """Return ``value`` if it is an instance of ``wanted``.

    Args:
        value: what the code returned.
        wanted: a class.
        what: the code and its method, for the message.

    Raises:
        PluginError: it is something else.
    """
    if not isinstance(value, wanted):
        article = "an" if wanted.__name__[0] in "AEIOU" else "a"
        raise PluginError(f"{what} returned {type(value).__name__}, but promises {article} {wanted.__name__}")
    return value


def all_of(value: Any, wanted: type[T], count: int, what: str) -> list[T]:  # noqa: ANN401
    """Return a list of exactly ``count`` instances of a class.

    Raises:
        PluginError: it is something else.
    """
    listed: Iterable[Any] = returned(value, Iterable, what)  # type: ignore[type-abstract]
    parts = [returned(part, wanted, what) for part in listed]
    if len(parts) != count:
        raise PluginError(f"{what} returned {len(parts)} of what it promises {count} of")
    return parts


def number(
    value: Any,  # noqa: ANN401
    what: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    finite: bool = True,
) -> float:
    """Return a real number as a float (of Python, NumPy, or a tensor of one value); no truth value, no text.

    Args:
        value: what the code returned.
        what: the code and the meaning of the number, for the message.
        least: the inclusive lower limit.
        most: the inclusive upper limit.
        above: the exclusive lower limit.
        finite: whether NaN and infinity are refused; NaN is within no limits.

    Raises:
        PluginError: it is something else, or out of range.
    """
    plain = _plain_number(value)
    if plain is None:
        raise PluginError(f"{what} is {_shown(value)}, which is not a number")
    if finite and not math.isfinite(plain):
        raise PluginError(f"{what} is {plain:g}, which is not finite")
    if plain < least or plain > most or (above > -math.inf and plain <= above):
        raise PluginError(f"{what} is {plain:g}, which is not {_range(least, most, above)}")
    return plain


def whole_number(value: Any, what: str, least: int = 0) -> int:  # noqa: ANN401
    """Return a whole number of at least ``least`` as an int.

    Raises:
        PluginError: it is something else.
    """
    # bool is an Integral in Python, but True is not a count.
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise PluginError(f"{what} is {_shown(value)}, which is not a whole number from {least} on")
    return int(value)


def text(value: Any, what: str, longest: int = _LONGEST_NAME) -> str:  # noqa: ANN401
    """Return a printable text of one line.

    Raises:
        PluginError: it is something else.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > longest:
        raise PluginError(f"{what} is {_shown(value)}, which is not a line of 1 to {longest} printable characters")
    return str(value)


def plain_json(value: Any, what: str) -> Any:  # noqa: ANN401
    """Return a copy of ``value`` as JSON holds it.

    Raises:
        PluginError: JSON cannot hold it, as NaN.
    """
    try:
        # A round trip, since JSON turns tuples and integer keys into something else: what is compared later must be
        # what is stored.
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginError(f"{what} is {_shown(value)}, which JSON does not hold: {error}") from error


def scalars(value: Any, what: str) -> dict[str, float]:  # noqa: ANN401
    """Return numbers by name, such as a step logs; they need not be finite, as a lost loss is a result too.

    Raises:
        PluginError: it is not a mapping of names to numbers.
    """
    logged: Mapping[Any, Any] = returned(value, Mapping, what)  # type: ignore[type-abstract]
    names = [text(name, f"{what}: the name of a scalar") for name in logged]
    return {name: number(logged[name], f"{what}: the scalar {name!r}", finite=False) for name in names}


def tensors(value: Any, what: str) -> dict[str, Tensor]:  # noqa: ANN401
    """Return tensors by name that a file can hold.

    Raises:
        PluginError: it is not a mapping of names to such tensors.
    """
    named_tensors: Mapping[Any, Any] = returned(value, Mapping, what)  # type: ignore[type-abstract]
    for name, tensor in named_tensors.items():
        named = f"{what}: {text(name, f'{what}: the name of a tensor')!r}"
        if not isinstance(tensor, Tensor):
            raise PluginError(f"{named} is {_shown(tensor)}, which is not a tensor")
        if tensor.layout != torch.strided or tensor.dtype not in _STORABLE or tensor.is_meta:
            raise PluginError(f"{named} is a tensor that no file holds: {tensor.dtype}, {tensor.layout}")
    return dict(named_tensors)


def probabilities(value: Any, what: str) -> dict[str, float]:  # noqa: ANN401
    """Return probabilities by name; their sum is checked when equal names are merged.

    Raises:
        PluginError: it is not a mapping of names to numbers from 0 to 1.
    """
    shares: Mapping[Any, Any] = returned(value, Mapping, what)  # type: ignore[type-abstract]
    names = [text(name, f"{what}: the name of an architecture", _LONGEST_TEXT) for name in shares]
    return {name: _probability(shares[name], name, what) for name in names}


def _probability(value: Any, name: str, what: str) -> float:  # noqa: ANN401
    plain = None if isinstance(value, Tensor) else _plain_number(value)
    if plain is None or not 0 <= plain < math.inf:
        raise PluginError(f"{what.removesuffix('.distribution()')} gives {name!r} the probability {_shown(value)}")
    return plain


def request(value: Any, what: str) -> ArtifactRequest:  # noqa: ANN401
    """Return a request for an artifact, with its identity as JSON holds it.

    Raises:
        PluginError: it is something else, or a value in it cannot be used.
    """
    asked = returned(value, ArtifactRequest, what)
    architecture = asked.architecture
    identity = plain_json(asked.identity, f"{what}: identity")
    if isinstance(asked, SharedRequest):  # a class of the harness, which has checked its own values
        return asked
    return ArtifactRequest(
        kind=text(asked.kind, f"{what}: kind"),
        index=whole_number(asked.index, f"{what}: index"),
        architecture=None if architecture is None else text(architecture, f"{what}: architecture", _LONGEST_TEXT),
        identity=returned(identity, dict, f"{what}: identity"),
        copies=whole_number(asked.copies, f"{what}: copies", 0),
        work=work(asked.work, f"{what}: work"),
    )


def requests(value: Any, what: str) -> list[ArtifactRequest]:  # noqa: ANN401
    """Return requests for artifacts, each checked as by `request`.

    Raises:
        PluginError: it is something else.
    """
    listed: Iterable[Any] = returned(value, Iterable, what)  # type: ignore[type-abstract]
    return [request(asked, what) for asked in listed]


def artifact(value: Any, what: str) -> Artifact:  # noqa: ANN401
    """Return an artifact whose tensors a file can hold, and whose scalars are numbers.

    Raises:
        PluginError: it is something else.
    """
    plain = returned(value, Artifact, what)
    return Artifact(tensors(plain.tensors, f"{what}: tensors"), scalars(plain.scalars, f"{what}: scalars"))


def student_record(value: Any, student: int, what: str) -> StudentRecord:  # noqa: ANN401
    """Return the record of a student, with plain numbers.

    Args:
        value: what the code returned.
        student: the index that was asked for.
        what: the code and its method.

    Raises:
        PluginError: it is of another student, or a value in it cannot be used.
    """
    record = returned(value, StudentRecord, what)
    where = f"{what}: student {student}"
    if whole_number(record.student, f"{where}: its index") != student:
        raise PluginError(f"{what} gave student {record.student} out of turn: it was asked for {student}")
    if not isinstance(record.collapsed, bool):
        raise PluginError(f"{where}: collapsed is {_shown(record.collapsed)}, which is neither True nor False")
    # A student that collapsed may have lost its loss; for any other, NaN means that the evaluator is wrong.
    loss = number(record.loss, f"{where}: the loss", finite=not record.collapsed)
    listed = returned(record.losses, Iterable, f"{where}: losses")  # type: ignore[type-abstract]
    return StudentRecord(
        student=student,
        accuracy=number(record.accuracy, f"{where}: the accuracy", least=0, most=1),
        loss=loss,
        epochs=whole_number(record.epochs, f"{where}: epochs"),
        seconds=number(record.seconds, f"{where}: seconds", least=0),
        peak_memory=whole_number(record.peak_memory, f"{where}: peak_memory"),
        collapsed=record.collapsed,
        losses=tuple(number(part, f"{where}: one of the losses", finite=False) for part in listed),
        abreast=whole_number(record.abreast, f"{where}: abreast", 1),
        extra_bits=whole_number(record.extra_bits, f"{where}: extra_bits"),
        metrics=metrics(record.metrics, f"{where}: metrics"),
    )


def metrics(value: Any, what: str) -> dict[str, float]:  # noqa: ANN401
    """Return a student's measurements by name; they need not be finite, as the loss of a collapsed student.

    Raises:
        PluginError: it is not a mapping of such names to numbers, or it claims the name of the accuracy.
    """
    measured = scalars(value, what)
    for name in measured:
        # Names are typed on the command line (--metric) and stand as headings, so that they have to be plain words.
        if not _METRIC.fullmatch(name):
            raise PluginError(f"{what}: {name!r} cannot name a metric: use a letter, then letters, digits and . _ -")
        if name == "accuracy":
            raise PluginError(f"{what}: 'accuracy' is a field of the record already: use another name")
    return measured


def usable_set(value: Any, problem: Problem, what: str) -> DistilledSet:  # noqa: ANN401
    """Return a distilled set of a problem, if students can be trained on it and a file can hold it.

    The check is made here once, and not by every student that is trained on the set.

    Args:
        value: what the method returned.
        problem: the problem that the method received.
        what: the code and its method.

    Raises:
        PluginError: it is something else.
    """
    distilled = returned(value, DistilledSet, what)
    for tensor, name in ((distilled.images, "images"), (distilled.labels, "labels")):
        if isinstance(tensor, Tensor) and (tensor.device.type != "cpu" or tensor.layout != torch.strided):
            raise PluginError(f"{what} gives {name} on {tensor.device}: use task.distilled(), which copies to the CPU")
    try:
        distilled.check()
    except DataError as error:
        raise PluginError(f"{what} gives a set that cannot be used: {error}") from None
    if distilled.images.dtype != torch.float32 or distilled.labels.dtype not in (torch.int64, torch.float32):
        dtypes = f"images of {distilled.images.dtype} and labels of {distilled.labels.dtype}"
        raise PluginError(
            f"{what} gives {dtypes}, not float32 images and labels of int64 (indices) or float32 (weights)"
        )
    if misfit := distilled.misfit(problem):
        raise PluginError(f"{what} gives a set of another problem: {misfit}")
    return distilled


def check_count(distilled: DistilledSet, ipc: int | None, what: str) -> None:
    """Compare the number of images, packed ones as they are stored, with the number that was asked for.

    Args:
        distilled: what the method returned.
        ipc: the number of images per class that was asked for; None if the method decides.
        what: the code and its method.

    Raises:
        PluginError: there are more or fewer.
    """
    # Stored images count, packed ones once: the budget is what is stored, not what is decoded.
    if ipc is not None and len(distilled.images) != ipc * len(distilled.classes):
        wanted = f"{ipc} for each of {len(distilled.classes)} classes were asked for"
        raise PluginError(f"{what} gives {len(distilled.images)} images, but {wanted}")


def traits(value: Any, what: str) -> Traits:  # noqa: ANN401
    """Return the traits of a data set, if a run can use its defaults.

    Raises:
        PluginError: it is something else, or a value in it cannot be used.
    """
    known = returned(value, Traits, what)
    defaults = returned(known.defaults, RunDefaults, f"{what}: defaults")
    for name, least in (("ipc", 1), ("iterations", 0)):
        for count in returned(getattr(defaults, name), tuple, f"{what}: {name}"):
            whole_number(count, f"{what}: {name}", least)
    for name in ("students", "distillations"):
        whole_number(getattr(defaults, name), f"{what}: {name}", 1)
    for name in ("evaluators", "architectures"):
        for component in returned(getattr(defaults, name), tuple, f"{what}: {name}"):
            text(component, f"{what}: {name}", _LONGEST_TEXT)
    returned(plain_json(defaults.options, f"{what}: options"), dict, f"{what}: options")
    for name in ("normalize", "like", "licence"):
        if getattr(known, name) is not None:
            text(getattr(known, name), f"{what}: {name}")
    returned(plain_json(dict(known.augmentations), f"{what}: augmentations"), dict, f"{what}: augmentations")
    return known


def lines(value: Any, what: str) -> list[str]:  # noqa: ANN401
    """Return notes for people, a line each.

    Raises:
        PluginError: it is something else.
    """
    if isinstance(value, str):
        raise PluginError(f"{what} returned str, but promises a list of them")
    listed: Iterable[Any] = returned(value, Iterable, what)  # type: ignore[type-abstract]
    return [text(line, what, _LONGEST_TEXT) for line in listed]


def work(value: Any, what: str) -> float | None:  # noqa: ANN401
    """Return the amount of computation; None if it is unknown.

    Raises:
        PluginError: it is something else.
    """
    return None if value is None else number(value, what, least=0)


def _plain_number(value: Any) -> float | None:  # noqa: ANN401
    """Return the float of a real number; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.dtype != torch.bool and not value.is_complex():
        value = value.item()
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _range(least: float, most: float, above: float) -> str:
    if above > -math.inf:
        return f"above {above:g}"
    if most < math.inf:
        return f"from {least:g} to {most:g}"
    return f"{least:g} or more"


def _shown(value: Any) -> str:  # noqa: ANN401
    """Return a value for a message, in a few printable characters."""
    try:
        shown = ascii(value) if not isinstance(value, Tensor) else f"a tensor of shape {tuple(value.shape)}"
    except BaseException:  # the value's own code
        shown = f"a {type(value).__name__}"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
