"""Pool of networks at an early stage of their training, with perturbed weights (Acc-DD: Zhang et al., CVPR 2023).

"Accelerating Dataset Distillation via Model Augmentation": each step takes one of several networks that were trained on
the real data for a few epochs, and moves its weights w to w + a d1 + b d2. d1 and d2 are Gaussian directions whose
filters (output rows) have the norms of w's; |a| and |b| are uniform in (0.01, 0.09), with random signs. The paper uses
IDC's loop; here any method can. Its released code cannot run as it is: ages are checked against checkpoints that it
does not write, so that the epochs are an option. To a method that loads weights of its own into its networks (`mtt`,
`ncfm`) it is not applicable.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness import NameList, Network, Options, Pool, RealNetwork, Recipe, option
from mpdd_plugins.pools.weighted_names import uniform

LEAST, MOST = 0.01, 0.09
"""Range of the size of a perturbation along each direction (Acc-DD's code)."""
EPSILON = 1e-10
"""Added to the norm of a direction's filter (Acc-DD's code)."""


class EarlyStageOptions(Options):
    """Options of `EarlyStage`."""

    of: NameList = option(("convnet",), "the architectures, equally probable", source="Acc-DD", min_length=1)
    epochs: int = option(2, "epochs that the networks were trained on the real data", source="Acc-DD: a few", ge=0)
    networks: int = option(5, "trained networks of each architecture, which take turns", source="Acc-DD: several", ge=1)
    perturb: float = option(1.0, "factor of the perturbation; 0 for none", source="Acc-DD", ge=0)
    lr: float = option(0.01, "learning rate of their training, by SGD with momentum 0.9", source="IDC", gt=0)
    batch: int = option(64, "real images a step of their training", source="IDC", ge=1)


class EarlyStage(Pool[EarlyStageOptions]):
    """Draws networks that were trained for a few epochs, and perturbs the weights of each draw."""

    Options = EarlyStageOptions

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return equal probabilities, the same at every iteration."""
        return uniform(self.options.of, 1.0)

    @property
    def main(self) -> str | None:
        """The architecture if there is a single one."""
        return self.options.of[0] if len(self.options.of) == 1 else None

    def starts_from(self, architecture: str, iteration: int, draw: int) -> RealNetwork:
        """Return the trained network whose turn it is."""
        options = self.options
        # At least an epoch, as a recipe has; the weights after epoch 0 are initial ones that draws share.
        recipe = Recipe(max(1, options.epochs), options.lr, schedule="constant", batch=options.batch)
        index = (iteration + draw) % options.networks
        return RealNetwork(architecture=architecture, recipe=recipe, snapshots=(options.epochs,), index=index)

    def prepare(self, network: Network, generator: torch.Generator) -> None:
        """Move the weights along two random directions."""
        if self.options.perturb == 0:
            return
        weights = list(network.parameters())
        # Both before the first moves the weights: their filters have the norms of the trained network's.
        moves = [self._move(weights, generator) for _ in range(2)]
        with torch.no_grad():
            for weight, *along in zip(weights, *moves, strict=True):
                weight.add_(sum(along))

    def _move(self, weights: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Return a d of the module, times the option's factor, for one direction."""
        directions = normalised([torch.randn(weight.shape, generator=generator) for weight in weights], weights)
        size, sign = torch.rand(2, generator=generator).tolist()
        signed = (LEAST + (MOST - LEAST) * size) * (1 if sign < 0.5 else -1)
        return [self.options.perturb * signed * direction.detach() for direction in directions]


def normalised(directions: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return directions whose filters have the norms of the weights' filters; those of biases and norms are 0.

    Args:
        directions: one for each weight, of its shape; a filter is what one output has of it, ``direction[row]``.
        weights: a network's parameters.
    """
    return [_normalised(direction, weight) for direction, weight in zip(directions, weights, strict=True)]


def _normalised(direction: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim <= 1:
        return torch.zeros_like(direction)
    rows = (-1, *[1] * (weight.ndim - 1))
    wanted, present = (torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in (weight, direction))
    factors: Tensor = (wanted / (present + EPSILON)).view(rows)
    return direction * factors
