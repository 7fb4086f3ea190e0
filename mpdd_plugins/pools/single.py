"""Pool of a single architecture, as methods are published."""

from collections.abc import Mapping

from harness import Options, Pool, option


class SingleOptions(Options):
    """Options of `Single`."""

    main: str = option("convnet", "the architecture", source="DC")


class Single(Pool[SingleOptions]):
    """Draws the same architecture for each network."""

    Options = SingleOptions

    @property
    def main(self) -> str:
        """Return the architecture."""
        return self.options.main

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return probability 1 for the architecture."""
        return {self.options.main: 1.0}
