"""DropPath: students of large networks that are trained so as not to overfit a small set (Zhong and Liu, 2023).

"Towards mitigating architecture overfitting on distilled datasets" (arXiv 2309.04195): paths of the student drop while
it trains (`drop_paths`), with keep rates and learning rates in phases (`restarts`), it learns from a small teacher that
is trained on the same set too, by Lion, and each batch is augmented by two operations. Every part is an option.

Two defects of the released code are not inherited: there the keep rate never reaches the paths, so that none ever
drops, and the restarts' factors never act. ``preset=as-released`` has both. Accuracies are those after the last epoch,
where the code reports the best of all checkpoints on the test images; and networks keep the norm that they are typed
with, where the code has batch norm. The length of the teacher's training is our choice; the paper does not say it.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pydantic
import torch
from torch import Tensor, nn

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    Batch,
    DistilledSet,
    Evaluator,
    Lesson,
    Loss,
    Options,
    Phase,
    Problem,
    Recipe,
    Streams,
    StudentRecord,
    cross_entropy,
    option,
    train_each,
    train_in_phases,
    train_network,
    train_students,
)
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.augmentations.several import several_augmentation
from mpdd_plugins.evaluators.drop_paths import PathArchitecture, PathNetwork, why_no_paths, why_no_shortcuts
from mpdd_plugins.evaluators.kd import distillation_loss, own_teacher
from mpdd_plugins.evaluators.protocol_overview import preset_rows
from mpdd_plugins.evaluators.restarts import RestartRecipe, keep_rate

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "as-released": {"keep-least": 1.0, "keep-last": 1.0, "fall": 1.0, "last-peak": 1.0},
    "short": {"epochs": 400, "lr": 5e-4, "teacher-epochs": 300},
}
"""Options that a preset has in place of the defaults."""


class DropPathOptions(Options):
    """Options of `DropPath`."""

    preset: Literal["paper", "as-released", "short"] = option(
        "paper",
        "paper: as published; as-released: with the two defects of the code, so that no path ever drops and the "
        "restarts' factors never act; short: a tenth of the epochs at ten times the rate, and 300 for the teacher",
        source="arXiv 2309.04195; its code; own choice",
    )
    drop: bool = option(
        True, "paths drop, and plain networks get virtual shortcuts", source="arXiv 2309.04195, DropPath"
    )
    keep_least: float = option(
        0.5, "least keep rate of the first six periods, to which it falls from 1 by equal steps",
        source="arXiv 2309.04195; 0.35 for ResNet-50", alias="keep-least", gt=0, le=1,
    )  # fmt: skip
    keep_last: float = option(
        0.8, "keep rate of the last two periods", source="arXiv 2309.04195", alias="keep-last", gt=0, le=1
    )
    improved: bool = option(
        True, "shortcuts of residual blocks that reduce the size are max pooling, a 1x1 convolution and a norm",
        source="arXiv 2309.04195, improved shortcut",
    )  # fmt: skip
    alpha: float = option(0.5, "weight of the teacher's part; 0 for no teacher", source="arXiv 2309.04195", ge=0, le=1)
    temperature: float = option(1.5, "tau, by which both logits are divided", source="arXiv 2309.04195", gt=0)
    teacher: str = option("convnet", "architecture of the teacher, trained on the same set", source="arXiv 2309.04195")
    teacher_epochs: int = option(
        1500, "its epochs of AdamW, lr 5e-4, weight decay 5e-4, tenfold lower after each third",
        source="the paper's baseline; the length is our choice", alias="teacher-epochs", ge=3,
    )  # fmt: skip
    label_temperature: float = option(
        0.3, "by which real labels are divided before their softmax gives class weights", source="arXiv 2309.04195",
        alias="label-temperature", gt=0,
    )  # fmt: skip
    epochs: int = option(4000, "epochs, of eight equal periods", source="arXiv 2309.04195, code", ge=8)
    optimizer: Literal["lion", "adamw", "sgd", "adam"] = option(
        "lion", "optimiser; lion with betas 0.95 and 0.98, sgd with momentum 0.9", source="arXiv 2309.04195"
    )
    lr: float = option(5e-5, "learning rate at the first peak", source="arXiv 2309.04195, code", gt=0)
    weight_decay: float = option(5e-3, "weight decay", source="arXiv 2309.04195, code", alias="weight-decay", ge=0)
    schedule: Literal["restarts", "cosine", "constant"] = option(
        "restarts",
        "restarts: a rise over a fifth of a period, if that is an epoch or more, and a cosine of two periods, begun "
        "anew at each period until the last two; cosine to zero; constant",
        source="arXiv 2309.04195",
    )
    fall: float = option(0.8, "factor of the peak at each restart", source="arXiv 2309.04195", gt=0, le=1)
    last_peak: float = option(
        0.1, "factor of the first peak in the last two periods", source="arXiv 2309.04195", alias="last-peak", gt=0,
        le=1,
    )  # fmt: skip
    batch: int = option(100, "images a step", source="arXiv 2309.04195, code", ge=1)
    augment: str | None = option(
        None, "of DSA's operations joined by +, or none; auto: the data set's own", source="DSA; arXiv 2309.04195"
    )
    augmentations: int = option(
        2, "operations of each batch, without replacement", source="arXiv 2309.04195", ge=1, le=len(dsa.OPERATIONS)
    )

    _check_augment = pydantic.field_validator("augment")(dsa.check_strategy)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401
        """Fill in the options that the preset has in place of the defaults."""
        return {**PRESETS.get(str(values.get("preset")), {}), **values} if isinstance(values, dict) else values

    def defaults(self) -> dict[str, Any]:
        """Return the options' defaults under this preset."""
        own = {name.replace("-", "_"): value for name, value in PRESETS[self.preset].items()}
        return {**super().defaults(), **own}

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value, and whether the rise of the rate is left out."""
        # Students of so few epochs had other rates before, mostly 0, under the same options; all other keys are as
        # they were.
        return super().as_json() | ({"warmup": "none"} if self.recipe().begins_at_peaks else {})

    def recipe(self) -> RestartRecipe:
        """Return how students are trained."""
        return RestartRecipe(
            self.epochs,
            self.lr,
            self.optimizer,
            "cosine" if self.schedule == "cosine" else "constant",
            weight_decay=self.weight_decay,
            batch=self.batch,
            restarts=self.schedule == "restarts",
            fall=self.fall,
            last_peak=self.last_peak,
        )

    def teachers_recipe(self) -> Recipe:
        """Return how the teacher is trained: as the paper's baseline, with an end of our choice."""
        thirds = (self.teacher_epochs // 3, 2 * self.teacher_epochs // 3)
        return Recipe(
            self.teacher_epochs, 5e-4, "adamw", "milestones", weight_decay=5e-4, batch=self.batch, milestones=thirds
        )


class DropPath(Evaluator[DropPathOptions]):
    """Trains students whose paths drop, on the labels and on a small teacher's logits, by Lion with warm restarts.

    The loss is alpha tau^2 KL(teacher || student) + (1 - alpha) CE, with the logits in KL divided by tau.
    """

    Options = DropPathOptions
    label_kinds = ("hard", "soft", "regression")
    check_options = "epochs=8,teacher-epochs=3,teacher=convnet[width=4]"

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the presets, each of which is a protocol."""
        paper = "arXiv 2309.04195"
        sources = {"paper": paper, "as-released": f"{paper}, code", "short": "own choice"}
        return preset_rows(DropPathOptions, list(PRESETS), sources)

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``droppath short v1 + drop=false``."""
        changed = {key: text for key, text in self.options.changed().items() if key != "preset"}
        name = "" if self.options.preset == "paper" else f"{self.options.preset} "
        return f"droppath {name}v1{''.join(f' + {key}={text}' for key, text in changed.items())}"

    def unsuited(
        self, problem: Problem, architecture: Architecture[Any], needed: Architecture[Any] | None
    ) -> str | None:
        """Return why an architecture has no paths to drop or no shortcuts to be seen; None if it is applicable."""
        if self.options.drop:
            return why_no_paths(problem, architecture)
        return why_no_shortcuts(problem, architecture) if self.options.improved else None

    def artifact(self, student: int) -> ArtifactRequest | None:
        """Request the teacher of a student; None without one."""
        options = self.options
        if not options.alpha:
            return None
        identity = {
            "recipe": options.teachers_recipe().identity(),
            "augment": options.augment,
            "label_temperature": options.label_temperature,
        }
        return ArtifactRequest("teacher", student, options.teacher, identity)

    def make_artifact(
        self,
        request: ArtifactRequest,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
    ) -> Artifact:
        """Train the teacher with cross-entropy on the set, under one operation a batch, and return its weights."""
        assert architecture is not None
        operations = self._operations(problem)
        augment = None if operations == "none" else dsa.dsa_augmentation(operations)
        recipe = self.options.teachers_recipe()
        lesson = Lesson(self._weighted(distilled), recipe, streams, "teacher", augment=augment)
        network, losses = train_network(lesson, problem, architecture, request.index)
        return Artifact(network.state_dict(), {"loss": losses[-1]})

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, one after the other if paths drop."""
        options, operations = self.options, self._operations(problem)
        augment = None if operations == "none" else several_augmentation(operations, options.augmentations)

        def loss_of(student: int) -> Loss:
            return self._loss_with(own_teacher(artifacts[student], problem)) if options.alpha else cross_entropy_alone

        lesson = Lesson(self._weighted(distilled), options.recipe(), streams, loss=loss_of, augment=augment)
        if not options.drop:
            changed = PathArchitecture(architecture, improved=True, drops=False) if options.improved else architecture
            return train_students(lesson, problem, changed, students)
        paths = PathArchitecture(architecture, improved=options.improved, drops=True)

        def train(student: int) -> tuple[nn.Module, list[float]]:
            built = paths.build(problem.shape, len(problem.classes), streams.generator(lesson.role, 0, student))
            network = built.to(problem.device)
            assert isinstance(network, PathNetwork), "what the architecture builds"
            return network, train_in_phases(network, lesson, problem, student, self._phases(network))

        return train_each(train, problem, students, alone=True, streams=streams)

    def _phases(self, network: PathNetwork) -> list[Phase]:
        """Return the epochs of each keep rate, which is set before them."""
        options = self.options
        rates = [keep_rate(epoch, options.epochs, options.keep_least, options.keep_last)
                 for epoch in range(options.epochs)]  # fmt: skip
        phases, first = [], 0
        for rate, epochs in itertools.groupby(rates):
            last = first + len(list(epochs))
            phases.append(Phase(range(first, last), partial(network.keep, rate)))
            first = last
        return phases

    def _loss_with(self, teacher: nn.Module) -> Loss:
        alpha, temperature = self.options.alpha, self.options.temperature

        def loss(batch: Batch) -> Tensor:
            with torch.no_grad():
                logits = teacher(batch.images)
            return distillation_loss(batch.logits, logits, batch.labels, alpha=alpha, temperature=temperature)

        return loss

    def _weighted(self, distilled: DistilledSet) -> DistilledSet:
        """Return the set with class weights in place of real labels."""
        if distilled.label_kind != "regression":
            return distilled
        images, labels = distilled.training_data()
        weights = torch.softmax(labels / self.options.label_temperature, 1)
        return DistilledSet(images, weights, distilled.classes, distilled.preprocessing)

    def _operations(self, problem: Problem) -> str:
        return dsa.own_strategy(problem) if self.options.augment is None else self.options.augment

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student, its teacher's answers included."""
        passes = 4.0 if self.options.alpha else 3.0
        return passes * self.options.epochs * images + len(problem.score)


def cross_entropy_alone(batch: Batch) -> Tensor:
    """Return the cross-entropy of a step."""
    # Not `cross_entropy` itself: a GPU reuses its recorded steps by optimiser, and knows Lion with other betas.
    return cross_entropy(batch)
