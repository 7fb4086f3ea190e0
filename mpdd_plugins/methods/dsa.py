"""Dataset condensation with differentiable siamese augmentation: Zhao and Bilen, ICML 2021 (DSA).

DC's loss with A(S, omega) and A(T, omega) in place of S and T: one augmentation A with the same parameters omega.
"""

from collections.abc import Callable
from typing import Literal

import pydantic
import torch
from torch import Tensor

from harness import Augment, Task, option
from mpdd_plugins.augmentations.dsa import check_strategy, dsa_augmentation, own_strategy, siamese
from mpdd_plugins.methods.dc import DC, DCOptions


class DSAOptions(DCOptions):
    """Options of `DSA`."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="DSA")
    augment: str | None = option(
        None, "operations, of which one is drawn at each step, joined by +; none; auto: the data set's", source="DSA"
    )

    _check_augment = pydantic.field_validator("augment")(check_strategy)


class DSA(DC):
    """DC with one augmentation for each class and step, applied to the real and the synthetic images alike."""

    Options = DSAOptions

    def __init__(self, task: Task, options: DSAOptions) -> None:
        super().__init__(task, options)
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment

    def _siamese(self, iteration: int, round_: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return one operation with one set of parameters, for all images of the class."""
        # Drawn at once, here: the transform is applied twice, and both calls have to use the same parameters.
        if self.strategy == "none":
            return super()._siamese(iteration, round_, label)
        generator: torch.Generator = self.task.streams.generator("augment", iteration, round_, label)
        return siamese(self.strategy, self.task.problem.shape, generator)

    def _augment(self) -> Augment | None:
        """Return the augmentation of the network's training: one operation per batch, separate parameters per image."""
        return None if self.strategy == "none" else dsa_augmentation(self.strategy)
