"""The schedule of a distilled set: ordered step sizes, each with the images that its step trains on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import DataError


@dataclass(frozen=True)
class ScheduleStep:
    """One step of gradient descent: its learning rate, and the images that it owns.

    Attributes:
        step_size: the learning rate of the step, finite and above 0.
        images: indices of its training images, at least one and each once.

    Raises:
        DataError: a value is outside its range.
    """

    step_size: float
    images: tuple[int, ...]

    def __post_init__(self) -> None:
        size = self.step_size
        # bool is an int in Python, but True is no learning rate.
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
            raise DataError(f"a step of the schedule has the step size {size!r:.50}, which is not a learning rate")
        if not isinstance(self.images, tuple) or not all(type(index) is int and index >= 0 for index in self.images):
            raise DataError(f"a step of the schedule has the images {self.images!r:.50}, not a tuple of indices from 0")
        if not self.images:
            raise DataError("a step of the schedule owns no image: give each step at least one")
        if len(set(self.images)) < len(self.images):
            raise DataError("a step of the schedule names an image twice: give each of its images once")


@dataclass(frozen=True)
class Schedule:
    """The steps by which students train on a distilled set, in order (DD: Wang et al., 2018, section 3.4).

    Each is one step of gradient descent on all of its images at once. Steps may share images: a set whose steps are
    repeated, each time at a rate of its own, lists every repetition.

    Attributes:
        steps: at least one step, in the order in which students take them.

    Raises:
        DataError: there is no step.
    """

    steps: tuple[ScheduleStep, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or not all(isinstance(step, ScheduleStep) for step in self.steps):
            raise DataError("the steps of a schedule must be a tuple of ScheduleStep")
        if not self.steps:
            raise DataError("a schedule has at least one step: leave it out if there is none")

    def check(self, images: int) -> None:
        """Check that every index names one of so many training images.

        Raises:
            DataError: an index lies beyond them.
        """
        for number, step in enumerate(self.steps):
            if (last := max(step.images)) >= images:
                raise DataError(f"step {number} of the schedule owns image {last}, but there are {images} images")

    def renumbered(self, places: Sequence[int]) -> "Schedule":
        """Return the schedule of the same images after they were moved, image ``i`` to ``places[i]``."""
        moved = (tuple(places[index] for index in step.images) for step in self.steps)
        return Schedule(tuple(ScheduleStep(step.step_size, own) for step, own in zip(self.steps, moved, strict=True)))

    def as_json(self) -> list[dict[str, Any]]:
        """Return the steps as JSON, from which `schedule_from` makes the same schedule."""
        return [{"step_size": step.step_size, "images": list(step.images)} for step in self.steps]


def schedule_from(content: object) -> Schedule:
    """Return the schedule that JSON holds.

    Raises:
        DataError: it holds anything else.
    """
    if not isinstance(content, list) or not all(isinstance(step, Mapping) for step in content):
        raise DataError(f"its schedule is {content!r:.50}, not a list of steps")
    if any(step.keys() != {"step_size", "images"} or not isinstance(step["images"], list) for step in content):
        raise DataError("a step of its schedule has other fields than a step_size and a list of images")
    return Schedule(tuple(ScheduleStep(step["step_size"], tuple(step["images"])) for step in content))
