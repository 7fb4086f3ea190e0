"""The model pool of "Improve Cross-Architecture Generalization on Dataset Distillation" (Zhou, Zhong, Chen).

The paper's pool (tables 2 and 3) consists of a main ConvNet and 32 ConvNets that differ in activation, norm and
pooling.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

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
PLAIN_DEPTH = 5
"""Most blocks of similar ConvNets that are not residual; deeper ones hardly train without."""


class MainSimilarOptions(Options):
    """Options of `MainSimilar`."""

    main: str = option(
        "convnet:0.9", "main ARCHITECTURE:PROBABILITY; either half may be left out", source="model-pool paper, table 2"
    )
    others: NameList = option(
        (), "the others, which share the rest equally; empty: the 32 ConvNets of table 3", source="paper, table 3"
    )
    depth: tuple[int, ...] | None = option(
        None,
        "blocks of these ConvNets, several numbers joined by +; auto: as the main ConvNet, 1 as-released",
        source="paper, table 3",
    )
    width: int | None = option(
        None, "channels of these ConvNets; auto: as the main ConvNet", source="paper, table 3", ge=1
    )
    skip: bool | None = option(
        None,
        f"residual blocks in these ConvNets; auto: in those of more than {PLAIN_DEPTH} blocks, or as the main ConvNet",
        source="own choice, for depth",
    )
    warmup: int | None = option(None, "first iterations on the main architecture only; auto: 0", source="paper", ge=0)
    preset: Literal["as-written", "as-released"] = option(
        "as-written", "as-released: warmup 501 and depth 1, what the paper's code did", source="the paper's code"
    )

    _check_main = pydantic.field_validator("main")(check_main)

    @pydantic.field_validator("depth", mode="before")
    @classmethod
    def _several(cls, depth: Any) -> Any:  # noqa: ANN401
        return tuple(part.strip() for part in depth.split("+")) if isinstance(depth, str) else depth

    @pydantic.field_validator("depth")
    @classmethod
    def _some_blocks(cls, depth: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if depth is not None and (not depth or min(depth) < 1):
            raise ValueError("should be whole numbers from 1 on")
        return depth

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; a single depth is a number, and ``skip`` is there only if it is set."""
        # Cells keep the keys that they had before there could be several depths, and residual ones.
        values = super().as_json()
        if self.depth is not None and len(self.depth) == 1:
            values["depth"] = self.depth[0]
        return {key: value for key, value in values.items() if (key, value) != ("skip", None)}


class MainSimilar(Pool[MainSimilarOptions]):
    """Draws a main ConvNet with one probability, otherwise a ConvNet with another activation, norm or pooling.

    One of the 4 x 4 x 2 ConvNets equals the main one, whose probability is therefore 0.9 + 0.1 / 32 = 0.903125. Their
    width and depth are those of the main ConvNet unless an option sets them; with a main architecture of another kind,
    they are the ConvNet's defaults. Of several depths, there are 32 ConvNets each, all equally probable.

    ``skip=auto`` goes by the depths that the pool names: ``depth``, or that of ``main``. It does not see a depth that
    comes from ``--set convnet.depth=7``; with one of more than five blocks, give ``skip=true``.
    """

    Options = MainSimilarOptions
    version = 2

    def __init__(self, options: MainSimilarOptions) -> None:
        super().__init__(options)
        released = options.preset == "as-released"
        self._main, self._probability = main_of(options.main, architecture="convnet", probability=0.9)
        self._depths = options.depth or ((AS_RELEASED_DEPTH,) if released else None)
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
        return tuple(
            str(Name(self._similar_to, (*size.items(), ("norm", norm), ("act", act), ("pool", pool))))
            for size in self._sizes()
            for act, norm, pool in itertools.product(ACTIVATIONS, NORMS, POOLINGS)
        )

    @property
    def _similar_to(self) -> str:
        """Return the ConvNet's name, with its distribution if the main architecture has it."""
        name = parse_name(self._main).name
        return name if name.rpartition(":")[2] == "convnet" else "convnet"

    def _sizes(self) -> Iterator[dict[str, str]]:
        """Yield the options that decide the size of the similar ConvNets as far as they are set, by depth."""
        main = parse_name(self._main)
        of_main = dict(main.options) if main.name == self._similar_to else {}
        size = {key: value for key, value in of_main.items() if key in ("width", "depth")}
        size |= {"width": str(self.options.width)} if self.options.width is not None else {}
        for depth in self._depths or (None,):
            own = size | ({"depth": str(depth)} if depth is not None else {})
            deep = own.get("depth", "").isdigit() and int(own["depth"]) > PLAIN_DEPTH
            residual = of_main.get("skip") if self.options.skip is None else str(self.options.skip).lower()
            residual = "true" if deep and self.options.skip is None else residual
            yield own | ({"skip": residual} if residual is not None else {})

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the main architecture alone during the warm-up, and then all of them."""
        if iteration < self._warmup:
            return {self._main: 1.0}
        return merge({self._main: self._probability}, uniform(self.similar, 1 - self._probability))
