"""Pool of various architectures, none of which is a main one (total-random of the model-pool paper, table 5)."""

from collections.abc import Mapping

from harness import NameList, Options, Pool, option
from mpdd_plugins.pools.weighted_names import uniform


class TotalRandomOptions(Options):
    """Options of `TotalRandom`."""

    of: NameList = option(
        ("convnet", "lenet", "alexnet", "vgg11"), "the architectures", source="model-pool paper, table 5", min_length=1
    )


class TotalRandom(Pool[TotalRandomOptions]):
    """Draws several architectures with equal probability; none of them is a main one."""

    Options = TotalRandomOptions

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return equal probabilities, the same at every iteration."""
        return uniform(self.options.of, 1.0)
