"""The hold-out: the validation split that was cut from a training set."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class HoldOut:
    """The number of training images held out for validation, and the seed that chose them.

    Attributes:
        images: number of images held out; None if the record does not hold it.
        of: number of training images before the cut; None if the record does not hold it.
        seed: the seed of the draw.
    """

    images: int | None
    of: int | None
    seed: int

    def __str__(self) -> str:
        """Describe the hold-out for people: ``144 of 1437 training images, seed 0``."""
        if self.images is None or self.of is None:
            return f"part of the training images, seed {self.seed}"
        return f"{self.images} of {self.of} training images, seed {self.seed}"

    def as_json(self) -> dict[str, int | None]:
        """Return the hold-out as records and rows hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "HoldOut | None":  # noqa: ANN401
        """Parse the hold-out of a record or a row; None if nothing was held out.

        Raises:
            TypeError: the value is something else.
        """
        if value is None:
            return None
        if not isinstance(value, Mapping) or any(type(value.get(name)) is not int for name in ("images", "of", "seed")):
            raise TypeError(f"hold_out is {value!r}")
        return cls(value["images"], value["of"], value["seed"])
