"""A factorised set: images, and a light that all of them share, both learned."""

from collections.abc import Mapping

import torch
from torch import Tensor

from harness import DataError, InitialImages, Options, Parametrisation, Shape, check_pixels, option


class DimmedOptions(Options):
    """Options of `Dimmed`."""

    light: float = option(0.7, "share of each channel that the copy keeps at first", gt=0, lt=1)


class Dimmed(Parametrisation[DimmedOptions]):
    """Students train on each image, and on a copy of it that is darker, by channel, as was learned."""

    Options = DimmedOptions

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Images, and the light (channels, 1, 1)."""
        images = start.pixels(start.ipc)
        return {"images": images, "light": torch.full_like(images[0, :, :1, :1], self.options.light)}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Both, with the labels of the images."""
        images = tensors["images"]
        return torch.cat([images, images * tensors["light"]]), torch.cat([labels, labels])

    def constrain(self, tensors: Mapping[str, Tensor]) -> None:
        """All of it stays in [0, 1]."""
        for tensor in tensors.values():
            tensor.clamp_(0, 1)

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """What a file holds may be anything."""
        if tensors.keys() != {"images", "light"} or tensors["light"].shape != (shape[0], 1, 1):
            raise DataError(f"a dimmed set has images, and a light of shape {(shape[0], 1, 1)}")
        for tensor in tensors.values():
            check_pixels(tensor)
