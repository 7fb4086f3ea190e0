"""Training protocols of evaluators: recipes by name and version, and the options that depart from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
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
from mpdd_plugins.augmentations import dc, dsa, idc, ncfm

EPOCHS = {
    "v1": (301, 1001),
    "quick": (101, 101),
    "dsa": (1001, 1001),
    "mtt": (1001, 1001),
    "idc": (1000, 1000),
    "ncfm": (2000, 2000),
    "dd": (1, 1),
    "seqmatch": (1001, 1001),
    "frepo": (1000, 1000),
    "frepo-softmax": (1000, 1000),
}
"""Epochs of each protocol, without and with augmentation (DC, utils.py: the last index is 300 or 1000). Under dd, how
often the steps of the set's schedule are repeated: a schedule lists DD's own repetitions (Wang et al., section 3.4).
Under seqmatch, epochs of each step of the schedule. FRePo's depend on the number of images: these are those of ten."""
FAMILY = {
    "v1": "dc",
    "quick": "dc",
    "dsa": "dsa",
    "mtt": "dsa",
    "seqmatch": "dsa",
    "idc": "idc",
    "ncfm": "ncfm",
    "dd": "dd",
    "frepo": "dsa",
    "frepo-softmax": "dsa",
}
"""Family of augmentations of each protocol."""
FREPO: Mapping[str, Any] = {"optimizer": "adam", "schedule": "cosine", "batch": 500}
OWN: Mapping[str, Mapping[str, Any]] = {
    "idc": {"schedule": "milestones", "batch": 64},
    "ncfm": {"optimizer": "adamw", "schedule": "milestones", "batch": 128},
    "frepo": FREPO,
    "frepo-softmax": FREPO,
}
"""Options that a protocol has in place of the defaults."""
RATES = {"ncfm": 0.001}
"""Learning rates of protocols that have another than v1's."""
FALLS: Mapping[str, tuple[Sequence[Fraction], float]] = {
    "ncfm": ([Fraction(part, 5) for part in range(1, 5)], 0.5),
}
"""Of a protocol with a schedule of its own, the shares of the epochs at which the rate falls, and its factor there."""
USUAL_FALLS = ([Fraction(2, 3), Fraction(5, 6)], 0.2)
"""Those of ``schedule=milestones`` under every other protocol (IDC, train.py)."""
FREPO_STEPS = {10: 1000, 100: 2000, 200: 20000, 500: 5000, 1000: 10000}
"""Steps of FRePo's students by the most images for which they are taken (FRePo, script/eval)."""
FREPO_MOST, FREPO_WARMUP = 40000, 500
"""Steps on more images than these, and those in which the rate rises."""
LABEL_TEMPERATURE = 0.1
"""By which real labels are divided before their softmax under frepo-softmax: onehot - 1/10 has 0.9996 for its class."""


def _check_none(operations: str | None) -> str | None:
    """Raise `ValueError` unless the option ``augment`` asks for no augmentation."""
    if operations not in (None, "none"):
        raise ValueError("the protocol dd augments no images: leave out augment")
    return operations


