"""One architecture, always: what every method did before there were pools."""

from collections.abc import Mapping

from harness import Options, Pool, option


class SingleOptions(Options):
    """Options of `Single`."""

    main: str = option("convnet", "the architecture", source="DC")


class Single(Pool[SingleOptions]):
    """The same architecture at each fresh network."""

    Options = SingleOptions

    @property
    def main(self) -> str:
        """The architecture."""
        return self.options.main

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """All probability on one architecture."""
        return {self.options.main: 1.0}
