"""On the diversity and realism of distilled dataset: Sun, Shi, Yu and Lin, CVPR 2024 (RDED).

No pixel is optimised: a set consists of crops of real images that a teacher, trained on the real data, classifies
best. Which labels students learn is the evaluator's: RDED's own are a teacher's for every view (``soft-labels``).

Departures from the published code. Images are stored as they are (it writes JPEG files). The crops of a class are
drawn for all candidates at once. Pixels are normalised as the problem says (it takes ImageNet's mean and deviation).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness import ArtifactRequest, DistilledSet, Method, Networks, Task
from mpdd_plugins.methods.decoupled.patches import PatchOptions, realistic_images
from mpdd_plugins.methods.decoupled.teachers import TeacherOptions, drawn_teachers, teacher_requests, too_few_teachers


class RDEDOptions(TeacherOptions, PatchOptions):
    """Options of `RDED`."""


class RDED(Method[RDEDOptions]):
    """Chooses crops of real images by a teacher's loss, and puts several into one image (RDED, section 4)."""

    Options = RDEDOptions
    iterates = False
    check_options = "candidates=6,crops=2,teacher-epochs=2"

    def __init__(self, task: Task, options: RDEDOptions) -> None:
        super().__init__(task, options)
        self.chosen = torch.empty(0)

    @property
    def draws(self) -> int:
        """Networks that a step draws from the pool."""
        return self.options.draws

    def pool_refusal(self, architectures: Sequence[str]) -> str | None:
        """Refuse a pool of which a step could not draw so many different teachers."""
        return too_few_teachers(self.options, architectures)

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Request the teachers of an architecture."""
        return () if architecture is None else teacher_requests(self.options, architecture)

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Choose the images of all classes."""
        task = self.task
        teachers = drawn_teachers(self.options, networks, task.problem)
        self.chosen = realistic_images(self.options, teachers, task.problem, task.ipc, task.streams)
        return {}

    def distilled(self) -> DistilledSet:
        """Return the images with the labels of their classes.

        Raises:
            RuntimeError: the step is not done yet.
        """
        if not len(self.chosen):
            raise RuntimeError("RDED chooses its images in its first step, which is not done yet")
        problem = self.task.problem
        labels = torch.arange(len(problem.classes)).repeat_interleave(self.task.ipc)
        return self.task.distilled(problem.preprocessing.apply(self.chosen), labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Return no tensors: nothing is learned."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Return the chosen images, as pixels in [0, 1]."""
        return {"chosen": self.chosen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the chosen images to those that `state` returned."""
        self.chosen = state["chosen"].to("cpu", copy=True)

    def work(self) -> float:
        """Return the passes of the crops through the teachers."""
        options = self.options
        return float(len(self.task.problem.classes) * options.candidates * options.crops * options.draws)
