"""The model pool of "Improve Cross-Architecture Generalization on Dataset Distillation" (Zhou, Zhong, Chen).

The paper's pool (tables 2 and 3) consists of a main ConvNet and 32 ConvNets that differ in activation, norm and
pooling.
"""

import itertools
from collections.abc import Mapping
from typing import Literal

import pydantic

from harness import Name, NameList, Options, Pool, option, parse_name
from mpdd_plugins.pools.weighted_names import check_main, main_of, merge, uniform

ACTIVATIONS = ("relu", "sigmoid", "leakyrelu", "swish")
NORMS = ("instance", "batch", "layer", "group")
POOLINGS = ("avg", "max")
# In the paper's code, iterations 0 ... 500 take the main ConvNet only, and the others have one block. Its text mentions
# no warm-up, and table 3 has three blocks.
AS_RELEASED_WARMUP = 501
AS_RELEASED_DEPTH = 1


class MainSimilarOptions(Options):
    """Options of `MainSimilar`."""

    main: str = option(
        "convnet:0.9", "main ARCHITECTURE:PROBABILITY; either half may be left out", source="model-pool paper, table 2"
    )
    others: NameList = option(
        (), "the others, which share the rest equally; empty: the 32 ConvNets of table 3", source="paper, table 3"
    )
    depth: int | None = option(
        None, "blocks of these ConvNets; auto: as the main ConvNet, 1 as-released", source="paper, table 3", ge=1
    )
    width: int | None = option(
        None, "channels of these ConvNets; auto: as the main ConvNet", source="paper, table 3", ge=1
    )
    warmup: int | None = option(None, "first iterations on the main architecture only; auto: 0", source="paper", ge=0)
    preset: Literal["as-written", "as-released"] = option(
        "as-written", "as-released: warmup 501 and depth 1, what the paper's code did", source="the paper's code"
    )

    _check_main = pydantic.field_validator("main")(check_main)


class MainSimilar(Pool[MainSimilarOptions]):
    """Draws a main ConvNet with one probability, otherwise a ConvNet with another activation, norm or pooling.

    One of the 4 x 4 x 2 ConvNets equals the main one, whose probability is therefore 0.9 + 0.1 / 32 = 0.903125. Their
    width and depth are those of the main ConvNet unless an option sets them; with a main architecture of another kind,
    they are the ConvNet's defaults.
    """

    Options = MainSimilarOptions
    version = 2

    def __init__(self, options: MainSimilarOptions) -> None:
        super().__init__(options)
        released = options.preset == "as-released"
        self._main, self._probability = main_of(options.main, architecture="convnet", probability=0.9)
        self._depth = options.depth or (AS_RELEASED_DEPTH if released else None)
        self._warmup = (AS_RELEASED_WARMUP if released else 0) if options.warmup is None else options.warmup

    @property
    def main(self) -> str:
        """Return the main architecture."""
        return self._main

    @property
    def similar(self) -> tuple[str, ...]:
        """Return the other architectures, which are equally probable."""
        if self.options.others:
            return self.options.others
        # The product includes the main ConvNet, as in the paper: `merge` adds that share to the main one's.
        name, size = self._similar_to
        return tuple(
            str(Name(name, (*size.items(), ("norm", norm), ("act", act), ("pool", pool))))
            for act, norm, pool in itertools.product(ACTIVATIONS, NORMS, POOLINGS)
        )

    @property
    def _similar_to(self) -> tuple[str, dict[str, str]]:
        """Return the ConvNet's name, and the width and depth of the similar ConvNets that are not its defaults."""
        main = parse_name(self._main)
        is_convnet = main.name.rpartition(":")[2] == "convnet"  # the name of its distribution may stand before it
        size = {key: value for key, value in main.options if is_convnet and key in ("width", "depth")}
        chosen = {"width": self.options.width, "depth": self._depth}
        size |= {key: str(value) for key, value in chosen.items() if value is not None}
        return main.name if is_convnet else "convnet", size

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the main architecture alone during the warm-up, and then all of them."""
        if iteration < self._warmup:
            return {self._main: 1.0}
        return merge({self._main: self._probability}, uniform(self.similar, 1 - self._probability))
