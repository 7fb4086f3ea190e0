"""Students trained on the stored answers of a teacher to every view that they see (fast knowledge distillation).

A teacher that was trained on the real data labels the set once for each epoch, each time cropped, mirrored and mixed
anew (Shen and Xing, ECCV 2022; SRe2L's relabel stage). What a user of the set needs is then the images and, for each
epoch, the parameters of its views and the labels in half precision: they count as storage, and usually exceed the
images by far. All students see the same views in the same order, as they share the stored labels.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic
import torch
from torch import Tensor
from torch.nn import functional

from harness import (
    Architecture,
    Artifact,
    Batch,
    DistilledSet,
    Evaluator,
    LabelledAugment,
    Network,
    Problem,
    RealNetwork,
    Recipe,
    Streams,
    StudentRecord,
    option,
    train_students,
    trained_network,
)
from mpdd_plugins.augmentations.views import View, draw_view, parameter_bits
from mpdd_plugins.evaluators.decoupled_recipes import DECOUPLED, MEANING, TEACHER_MODES, TEMPERATURES
from mpdd_plugins.evaluators.protocol import TrainingOptions
from mpdd_plugins.evaluators.protocol_overview import protocol_rows
from mpdd_plugins.methods.real_teacher import (
    ARCHITECTURE,
    EPOCHS,
    LR,
    by_batch_statistics,
    check_batch_statistics,
    real_teacher,
)

OWN: Mapping[str, Mapping[str, Any]] = {
    name: {"temperature": TEMPERATURES[name], "teacher-mode": TEACHER_MODES[name]} for name in DECOUPLED
}
_ORDER_BITS = 32
"""Bits of the position of an image in the order of an epoch."""


class SoftLabelsOptions(TrainingOptions):
    """Options of `SoftLabels`."""

    protocol: Literal["rded", "sre2l"] = option(
        "rded", f"{MEANING}. Here the teacher's answers are stored", source="SRe2L, relabel_cifar.py; RDED, validation"
    )
    temperature: float = option(
        TEMPERATURES["rded"],
        "tau, by which both logits are divided before the divergence, which is not rescaled. The default is 30 under "
        "sre2l",
        source="RDED; SRe2L",
        gt=0,
    )
    alpha: float = option(
        1.0, "weight of the divergence; the rest is the cross-entropy with the set's own labels", source="RDED", ge=0,
        le=1,
    )  # fmt: skip
    teacher: str = option(
        ARCHITECTURE, "architecture of the teacher on the real data", source="RDED: conv3 or ResNet-18"
    )
    teacher_epochs: int = option(
        EPOCHS, "its epochs, with a cosine to zero", source="SRe2L, squeeze of CIFAR", alias="teacher-epochs", ge=1
    )
    teacher_lr: float = option(
        LR, "its learning rate at the start", source="SRe2L, squeeze of CIFAR", alias="teacher-lr", gt=0
    )
    teacher_mode: Literal["eval", "train"] = option(
        "eval",
        "its mode while it labels; in train, batch norm takes the statistics of each batch. The default is train under "
        "sre2l",
        source="RDED, validation; SRe2L, relabel_cifar.py; SRe2L++",
        alias="teacher-mode",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_teachers(cls, values: Any) -> Any:  # noqa: ANN401
        """Fill in the options that the protocol has in place of the defaults, those of rded included."""
        if not isinstance(values, dict):
            return values
        protocol = str(values.get("protocol", "rded"))
        return {"protocol": protocol, **OWN.get(protocol, {}), **values}

    def defaults(self) -> dict[str, Any]:
        """Return the options' defaults under this protocol."""
        own = {name.replace("-", "_"): value for name, value in OWN.get(self.protocol, {}).items()}
        return {**super().defaults(), **own}


