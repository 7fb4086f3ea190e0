"""Protocols: recipes by name and version, and departures from them."""

from dataclasses import replace
from typing import Any, Literal

import pydantic

from harness import Architecture, Options, Problem, Recipe, option
from mpdd_plugins.augmentations.dc import check_strategy

EPOCHS = {"v1": (301, 1001), "quick": (101, 101)}
"""Epochs of each protocol without and with augmentation."""


def own_operations(problem: Problem, architecture: Architecture[Any]) -> str:
    """The operations on training images that the protocols have: the architecture's own, else the data set's."""
    return architecture.augmentations.get("dc") or problem.augmentations.get("dc", "none")


class TrainingOptions(Options):
    """What every evaluator lets one change; what is not given is the protocol's."""

    protocol: Literal["v1", "quick"] = option(
        "v1",
        "v1: 301 epochs of SGD, momentum 0.9, weight decay 5e-4, lr 0.01, tenfold lower after epoch index 151 with "
        "fresh momentum, batch 256; 1001 epochs where the set is augmented (mnist). quick: 101 epochs, lower after "
        "index 51",
        source="DC, utils.py",
    )
    epochs: int | None = option(None, "epochs; auto: the protocol's", ge=1)
    lr: float | None = option(None, "learning rate at the start; auto: 0.01", source="DC", gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "optimiser", source="DC")
    schedule: Literal["step", "cosine", "constant"] = option(
        "step", "step: tenfold lower half-way, with fresh momentum; cosine to zero; constant", source="DC, utils.py"
    )
    batch: int = option(256, "images a step", source="DC", ge=1)
    augment: str | None = option(
        None,
        "operations on training images, one of them for each image: crop, scale, rotate, noise joined by +; none; "
        "auto: crop+scale+rotate on mnist, crop+noise for a ConvNet with batch norm, else none",
        source="DC, utils.py",
    )

    _check_augment = pydantic.field_validator("augment")(check_strategy)

    def version_name(self) -> str:
        """The protocol as it is printed: ``v1`` or ``quick v1``."""
        return "v1" if self.protocol == "v1" else "quick v1"

    def departures(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Every option that departs from the protocol, as it is printed after its name."""
        operations = own_operations(problem, architecture)
        recipe = self.protocol_recipe(augmented=operations != "none")
        own = {"protocol": self.protocol, "epochs": recipe.epochs, "lr": recipe.lr, "augment": operations}
        departing = {key: value for key, value in self.changed().items() if getattr(self, key) != own.get(key)}
        return "".join(f" + {key}={value}" for key, value in departing.items())

    def augmentation(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """The operations on training images: as given, else the protocol's."""
        return own_operations(problem, architecture) if self.augment is None else self.augment

    def protocol_recipe(self, augmented: bool) -> Recipe:
        """The protocol's recipe without departures."""
        return Recipe(epochs=EPOCHS[self.protocol][augmented])

    def recipe(self, augmented: bool) -> Recipe:
        """The recipe with what was given."""
        recipe = self.protocol_recipe(augmented)
        return replace(
            recipe,
            epochs=self.epochs or recipe.epochs,
            lr=self.lr or recipe.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch=self.batch,
        )

    def student_work(self, problem: Problem, images: int) -> float:
        """Passes of one student: three for each image and epoch, one for each scored image."""
        augmented = (self.augment or problem.augmentations.get("dc", "none")) != "none"
        return 3.0 * self.recipe(augmented).epochs * images + len(problem.score)
