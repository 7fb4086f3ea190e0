"""Dataset condensation with contrastive signals: Lee et al., ICML 2022 (DCC), and DSAC, its siamese augmentation.

DC matches the gradients of each class, DCC the gradient of all of them together, so that what distinguishes classes
counts (section 4): D of the mean of the classes' real gradients, and the gradient of all synthetic images.
"""

from typing import Literal

from torch import Tensor

from harness import Network, Pair, match_collectively, option
from mpdd_plugins.methods.dc import DC, DCOptions
from mpdd_plugins.methods.dsa import DSA, DSAOptions

LOOPS = {1: (10, 5), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Image updates per network, and epochs of the network between them, by ipc, as published (DCC's code)."""


class DCCOptions(DCOptions):
    """Options of `DCC`."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="DCC")
    warm_outer: int = option(
        250, "networks drawn before the collective loss is used from the start", source="DCC", ge=0
    )
    warm_inner: int = option(10, "image updates a network that match class by class until then", source="DCC", ge=0)

    def loops(self, ipc: int) -> tuple[int, int]:
        """Return the outer and inner loops: the published ones, or for another ipc 10 to 50 and 500 epochs in all."""
        outer, inner = LOOPS.get(ipc) or (min(max(ipc, 10), 50), 0)
        outer = self.outer or outer
        inner = inner or max(1, 500 // outer)
        return outer, inner if self.inner is None else self.inner


class DCC(DC):
    """DC with the gradients of all classes matched at once, after a warm-up in which they are matched one by one."""

    Options = DCCOptions
    options: DCCOptions

    def _match(self, network: Network, iteration: int, round_: int) -> Tensor:
        """Set the images' gradient to that of the loss of this update, and return the loss."""
        # With ipc 1 a network has ten updates: until warm_outer networks are drawn, all of them are class by class.
        if iteration < self.options.warm_outer and round_ < self.options.warm_inner:
            return super()._match(network, iteration, round_)

        def pair(label: int) -> Pair:
            return self._pair(label, iteration, round_)

        problem, reduced = self.task.problem, self.task.reduced_precision
        loss, self.images.grad = match_collectively(network, problem, pair, self.distance, reduced)
        # `DC.step` logs a mean over classes, which this loss is not a sum over.
        return loss * self.classes


class DSACOptions(DCCOptions, DSAOptions):
    """Options of `DSAC`."""


class DSAC(DCC, DSA):
    """DCC with an augmentation for each class and step, applied to its real and synthetic images alike."""

    Options = DSACOptions
    options: DSACOptions