class SoftLabels(Evaluator[SoftLabelsOptions]):
    """Trains students on stored soft labels of every epoch, which a teacher trained on the real data gave.

    The loss is KL(teacher || student) of the logits divided by tau, the mean over images, without the factor tau^2.
    """

    Options = SoftLabelsOptions
    version = 2  # since which only bits that are needed count as storage
    check_options = "epochs=3,teacher=convnet[width=4,norm=batch],teacher-epochs=1"

    @property
    def uses_real_data(self) -> bool:
        """Whether the teacher is trained on the real data: always."""
        return True

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the protocols, with those of the teacher."""
        of_teacher = ("teacher", "teacher_epochs", "teacher_lr", "teacher_mode")
        return protocol_rows(SoftLabelsOptions, ("temperature", "alpha", *of_teacher))

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``soft-labels rded v1 + epochs=5``."""
        return f"soft-labels {self.options.version_name()}{self.options.departures(problem, architecture)}"

    def artifact(self, student: int) -> RealNetwork:
        """Request the teacher, the same for all students."""
        options = self.options
        return real_teacher(options.teacher, epochs=options.teacher_epochs, lr=options.teacher_lr)

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, each with the bits of the labels that it needs beside the set."""
        options = self.options
        operations = options.augmentation(problem, architecture)
        teacher = trained_network(artifacts[students[0]], problem)
        images = len(distilled.training_data()[0])
        if options.teacher_mode == "train":
            batch = options.recipe(operations != "none", images, len(problem.classes)).batch
            check_batch_statistics(teacher, problem, images, batch)
            teacher = by_batch_statistics(teacher)
        labels = StoredLabels(teacher, operations, len(problem.classes))
        shared = SharedViews(streams.seed, streams.distillation)
        lesson = options.lesson(distilled, problem, architecture, shared, lambda student: self._loss)
        lesson = dataclasses.replace(lesson, augment=labels)
        bits = (
            0
            if options.alpha == 0
            else label_bits(
                images, lesson.recipe, len(problem.classes), operations, by_batch=options.teacher_mode == "train"
            )
        )
        for record in train_students(lesson, problem, architecture, students):
            yield dataclasses.replace(record, extra_bits=bits)

    def _loss(self, batch: Batch) -> Tensor:
        """Return the loss of a step; the labels hold the teacher's logits and the set's class weights side by side."""
        options, classes = self.options, batch.logits.shape[1]
        teacher, own = batch.labels[:, :classes], batch.labels[:, classes:]
        y_s, y_t = (functional.log_softmax(logits / options.temperature, dim=1) for logits in (batch.logits, teacher))
        divergence = functional.kl_div(y_s, y_t, reduction="batchmean", log_target=True)
        if options.alpha == 1:
            return divergence
        return options.alpha * divergence + (1 - options.alpha) * functional.cross_entropy(batch.logits, own)

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student, with those of the teacher that labels each of its views."""
        trained = self.options.student_work(problem, images) - len(problem.score)
        return trained * 4 / 3 + len(problem.score)


class EpochStream(torch.Generator):
    """The random stream of an epoch's views, which counts the steps that have drawn from it."""

    epoch: int
    step: int = 0


class SharedViews(Streams):
    """Streams by which students of all indices see the same batches and views; initial weights are their own."""

    def generator(self, role: str, *index: int) -> torch.Generator:
        """Return the stream of a role, without the student's index if the stored labels depend on it."""
        if not role.endswith(("-order", "-augment")):
            return super().generator(role, *index)
        epoch = index[0]
        stream = EpochStream()
        stream.manual_seed(self.number(role, epoch, 0))
        stream.epoch = epoch
        return stream


class StoredLabels(LabelledAugment):
    """Stores the views of a training and what the teacher says of each; every student after the first reads them.

    Args:
        teacher: a trained network.
        operations: of the views, as `mpdd_plugins.augmentations.views.check_strategy` returns them.
        classes: number of classes.
    """

    def __init__(self, teacher: Network, operations: str, classes: int) -> None:
        self.teacher, self.operations, self.classes = teacher, operations, classes
        self._stored: dict[tuple[int, int], tuple[View, Tensor]] = {}

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a view, and for each image the teacher's logits and the class weights, side by side."""
        view, logits = self._entry(images, generator)
        seen = view.apply(images)
        weights = view.weights(labels, images.shape, self.classes).to(images.dtype)
        return seen, torch.cat([logits.to(images.device, images.dtype), weights], dim=1)

    def _entry(self, images: Tensor, generator: torch.Generator) -> tuple[View, Tensor]:
        """Return the stored view of a step with its labels (n, classes) in half precision."""
        assert isinstance(generator, EpochStream), "students of stored labels draw from `SharedViews`"
        place = generator.epoch, generator.step
        generator.step += 1
        height, width = images.shape[2:]
        # Drawn even if it is stored: the next step of this student may be the first to store its own.
        view = draw_view(self.operations, len(images), (height, width), generator)
        if place not in self._stored:
            with torch.no_grad():
                self._stored[place] = view, self.teacher(view.apply(images)).to(torch.float16).cpu()
        return self._stored[place]


def label_bits(images: int, recipe: Recipe, classes: int, operations: str, *, by_batch: bool = False) -> int:
    """Return the bits of the labels that students need, and of the parameters of the views that these belong to.

    An image of an epoch has a label of 16 bits a class and its place in the order with 32 bits, and what
    `parameter_bits` says of its view. A teacher that says the same in every epoch labels each image once.

    Args:
        images: images of the set.
        recipe: the students' epochs and batches.
        classes: number of classes.
        operations: of the views, as `mpdd_plugins.augmentations.views.check_strategy` returns them.
        by_batch: whether what the teacher says of an image depends on the batch.
    """
    if operations == "none" and not by_batch:
        return images * 16 * classes
    steps = [min(recipe.batch, images - first) for first in range(0, images, recipe.batch)]
    views = sum(parameter_bits(operations, size) for size in steps)
    return recipe.epochs * (images * (16 * classes + _ORDER_BITS) + views)
