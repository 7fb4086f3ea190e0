"""Requests: what a user asks for, in the words of the command line."""

import codecs
import os
import re
import reprlib
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError, did_you_mean
from harness.types.names import Name, read_labels, split_label, split_names
from harness.types.options import as_text

MOST_ITERATIONS = 1_000_000
"""Updates of one trajectory: each is looked at when a plan is made, for the networks that a pool can draw there."""
MOST_POINTS = 1_000
"""Points of one trajectory: each is planned together with all points before it."""
LARGEST_CONFIG = 2**20
"""Bytes of a config file."""
_DEEPEST_KEY = 50
"""Parts of a dotted key: the parser takes time by the square of them."""
# Possessive (``++``): a pattern that can backtrack would itself take time by the square of a hostile file.
_KEY_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_DEEP_KEY = re.compile(rf"""(?<![\w."'-])(?:{_KEY_PART}\.[ \t]*+){{{_DEEPEST_KEY}}}""")
_NAMES = ("method", "pool", "evaluator", "architecture", "dataset", "set", "track", "label", "metric")
"""Options of which a text may hold several, with commas between them."""
_LABELLED = ("method", "pool", "evaluator", "architecture", "dataset")
"""Options whose names may have labels: ``similar=main-similar[warmup=500]``."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of a run; an empty one or None stands for the data set's default.

    Attributes:
        method, pool, evaluator, architecture, dataset: names with options; ``all`` is every one of the kind.
        metric: metrics that are measured of every student beside the accuracy; they decide no other number, and no key
            depends on them.
        set: options by component, ``NAME.OPTION=VALUE``, wherever it is used.
        choose: a swept option, say ``kd.temperature``, whose value is chosen on a validation split; then the chosen
            value is distilled on the whole training set and scored on test.
        keep_hold_out: hold the validation split out of the sets that are scored on test, too.
        score_on: ``test``, or ``validation``: a part of the training set that is held out of the distillation too.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the distillation: ``fp32``, ``tf32`` (NVIDIA GPUs), ``bf16`` for the heavy part of a method, or
            ``auto``: the one of these that is quickest on this machine.
        compile: ``auto`` compiles networks that gain by it on a CPU and records steps on a GPU; ``never`` runs all as
            they are.
        checkpoint_every: seconds between the checkpoints of a trajectory; 0 is after every step.
        max_storage: GB that new artifacts (expert trajectories) may take; a plan that needs more is refused.
        max_cells: sets and students that a plan may have; one with more is refused before it is made.
        strict_plugins: a broken plugin is an error.
        executor: starts the work; None is the environment's ``DDBENCH_EXECUTOR``, else ``local``.
        timeout: seconds that a cell may take before it is ended and failed.
        retry_failed: make failed cells once more.
        label: names of arms for tables and pages, ``LABEL=NAME``; they decide no number, and no key depends on them.
        track: trackers that follow the work; they decide no number, and no key depends on them.
        detach: order the work and do not wait for it.
    """

    method: tuple[str, ...] = ()
    pool: tuple[str, ...] = ("single",)
    evaluator: tuple[str, ...] = ()
    architecture: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ("digits",)
    set: tuple[str, ...] = ()
    ipc: tuple[int, ...] = ()
    iterations: tuple[int, ...] = ()
    distillations: int | None = None
    students: int | None = None
    seed: int = 0
    score_on: Literal["test", "validation"] = "test"
    choose: str | None = None
    keep_hold_out: bool = False
    store: Path = Path("ddbench-store")
    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16", "auto"] = "fp32"
    compile: Literal["auto", "never"] = "auto"
    rerun_stale: bool = False
    checkpoint_every: float = 60.0
    max_storage: float = 20.0
    max_cells: int = 100_000
    strict_plugins: bool = False
    executor: str | None = None
    timeout: float | None = None
    retry_failed: bool = False
    detach: bool = False
    track: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    metric: tuple[str, ...] = ()

    @property
    def starter(self) -> str:
        """The executor's name: as asked for, or as the environment says."""
        return self.executor or os.environ.get("DDBENCH_EXECUTOR") or "local"

    def __post_init__(self) -> None:
        read_labels(self.label)
        for name in ("distillations", "students"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, but at least 1 is needed")
        if any(ipc < 1 for ipc in self.ipc):
            raise UsageError(f"ipc is {min(self.ipc)}, but at least 1 image per class is needed")
        if any(iterations < 0 for iterations in self.iterations):
            raise UsageError(f"iterations is {min(self.iterations)}, but it counts from 0")
        if any(iterations > MOST_ITERATIONS for iterations in self.iterations):
            raise UsageError(f"iterations is {max(self.iterations)}, but at most {MOST_ITERATIONS:,} are possible")
        if len(set(self.iterations)) > MOST_POINTS:
            points = len(set(self.iterations))
            raise UsageError(f"iterations has {points:,} points, but a trajectory has at most {MOST_POINTS:,}")
        if self.max_cells < 1:
            raise UsageError(f"max_cells is {self.max_cells}, but at least 1 is needed")
        if not self.max_storage >= 0:
            raise UsageError(f"max_storage is {self.max_storage}, but it counts GB from 0")
        if not self.checkpoint_every >= 0:
            raise UsageError(f"checkpoint_every is {self.checkpoint_every}, but it counts seconds from 0")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"timeout is {self.timeout:g}, but it counts seconds from above 0")
        if self.choose and self.detach:
            raise UsageError("--choose needs the scores before it can go on: leave out --detach")
        if self.choose and self.score_on == "validation":
            raise UsageError("--choose scores its choice on test: leave out --score-on validation")
        if self.keep_hold_out and self.score_on == "validation":
            raise UsageError("--score-on validation holds the split out by itself: leave out --keep-hold-out")


