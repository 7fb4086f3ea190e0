"""Options of MTT, TESLA and FTD, and the published settings by data set and ipc that replace ``auto``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import pydantic

from harness import PixelOptions, Task, UsageError, Whiten, option
from mpdd_plugins.augmentations.dsa import check_strategy


class MTTOptions(PixelOptions):
    """Options of `MTT`."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="MTT")
    lr_img: float | None = option(  # type: ignore[assignment]
        None, "learning rate of the images; auto: by data set and ipc, else 1000", source="MTT", gt=0
    )
    lr_lr: float | None = option(
        None, "learning rate of the step size; auto: by data set and ipc, else 1e-5", source="MTT", ge=0
    )
    step_size: float | None = option(
        None, "the student's learning rate at the start; auto: by data set and ipc, else 0.01", source="MTT", gt=0
    )
    steps: int | None = option(
        None, "steps of the student, N; auto: by data set and ipc, else 20", source="MTT, syn_steps", ge=1
    )
    expert_epochs: int | None = option(
        None, "epochs of an expert that these steps are to match, M; auto: by data set and ipc, else 3",
        source="MTT", ge=1,
    )  # fmt: skip
    max_start_epoch: int | None = option(
        None, "an expert's epoch to start from is drawn below this; auto: by data set and ipc, else 25",
        source="MTT", ge=1,
    )  # fmt: skip
    batch: int | None = option(
        None, "synthetic images a step of the student; auto: by data set and ipc, else all", source="MTT, batch_syn",
        ge=1,
    )  # fmt: skip
    experts: int = option(100, "experts of each architecture that the pool draws", source="MTT, num_experts", ge=1)
    train_epochs: int = option(50, "epochs that an expert trains, each stored", source="MTT, buffer.py", ge=1)
    lr_expert: float = option(0.01, "learning rate of experts, constant, without momentum", source="MTT", gt=0)
    batch_expert: int = option(256, "real images a step of an expert", source="MTT", ge=1)
    augment: str | None = option(
        None, "DSA's operations while experts and student train, joined by +; none; auto: the data set's", source="MTT"
    )
    unroll: Literal["exact", "constant"] = option(
        "exact", "exact: through all steps; constant: TESLA's gradient, whose memory does not grow with the steps",
        source="TESLA",
    )  # fmt: skip
    statistics: Literal["batch", "expert"] = option(
        "batch", "batch norm of the student: the batch's own statistics, or the expert's at its start", source="MTT"
    )
    labels: Literal["hard", "expert"] = option(
        "hard", "expert: soft labels, the predictions of the expert at its target, new in each iteration",
        source="TESLA, teacher_label",
    )  # fmt: skip

    flat_radius: float = option(
        0.0, "above 0, experts are trained by GSAM with this rho, to where their loss is flat; FTD has 0.01",
        source="FTD", ge=0,
    )  # fmt: skip
    flat_gap: float | None = option(
        None, "alpha of GSAM; auto: 1 from 50 images a class on, else 0.3", source="FTD, table 7", ge=0
    )
    average: float = option(
        0.0, "share that a running mean of the images, which is then the result, retains at each iteration; FTD has "
        "0.9999, 0.9995, 0.999 at ipc 1, 10, 50. 0: the images themselves",
        source="FTD, ema_decay", ge=0, lt=1,
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(check_strategy)

    @pydantic.model_validator(mode="after")
    def _gap_needs_a_radius(self) -> Self:
        if self.flat_gap and not self.flat_radius:
            raise ValueError("flat_gap is an option of GSAM: set flat_radius too")
        return self

    def gap(self, ipc: int) -> float:
        """Return alpha of GSAM, 0 for experts of plain SGD."""
        published = 1.0 if ipc >= 50 else 0.3
        return (published if self.flat_gap is None else self.flat_gap) if self.flat_radius else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; FTD's only if they are set."""
        # MTT's cells have the keys that they had before there were FTD's options.
        of_ftd = {"flat_radius": 0.0, "flat_gap": None, "average": 0.0}
        return {key: value for key, value in super().as_json().items() if key not in of_ftd or value != of_ftd[key]}


@dataclass(frozen=True)
class Setting:
    """The options that may be left to ``auto``, each with its value."""

    steps: int
    expert_epochs: int
    max_start_epoch: int
    lr_img: float
    lr_lr: float
    step_size: float
    batch: int = 0
    """Synthetic images per step; 0 is all."""


SCRIPT = Setting(20, 3, 25, 1000, 1e-5, 0.01)
"""The defaults of MTT's script, for data sets and ipc without a published setting."""

PUBLISHED = {
    ("cifar10", 1): {True: Setting(50, 2, 2, 100, 1e-7, 0.01), False: Setting(50, 2, 5, 1000, 1e-7, 0.01)},
    ("cifar10", 10): {True: Setting(30, 2, 20, 100, 1e-5, 0.001), False: Setting(30, 2, 15, 1000, 1e-5, 0.01)},
    ("cifar10", 50): {False: Setting(30, 2, 40, 1000, 1e-5, 0.001), True: Setting(30, 2, 20, 100, 1e-5, 0.001)},
    ("cifar100", 1): {True: Setting(20, 3, 20, 1000, 1e-5, 0.01)},
    ("cifar100", 10): {False: Setting(20, 2, 20, 1000, 1e-5, 0.01)},
    ("cifar100", 50): {True: Setting(80, 2, 40, 1000, 1e-5, 0.01, 125)},
}
"""Published settings by data set and ipc, and by whether images are ZCA-whitened; the first is the paper's table's
(as listed by DC-BENCH and by the README of MTT's code)."""


def setting_for(task: Task, options: MTTOptions, per_class: int | None = None) -> Setting:
    """Return the value of every option: the user's, otherwise the published one, otherwise the script's.

    Published start and target epochs are reduced if experts train for fewer epochs.

    Args:
        task: the problem and the number of stored images.
        options: the user's options.
        per_class: training images per class; None for as many as are stored.

    Raises:
        UsageError: the user's start and target epochs do not fit into an expert's.
    """
    published = _published(task)
    fields = ("steps", "expert_epochs", "max_start_epoch", "lr_img", "lr_lr", "step_size", "batch")
    chosen = {name: value for name in fields if (value := getattr(options, name)) is not None}
    whole = replace(published, **chosen)
    # What the user sets is never changed: it fits or is an error. Published values are for 50 epochs, and are reduced.
    epochs = options.train_epochs
    matched = whole.expert_epochs if options.expert_epochs else min(whole.expert_epochs, epochs)
    # The start is drawn below max_start_epoch, so the last target is max_start_epoch - 1 + expert_epochs.
    latest = epochs - matched + 1
    start = whole.max_start_epoch if options.max_start_epoch else max(1, min(whole.max_start_epoch, latest))
    if matched > epochs or start > latest:
        fault = f"max_start_epoch={start} and expert_epochs={matched} reach beyond train_epochs={epochs}"
        raise UsageError(f"mtt: {fault}; at most max_start_epoch + expert_epochs - 1 = train_epochs is possible")
    every = (per_class or task.ipc) * len(task.problem.classes)
    batch = min(whole.batch or every, every)
    return replace(whole, expert_epochs=matched, max_start_epoch=start, batch=batch)


def departures(task: Task, options: MTTOptions) -> Sequence[str]:
    """Return how a run departs from the published setting, in lines for the notes beneath the table."""
    lines = []
    like = task.problem.like
    table = PUBLISHED.get((str(like), task.ipc))
    # The key of the first entry is whether the paper's images are whitened.
    if table and next(iter(table)) and not _whitened(task):
        remedy = "zca=true in --dataset does so"
        lines.append(f"mtt was published for {like} at ipc {task.ipc} on whitened images: {remedy}")
    published, chosen = _published(task), setting_for(task, options)
    for name in ("expert_epochs", "max_start_epoch"):
        if getattr(options, name) is None and getattr(chosen, name) != getattr(published, name):
            change = f"{name} is {getattr(chosen, name)} instead of {getattr(published, name)}"
            lines.append(f"mtt at ipc {task.ipc}: {change}, because experts train {options.train_epochs} epochs")
    return lines


def _published(task: Task) -> Setting:
    # Without a setting for images whitened like these, the paper's own setting is the nearest.
    table = PUBLISHED.get((str(task.problem.like), task.ipc))
    return table.get(_whitened(task), next(iter(table.values()))) if table else SCRIPT


def _whitened(task: Task) -> bool:
    return isinstance(task.problem.preprocessing, Whiten)