# By family: how an option is validated, how an augmentation is created, and what the protocol has for a data set.
CHECK = {
    "dc": dc.check_strategy,
    "dsa": dsa.check_strategy,
    "idc": idc.check_strategy,
    "ncfm": ncfm.check_strategy,
    "dd": _check_none,
}
MAKE: dict[str, Callable[[str, int], Augment]] = {
    "dc": lambda operations, classes: dc.dc_augmentation(operations),
    "dsa": lambda operations, classes: dsa.dsa_augmentation(operations),
    "idc": idc.idc_augmentation,
    "ncfm": ncfm.ncfm_augmentation,
}
OF_SET: dict[str, Callable[[Problem], str]] = {
    "dc": lambda problem: problem.augmentations.get("dc", "none"),
    "dsa": dsa.own_strategy,
    "idc": idc.own_strategy,
    "ncfm": ncfm.own_strategy,
    "dd": lambda problem: "none",
}
PROTOCOLS = (
    "v1: 301 epochs of SGD, momentum 0.9, weight decay 5e-4, lr 0.01, tenfold lower after epoch index 151 with "
    "fresh momentum, batch 256; 1001 epochs where the set is augmented (mnist). quick: 101 epochs, lower after "
    "index 51. dsa: v1 with 1001 epochs under DSA's augmentation. mtt: dsa with the learning rate that the set has "
    "learned. idc: 1000 epochs of v1's SGD, a fifth of the rate from two thirds and again from five sixths of them "
    "on with the momentum kept, batch 64, under IDC's augmentation with CutMix. ncfm: 2000 epochs of AdamW, lr "
    "0.001, weight decay 5e-4, half the rate at each fifth of them, batch 128, under DSA's augmentation with CutMix"
)
SOFTMAX = "frepo-softmax: frepo's steps with the cross-entropy; real labels y become the class weights softmax(y / 0.1)"
"""The meaning of the option ``protocol`` of every evaluator."""
FIXED = {"dd": ("lr", "optimizer", "schedule", "batch"), "seqmatch": ("lr",)}
"""Options that a protocol does not have, because the set's schedule decides them."""


def falls_of(protocol: str, epochs: int) -> dict[str, Any]:
    """Return the milestones of a protocol in so many epochs, rounded down, and its factor, as fields of a recipe."""
    shares, factor = FALLS.get(protocol, USUAL_FALLS)
    # At least 1: of a single epoch, which has no milestone within it, all would be 0.
    milestones = tuple(sorted({max(1, int(share * epochs)) for share in shares}))
    return {"schedule": "milestones", "milestones": milestones, "factor": factor}


