"""Pool of any architectures with any weights, set on the command line."""

from collections.abc import Mapping

import pydantic

from harness import NameList, Options, Pool, option
from mpdd_plugins.pools.weighted_names import merge, weighted


class MixOptions(Options):
    """Options of `Mix`."""

    of: NameList = option(
        ..., "architectures with weights, say convnet:0.5+resnet18:0.5; weights are scaled to sum to 1"
    )

    @pydantic.field_validator("of")
    @classmethod
    def _all_weighted(cls, of: tuple[str, ...]) -> tuple[str, ...]:
        # `weighted` returns no name for a bare weight, and no weight for a bare name.
        if not of or any(None in (name or None, weight) for name, weight in map(weighted, of)):
            raise ValueError("each architecture needs a weight: of=convnet:0.5+resnet18:0.5")
        return of


class Mix(Pool[MixOptions]):
    """Draws from exactly the mixture that the option ``of`` describes."""

    Options = MixOptions

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the weights of the option, scaled to sum to 1."""
        weights = merge(*({name: weight or 0.0} for name, weight in map(weighted, self.options.of)))
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}
