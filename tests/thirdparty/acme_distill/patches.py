"""An architecture without convolutions over the whole image: patches are embedded one by one, and averaged."""

from torch import Tensor, nn

from harness import Architecture, DataError, Network, Options, Shape, option


class PatchesOptions(Options):
    """Options of `Patches`."""

    patch: int = option(4, "height and width of a patch", ge=1)
    width: int = option(32, "features of a patch", ge=1)


class Patches(Architecture[PatchesOptions]):
    """Embeds patches that do not overlap, averages them, and classifies the mean."""

    Options = PatchesOptions

    def network(self, shape: Shape, classes: int) -> Network:
        """A network for images that hold at least one patch."""
        patch = self.options.patch
        if min(shape[1:]) < patch:
            raise DataError(f"patches[patch={patch}] needs larger images than {shape[1]}x{shape[2]}")
        return PatchNetwork(shape[0], patch, self.options.width, classes)


class PatchNetwork(Network):
    """The network of `Patches`."""

    def __init__(self, channels: int, patch: int, width: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.classifier = nn.Linear(width, classes)
        self.name_taps({"patches": "embed", "mixed": "mix"})

    def features(self, images: Tensor) -> Tensor:
        """Mean features of all patches (n, width)."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        return self.mix(patches).mean(1)
