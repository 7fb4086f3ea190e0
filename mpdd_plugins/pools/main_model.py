"""Pool of a main architecture and various others (main-model of the model-pool paper, table 5)."""

from collections.abc import Mapping

import pydantic

from harness import NameList, Options, Pool, option
from mpdd_plugins.pools.weighted_names import check_main, main_of, merge, uniform


class MainModelOptions(Options):
    """Options of `MainModel`."""

    main: str = option(
        "convnet:0.9", "main ARCHITECTURE:PROBABILITY; either half may be left out", source="model-pool paper, table 5"
    )
    others: NameList = option(
        ("lenet", "alexnet", "vgg11"), "the others, which share the rest equally", source="model-pool paper, table 5"
    )
    warmup: int = option(0, "first iterations on the main architecture only", source="model-pool paper: none", ge=0)

    _check_main = pydantic.field_validator("main")(check_main)


class MainModel(Pool[MainModelOptions]):
    """Draws a main architecture with one probability, and various others that share the rest equally."""

    Options = MainModelOptions

    def __init__(self, options: MainModelOptions) -> None:
        super().__init__(options)
        self._main, self._probability = main_of(options.main, architecture="convnet", probability=0.9)

    @property
    def main(self) -> str:
        """Return the main architecture."""
        return self._main

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the main architecture alone during the warm-up, and then all of them."""
        if iteration < self.options.warmup:
            return {self._main: 1.0}
        # merge: the main architecture may be listed among the others as well.
        return merge({self._main: self._probability}, uniform(self.options.others, 1 - self._probability))
