"""Plain images as network inputs, the parametrisation of most papers: what is stored is what students train on."""

from collections.abc import Mapping

from torch import Tensor

from harness import InitialImages, Options, Parametrisation, Shape


class Pixels(Parametrisation[Options]):
    """Stores network inputs and decodes nothing."""

    decodes_to = "inputs"

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return real images, or standard normal noise."""
        return {"images": start.inputs(start.ipc)}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the images as they are."""
        return tensors["images"], labels
