"""Small images that are enlarged to the size of the data set's: more images in the storage of one."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from harness import InitialImages, Options, Shape, check_pixels, option
from mpdd_plugins.parametrisations.multi_formation import check_stored_shape
from mpdd_plugins.parametrisations.unit_pixels import UnitPixels


class DownsampleOptions(Options):
    """Options of `Downsample`."""

    factor: int = option(2, "the stored height and width are this many times smaller, rounded up", ge=1, le=64)

    def stored(self, shape: Shape) -> Shape:
        """Return the shape of a stored image for training images of a shape."""
        channels, height, width = shape
        return channels, -(-height // self.factor), -(-width // self.factor)


class Downsample(UnitPixels):
    """Stores images in [0, 1] of a smaller size, which are enlarged bilinearly."""

    Options = DownsampleOptions
    options: DownsampleOptions

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return real images or noise, each pixel the mean of those that it stands for."""
        images = start.pixels(start.ipc)
        _, *size = self.options.stored(start.problem.shape)
        return {"images": functional.interpolate(images, size=size, mode="area")}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the images enlarged to the data set's size."""
        size = shape[1:]
        return functional.interpolate(tensors["images"], size=size, mode="bilinear", align_corners=False), labels

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if a stored image has another size than the factor says, or a pixel outside of [0, 1]."""
        check_stored_shape(tensors["images"], self.options.stored(shape))
        check_pixels(tensors["images"])