class TrainingOptions(Options):
    """Options of every evaluator's training; those that are not set are the protocol's."""

    protocol: Literal["v1", "quick", "dsa", "mtt", "idc", "ncfm", "dd", "seqmatch", "frepo", "frepo-softmax"] = option(
        "v1",
        f"{PROTOCOLS}. dd: the steps of the set's schedule in their order, each one step of gradient descent on its "
        "own images at its own rate, without augmentation; as many times as epochs says, 1 by default. seqmatch: dsa "
        "for each step of the set's schedule in turn, on its images at its rate, with the weights going on. frepo: "
        "half the squared distance from labels, of classes onehot - 1/classes; Adam, lr 3e-4, 500 steps of warm-up, a "
        "cosine to 1 %, batch 500, 1000 steps on 10 images and 2000 to 40000 on more, under DSA's augmentation. "
        f"{SOFTMAX}",
        source="DC, utils.py; DSA; MTT, evaluation; IDC, train.py; NCFM; DD, section 3.4; SeqMatch; FRePo, script/eval",
    )
    epochs: int | None = option(None, "epochs; auto: the protocol's", ge=1)
    lr: float | None = option(
        None,
        "learning rate at the start; auto: 0.01, under ncfm 0.001, under mtt the set's own",
        source="DC; NCFM",
        gt=0,
    )
    optimizer: Literal["sgd", "adam", "adamw", "lion", "lamb"] = option(
        "sgd", "optimiser. The default is adamw under ncfm", source="DC; NCFM"
    )
    schedule: Literal["step", "cosine", "constant", "milestones"] = option(
        "step",
        "step: tenfold lower half-way, with fresh momentum; cosine to zero; constant; milestones: a fifth from two "
        "thirds and again from five sixths of the epochs on, under ncfm half from each fifth on. The default is "
        "milestones under idc and ncfm",
        source="DC, utils.py; IDC, train.py; NCFM",
    )
    batch: int = option(
        256,
        "images a step. The default is 64 under idc, 128 under ncfm and 500 under frepo",
        source="DC; IDC; NCFM; FRePo",
        ge=1,
    )
    augment: str | None = option(
        None,
        "operations on training images joined by +, or none. v1, quick: of crop, scale, rotate, noise, one for each "
        "image; auto: crop+scale+rotate on mnist, crop+noise for a ConvNet with batch norm, else none. dsa, mtt, "
        "seqmatch: of color, crop, cutout, flip, scale, rotate, one a batch; auto: the data set's own. idc: of "
        "flip, color, crop, scale, rotate, cutout, cutmix, all of them but of crop, scale and rotate one a batch; "
        "auto: dsa's without cutout, and cutmix unless the images are grey and never mirrored. ncfm: dsa's and "
        "cutmix; auto: likewise",
        source="DC, utils.py; DSA; IDC; NCFM",
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
        return {**OWN.get(str(values.get("protocol")), {}), **values} if isinstance(values, dict) else values

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
        departing = {key: value for key, value in self.changed().items() if getattr(self, key) != own.get(key)}
        return "".join(f" + {key}={value}" for key, value in departing.items())

    @property
    def is_frepos(self) -> bool:
        """Whether the protocol takes FRePo's steps."""
        return self.protocol in ("frepo", "frepo-softmax")

    def protocol_recipe(self, augmented: bool, images: int = 10) -> Recipe:
        """Return the protocol's recipe without departures; under mtt, its rate is later replaced by the set's.

        Args:
            augmented: whether training images are augmented.
            images: number of training images, on which FRePo's steps depend.
        """
        if self.is_frepos:
            return frepo_recipe(next((steps for most, steps in FREPO_STEPS.items() if images <= most), FREPO_MOST))
        recipe = Recipe(epochs=EPOCHS[self.protocol][augmented])
        if self.protocol == "dd":
            return replace(recipe, schedule="constant", momentum=0.0, weight_decay=0.0)
        if self.protocol not in OWN:
            return recipe
        own = {**OWN[self.protocol], **falls_of(self.protocol, recipe.epochs)}
        return replace(recipe, lr=RATES.get(self.protocol, recipe.lr), **own)

    def recipe(self, augmented: bool, images: int = 10) -> Recipe:
        """Return the protocol's recipe with the options' departures; see `protocol_recipe`."""
        recipe = self.protocol_recipe(augmented, images)
        if self.is_frepos:
            return self._frepo_recipe(recipe, images)
        epochs = self.epochs or recipe.epochs
        if self.protocol == "dd":
            return replace(recipe, epochs=epochs)
        falls = falls_of(self.protocol, epochs) if self.schedule == "milestones" else {"schedule": self.schedule}
        return Recipe(epochs=epochs, lr=self.lr or recipe.lr, optimizer=self.optimizer, batch=self.batch, **falls)

    def _frepo_recipe(self, recipe: Recipe, images: int) -> Recipe:
        steps = self.epochs * math.ceil(images / self.batch) if self.epochs else recipe.steps
        assert steps is not None, "the recipe counts steps"
        falls = falls_of(self.protocol, steps) if self.schedule == "milestones" else {"schedule": self.schedule}
        return replace(
            frepo_recipe(steps), lr=self.lr or recipe.lr, optimizer=self.optimizer, batch=self.batch, **falls
        )

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
        recipe = self.recipe(operations != "none", len(distilled.training_data()[0]))
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
        recipe = self.protocol_recipe(operations != "none", len(distilled.training_data()[0]))
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
        recipe = self.recipe(augmented, images)
        trained = recipe.epochs * images if recipe.steps is None else recipe.steps * min(images, recipe.batch)
        return 3.0 * trained + len(problem.score)


def frepo_recipe(steps: int) -> Recipe:
    """Return the recipe of FRePo's students of so many steps; a shorter one than the published has less warm-up."""
    warmup = min(FREPO_WARMUP, steps // 2)
    return Recipe(epochs=0, lr=3e-4, weight_decay=0.0, steps=steps, warmup=warmup, last=0.01, **FREPO)
