"""Training protocols of evaluators: recipes by name and version, and the options that depart from them."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self

import pydantic
import torch

from harness import (
    Architecture,
    Augment,
    DataError,
    DistilledSet,
    Lesson,
    Loss,
    Options,
    Precision,
    Problem,
    Recipe,
    Streams,
    centred_one_hot,
    option,
)
from mpdd_plugins.augmentations.views import MEANINGS
from mpdd_plugins.evaluators.decoupled_recipes import DECOUPLED, WEIGHT_DECAY, decoupled_batch
from mpdd_plugins.evaluators.protocol_tables import (
    CHECK,
    EPOCHS,
    FAMILY,
    FIXED,
    FREPO_MOST,
    FREPO_STEPS,
    LABEL_TEMPERATURE,
    MAKE,
    OF_SET,
    OWN,
    PROTOCOLS,
    RATES,
    SOFTMAX,
    frepo_recipe,
    scheduled,
)

Protocol = Literal[
    "v1", "quick", "dsa", "mtt", "idc", "ncfm", "sre2l", "rded", "dd", "seqmatch", "frepo", "frepo-softmax"
]


class TrainingOptions(Options):
    """Options of every evaluator's training; those that are not set are the protocol's."""

    protocol: Protocol = option(
        "v1",
        f"{PROTOCOLS}. dd: the steps of the set's schedule in their order, each one step of gradient descent on its "
        "own images at its own rate, without augmentation; as many times as epochs says, 1 by default. seqmatch: dsa "
        "for each step of the set's schedule in turn, on its images at its rate, with the weights going on. frepo: "
        "half the squared distance from labels, of classes onehot - 1/classes; Adam, lr 3e-4, 500 steps of warm-up, a "
        "cosine to 1 %, batch 500, 1000 steps on 10 images and 2000 to 40000 on more, under DSA's augmentation. "
        f"{SOFTMAX}",
        source="DC, utils.py; DSA; MTT, evaluation; IDC, train.py; NCFM; SRe2L, relabel_cifar.py; RDED, validation; "
        "DD, section 3.4; SeqMatch; FRePo, script/eval",
    )
    epochs: int | None = option(None, "epochs; auto: the protocol's", ge=1)
    lr: float | None = option(
        None,
        "learning rate at the start; auto: 0.01, under ncfm, sre2l and rded 0.001, under mtt the set's own",
        source="DC; NCFM; SRe2L; RDED",
        gt=0,
    )
    optimizer: Literal["sgd", "adam", "adamw", "lion", "lamb"] = option(
        "sgd", "optimiser. The default is adamw under ncfm, sre2l and rded", source="DC; NCFM; SRe2L; RDED"
    )
    schedule: Literal["step", "cosine", "half-cosine", "constant", "milestones"] = option(
        "step",
        "step: tenfold lower half-way, with fresh momentum; cosine to zero; half-cosine: to half of it; constant; "
        "milestones: a fifth from two thirds and again from five sixths of the epochs on, under ncfm half from each "
        "fifth on. The default is milestones under idc and ncfm, cosine under sre2l and half-cosine under rded",
        source="DC, utils.py; IDC, train.py; NCFM; SRe2L; RDED",
    )
    batch: int | None = option(
        256,
        "images a step. The default is 64 under idc, 128 under ncfm and sre2l, auto under rded and 500 under frepo",
        source="DC; IDC; NCFM; SRe2L; RDED; FRePo",
        ge=1,
    )
    augment: str | None = option(
        None,
        "operations on training images joined by +, or none. v1, quick: of crop, scale, rotate, noise, one for each "
        "image; auto: crop+scale+rotate on mnist, crop+noise for a ConvNet with batch norm, else none. dsa, mtt, "
        "seqmatch: of color, crop, cutout, flip, scale, rotate, one a batch; auto: the data set's own. idc: of "
        "flip, color, crop, scale, rotate, cutout, cutmix, all of them but of crop, scale and rotate one a batch; "
        "auto: dsa's without cutout, and cutmix unless the images are grey and never mirrored. ncfm: dsa's and "
        f"cutmix; auto: likewise. sre2l and rded: of {MEANINGS}; auto: crop+flip+mixup or flip+cutmix, without flip on "
        "images that are never mirrored",
        source="DC, utils.py; DSA; IDC; NCFM; SRe2L; RDED",
    )

    precision: Precision = option(
        "fp32",
        "bf16-scoring: score students in bfloat16; bf16: train them in it too (weights stay float32; a teacher is not)",
        source="own choice: quicker",
    )

    @pydantic.field_validator("augment")
    @classmethod
    def _check_augment(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        # `protocol` is declared before `augment`, so it is validated by now; it is missing if it was invalid itself.
        return CHECK[FAMILY[info.data.get("protocol", "v1")]](value)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_own(cls, values: Any) -> Any:  # noqa: ANN401
        """Fill in the options that the protocol has in place of the defaults."""
        # The values themselves and not "auto": options are part of every cell's key, which an older default must keep.
        if not isinstance(values, dict):
            return values
        own = OWN.get(str(values.get("protocol")), {})
        # Only rded leaves the batch to the set; elsewhere `auto` is the protocol's number.
        typed = {key: value for key, value in values.items() if key != "batch" or value not in (None, "auto")}
        return {**own, **typed}

    @pydantic.model_validator(mode="after")
    def _leave_the_schedule_alone(self) -> Self:
        departing = [name for name in FIXED.get(self.protocol, ()) if name in self.changed()]
        if departing:
            steps = f"the protocol {self.protocol} takes the steps of the set's schedule"
            raise ValueError(f"{steps}: leave out {', '.join(departing)}")
        return self

    @property
    def needs_schedule(self) -> bool:
        """Whether the protocol trains by a set's schedule."""
        return self.protocol in FIXED

    def defaults(self) -> dict[str, Any]:
        """Return the options' defaults under this protocol."""
        return {**super().defaults(), **OWN.get(self.protocol, {})}

    def version_name(self) -> str:
        """Return the protocol as it is printed: ``v1``, or with its name, such as ``quick v1`` or ``idc v1``."""
        return "v1" if self.protocol == "v1" else f"{self.protocol} v1"

    def own_operations(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the operations of the protocol itself: the architecture's own, otherwise the data set's."""
        family = FAMILY[self.protocol]
        return architecture.augmentations.get(family) or OF_SET[family](problem)

    def augmentation(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the operations on training images: the option's, otherwise the protocol's."""
        return self.own_operations(problem, architecture) if self.augment is None else self.augment

    def departures(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the options that depart from the protocol, as they are printed after its name."""
        operations = self.own_operations(problem, architecture)
        # An option that repeats the protocol's own value is no departure, and must not make the name longer.
        recipe = self.protocol_recipe(augmented=operations != "none")
        lr = None if self.protocol in ("mtt", "seqmatch") else recipe.lr
        # Under frepo the number of steps depends on the set, so that any epochs are a departure.
        epochs = None if self.is_frepos else recipe.epochs
        own = {"protocol": self.protocol, "epochs": epochs, "lr": lr, "augment": operations}
        fields = {key.replace("-", "_"): text for key, text in self.changed().items()}
        departing = {key: text for key, text in fields.items() if getattr(self, key) != own.get(key)}
        names = {key: field.alias or key for key, field in type(self).model_fields.items()}
        return "".join(f" + {names[key]}={text}" for key, text in departing.items())

    @property
    def is_frepos(self) -> bool:
        """Whether the protocol takes FRePo's steps."""
        return self.protocol in ("frepo", "frepo-softmax")

    def protocol_recipe(self, augmented: bool, images: int = 10, classes: int = 10) -> Recipe:
        """Return the protocol's recipe without departures; under mtt, its rate is later replaced by the set's.

        Args:
            augmented: whether training images are augmented.
            images: number of training images, on which FRePo's steps and RDED's batch depend.
            classes: number of classes, on which RDED's batch depends.
        """
        if self.is_frepos:
            return frepo_recipe(next((steps for most, steps in FREPO_STEPS.items() if images <= most), FREPO_MOST))
        recipe = Recipe(epochs=EPOCHS[self.protocol][augmented])
        if self.protocol == "dd":
            return replace(recipe, schedule="constant", momentum=0.0, weight_decay=0.0)
        if self.protocol not in OWN:
            return recipe
        own = dict(OWN[self.protocol])
        schedule = own.pop("schedule")
        recipe = replace(recipe, lr=RATES.get(self.protocol, recipe.lr), **own)
        if self.protocol in DECOUPLED:
            batch = decoupled_batch(self.protocol, images, classes)
            recipe = replace(recipe, batch=batch, weight_decay=WEIGHT_DECAY)
        return scheduled(recipe, schedule, self.protocol, recipe.epochs)

    def recipe(self, augmented: bool, images: int = 10, classes: int = 10) -> Recipe:
        """Return the protocol's recipe with the options' departures; see `protocol_recipe`."""
        recipe = self.protocol_recipe(augmented, images, classes)
        batch = self.batch or recipe.batch
        if self.is_frepos:
            steps = self.epochs * math.ceil(images / batch) if self.epochs else recipe.steps
            assert steps is not None, "the recipe counts steps"
            recipe, length = frepo_recipe(steps), steps
        else:
            length = self.epochs or recipe.epochs
            if self.protocol == "dd":
                return replace(recipe, epochs=length)
            recipe = Recipe(length, lr=recipe.lr, weight_decay=recipe.weight_decay)
        recipe = replace(recipe, lr=self.lr or recipe.lr, optimizer=self.optimizer, batch=batch)
        return scheduled(recipe, self.schedule, self.protocol, length)

    def taught(self, distilled: DistilledSet) -> DistilledSet:
        """Return the set with the labels that the protocol's loss takes; the set itself if they are its own.

        Under frepo these are real values, and under frepo-softmax none are.
        """
        is_real = distilled.label_kind == "regression"
        if not self.is_frepos or is_real == (self.protocol == "frepo"):
            return distilled
        images, labels = distilled.training_data()
        if is_real:
            weights = torch.softmax(labels / LABEL_TEMPERATURE, 1)
            return DistilledSet(images, weights, distilled.classes, distilled.preprocessing)
        classes = len(distilled.classes)
        values = centred_one_hot(labels, classes) if labels.ndim == 1 else labels - 1 / classes
        return DistilledSet(images, values, distilled.classes, distilled.preprocessing, label_kind="regression")

    def lesson(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        streams: Streams,
        loss_of: Callable[[int], Loss],
    ) -> Lesson:
        """Return what students of an architecture learn from: the protocol with the options' departures.

        Args:
            distilled: the set.
            problem: provides the data set's own augmentation.
            architecture: provides the architecture's own augmentation.
            streams: random streams of the evaluation.
            loss_of: returns the loss of a student's steps from the student's index.

        Raises:
            DataError: the protocol needs a learned step size or a schedule, and the set has none.
        """
        if self.needs_schedule and distilled.schedule is None:
            fault = f"the protocol {self.protocol} trains by the set's schedule, which this set does not have"
            raise DataError(f"{fault}: choose another")
        operations = self.augmentation(problem, architecture)
        recipe = self.recipe(operations != "none", len(distilled.training_data()[0]), len(problem.classes))
        # A rate that the user sets is a departure, and replaces the learned one.
        if self.lr is None:
            recipe = self._at_learned_rate(recipe, distilled, "give lr=... or another protocol")
        augment = self._augment(operations, problem)
        return Lesson(
            distilled,
            recipe,
            streams,
            loss=loss_of,
            augment=augment,
            precision=self.precision,
            by_schedule=self.protocol == "dd",
            by_stages=self.protocol == "seqmatch",
        )

    def teaching(
        self, distilled: DistilledSet, problem: Problem, architecture: Architecture[Any], streams: Streams
    ) -> Lesson:
        """Return what a teacher learns from: the protocol itself, without the students' departures.

        Raises:
            DataError: as for `lesson`, even if ``lr`` is set, which is the students' alone.
        """
        operations = self.own_operations(problem, architecture)
        recipe = self.protocol_recipe(operations != "none", len(distilled.training_data()[0]), len(problem.classes))
        recipe = self._at_learned_rate(recipe, distilled, "give another protocol (lr= is not the teacher's)")
        return Lesson(distilled, recipe, streams, "teacher", augment=self._augment(operations, problem))

    def _augment(self, operations: str, problem: Problem) -> Augment | None:
        return None if operations == "none" else MAKE[FAMILY[self.protocol]](operations, len(problem.classes))

    def _at_learned_rate(self, recipe: Recipe, distilled: DistilledSet, remedy: str) -> Recipe:
        if self.protocol != "mtt":
            return recipe
        rate = distilled.step_size
        if rate is None or not 0 < rate < math.inf:
            fault = "which this set does not have" if rate is None else f"and {rate:g} is not a learning rate"
            raise DataError(f"the protocol mtt trains at the set's learned step size, {fault}: {remedy}")
        return replace(recipe, lr=rate)

    def student_work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student: three for each image and epoch, one for each scored image."""
        # An estimate, made before there is an architecture: that of the data set's augmentation is close enough.
        augmented = (self.augment or OF_SET[FAMILY[self.protocol]](problem)) != "none"
        recipe = self.recipe(augmented, images, len(problem.classes))
        trained = recipe.epochs * images if recipe.steps is None else recipe.steps * min(images, recipe.batch)
        return 3.0 * trained + len(problem.score)