def request_from(values: Mapping[str, Any], where: str = "run()") -> Request:
    """Return a request made of keyword arguments or a config file's table; a single value stands for a list of one.

    The executor may be a table of its ``name`` and its options, whose values need no quotes for commas and brackets.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
    """
    known = {field.name: field for field in fields(Request)}
    converted: dict[str, Any] = {}
    for raw_key, value in values.items():
        key = raw_key.replace("-", "_")
        if key == "labels" and isinstance(value, Mapping):  # the table of a config file
            continue
        if key not in known:
            raise UsageError(f"{where}: there is no option {raw_key!r}: {did_you_mean(key, known)}")
        if key == "executor" and isinstance(value, Mapping):
            value = _executor_name(value, where)
        if value is not None:
            converted[key] = _convert(key, str(known[key].type), value, where)
    table = values.get("labels")
    labels = [f"{label}={name}" for label, name in table.items()] if isinstance(table, Mapping) else []
    return Request(**_with_labels(converted, labels))


def _with_labels(options: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
    """Return the options with all labels, and ``more``, apart from the names that they stand for."""
    labels, names = [*more, *options.get("label", ())], {}
    for option in _LABELLED:
        pairs = [split_label(text) for text in options.get(option, ())]
        names[option] = tuple(name for _, name in pairs)
        labels += [f"{label}={name}" for label, name in pairs if label]
    present = {option: texts for option, texts in names.items() if option in options}
    return {**options, **present, **({"label": tuple(labels)} if labels else {})}


def read_config(path: Path) -> dict[str, Any]:
    """Read the table of a TOML file; its keys are the long options.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return tomllib.loads(_config_text(path))
    except (OSError, RecursionError, ValueError) as error:  # a ValueError is TOMLDecodeError, or a number too long
        raise UsageError(f"--config {path} cannot be read: {_reason(error)}") from None


def _config_text(path: Path) -> str:
    """Return the text of a config file.

    Raises:
        ValueError: it is no plain file, too large or no text, or its keys have too many parts.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe might never end, and a folder has no text
        raise ValueError("it is not a plain file")
    with path.open("rb") as file:
        content = file.read(LARGEST_CONFIG + 1)  # not by its size, which a file in /proc gives as 0
    if len(content) > LARGEST_CONFIG:
        raise ValueError(f"it is larger than {LARGEST_CONFIG // 2**20} MB")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is encoded in UTF-16: save it as UTF-8")
    text = content.decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
    if _DEEP_KEY.search(text):
        raise ValueError(f"a key has more than {_DEEPEST_KEY} parts")
    return text


def _reason(error: OSError | RecursionError | ValueError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return "its brackets nest too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not encoded in UTF-8 (byte {error.start + 1}): save it as UTF-8"
    if isinstance(error, tomllib.TOMLDecodeError):
        return str(error)
    return "a number in it has too many digits" if "integer string conversion" in str(error) else str(error)


def _convert(key: str, kind: str, value: Any, where: str) -> Any:  # noqa: ANN401
    several = kind.startswith("tuple")
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not several and isinstance(value, list | tuple):
        raise UsageError(f"{where}: {key} takes one value, not {reprlib.repr(value)}")
    for single in values:
        types, type_name = _type_of(kind)
        # To Python, True is an int: `seed = true` in a config file would be seed 1.
        if not isinstance(single, types) or (isinstance(single, bool) and bool not in types):
            raise UsageError(f"{where}: {key} = {reprlib.repr(single)} is not {type_name}")
        # The system ends a path at this character: without this check, opening it raises a bare ValueError much later.
        if isinstance(single, str | Path) and "\0" in str(single):
            raise UsageError(f"{where}: {key} = {single!r} has a null character, which no name or path has")
    choices = {
        "score_on": ("test", "validation"),
        "precision": ("fp32", "tf32", "bf16", "auto"),
        "compile": ("auto", "never"),
    }
    allowed = choices.get(key)
    if allowed and value not in allowed:
        raise UsageError(f"{where}: {key} = {value!r}: use {' or '.join(allowed)}")
    if several:
        return split_names(list(map(str, values))) if key in _NAMES else tuple(values)
    return Path(value) if key == "store" else value


def _executor_name(table: Mapping[str, Any], where: str) -> str:
    """Return an executor with its options as it is typed: ``slurm[time=90,sbatch.gres=gpu:2]``."""
    if not isinstance(table.get("name"), str):
        raise UsageError(f'{where}: the table executor has no name: write name = "slurm" into it')
    options: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            options |= {f"{key}.{entry}": part for entry, part in value.items()}
        elif key != "name":
            options[key] = value
    for key, value in options.items():
        if not isinstance(value, str | int | float):
            raise UsageError(f"{where}: executor.{key} = {reprlib.repr(value)} is neither text, number nor true")
        if value == "":
            raise UsageError(f"{where}: executor.{key} is empty: leave it out")
    return str(Name(table["name"], tuple((key, as_text(value)) for key, value in options.items())))


def _type_of(kind: str) -> tuple[tuple[type, ...], str]:
    """Return the types that an annotation admits, and their name for people."""
    if "int" in kind:
        return (int,), "a whole number"
    if "float" in kind:
        return (int, float), "a number"
    return ((bool,), "true or false") if "bool" in kind else ((str, Path), "of its type")
