"""Images in [0, 1] that are preprocessed inside the graph, as IDC and its successors learn them."""

from collections.abc import Mapping

from torch import Tensor

from harness import InitialImages, Options, Parametrisation, Shape, check_pixels


class UnitPixels(Parametrisation[Options]):
    """Stores images in [0, 1]: every learned image can be looked at, and no pixel leaves the range of a real one."""

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return real images, or noise with the data set's mean and deviation, clamped."""
        return {"images": start.pixels(start.ipc)}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the images as they are; what trains on them preprocesses them."""
        return tensors["images"], labels

    def constrain(self, tensors: Mapping[str, Tensor]) -> None:
        """Clamp the images to [0, 1]."""
        tensors["images"].clamp_(0, 1)

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if a pixel lies outside of [0, 1]."""
        check_pixels(tensors["images"])
