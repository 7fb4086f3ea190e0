"""Decoders turn the numbers that a packed set stores into training images; each is known by its name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import DataError


class Decoder(Protocol):
    """A decoder makes training images from what a set stores; the storage budget counts what is stored."""

    name: ClassVar[str]

    def decode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return training images (m, channels, height, width) in [0, 1], before preprocessing, and their labels."""
        ...


@dataclass(frozen=True)
class MultiFormation:
    """IDC's packing: each stored image is a grid of ``factor`` x ``factor`` patches, and each is one training image.

    Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022, section 4: uniform
    formation. A patch is enlarged bilinearly to the size of the whole; a size that ``factor`` does not divide is padded
    with grey on the right and below. First come all images' patches at the top left, then those to the right of them.
    """

    name: ClassVar[str] = "multi-formation"
    factor: int

    def __post_init__(self) -> None:
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or not 1 <= self.factor <= 16:
            raise DataError(f"the factor of multi-formation is {self.factor!r}, not a whole number from 1 to 16")

    def decode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cut each image (n, channels, height, width) into ``factor``² training images, with a label for each."""
        height, width = images.shape[2:]
        # Grey (0.5) is the middle of [0, 1]: padding with black would put an edge into the last patches.
        missing = [-size % self.factor for size in (height, width)]
        padded = functional.pad(images, (0, missing[1], 0, missing[0]), value=0.5)
        rows = padded.chunk(self.factor, dim=2)
        patches = torch.cat([patch for row in rows for patch in row.chunk(self.factor, dim=3)])
        enlarged = functional.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)
        # The patches were concatenated position by position, so the labels repeat as whole blocks, not one by one.
        return enlarged, torch.cat([labels] * self.factor**2)


DECODERS: Mapping[str, type[Any]] = {MultiFormation.name: MultiFormation}


def decoder_metadata(decoder: Decoder) -> dict[str, Any]:
    """Return a decoder as JSON, with all that `decoder_from` needs to build it again."""
    return {"name": decoder.name, **asdict(decoder)}  # type: ignore[call-overload]


def decoder_from(metadata: Mapping[str, Any]) -> Decoder:
    """Build the decoder that `decoder_metadata` described.

    Raises:
        DataError: no decoder has that name, or the options are not valid for it.
    """
    options = {key: value for key, value in metadata.items() if key != "name"}
    name = metadata.get("name")
    if not isinstance(name, str) or name not in DECODERS:
        raise DataError(f"its images are packed by {name!r}, and this ddbench knows {', '.join(DECODERS)}")
    try:
        decoder: Decoder = DECODERS[name](**options)
    except TypeError:
        raise DataError(f"the decoder {name!r} does not take {sorted(options)}") from None
    return decoder
