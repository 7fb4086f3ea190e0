"""What turns stored numbers into images to train on, by name: packed and factorised parametrisations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import DataError


class Decoder(Protocol):
    """Makes training images of what a set stores; the budget counts what is stored."""

    name: ClassVar[str]

    def decode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (m, channels, height, width) in [0, 1], before preprocessing, and their labels."""
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
        """``factor``² images for each."""
        height, width = images.shape[2:]
        missing = [-size % self.factor for size in (height, width)]
        padded = functional.pad(images, (0, missing[1], 0, missing[0]), value=0.5)
        rows = padded.chunk(self.factor, dim=2)
        patches = torch.cat([patch for row in rows for patch in row.chunk(self.factor, dim=3)])
        enlarged = functional.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)
        return enlarged, torch.cat([labels] * self.factor**2)


DECODERS: Mapping[str, type[Any]] = {MultiFormation.name: MultiFormation}


def decoder_metadata(decoder: Decoder) -> dict[str, Any]:
    """As JSON, all that `decoder_from` needs to build it again."""
    return {"name": decoder.name, **asdict(decoder)}  # type: ignore[call-overload]


def decoder_from(metadata: Mapping[str, Any]) -> Decoder:
    """The decoder that gave `decoder_metadata`.

    Raises:
        DataError: there is none of that name, or its options are not the ones that it takes.
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
