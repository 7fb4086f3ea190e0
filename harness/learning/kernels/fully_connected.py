"""The kernel of an infinitely wide fully connected network (Jacot et al., NeurIPS 2018; Lee et al., ICLR 2018)."""

from torch import Tensor

from harness.learning.kernels.kernel import Kernel
from harness.types.problem import Shape


class FullyConnected(Kernel):
    """Dense layers with an activation after each but the last; images are flattened.

    With S_0 = w x.x'/d + b, layer by layer: S <- w E[phi phi] + b, and T <- S + w T E[phi' phi'] from T = S_0 on. S is
    the kernel of the last layer's training (NNGP), T that of all layers' (NTK).
    """

    def __call__(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """Return the kernel of each pair of images: (n, m), float64."""
        options = self.options
        left, right = first.double().flatten(1), second.double().flatten(1)
        scale = options.weight / left.shape[1]
        nngp = scale * (left @ right.T) + options.bias
        rows, columns = (scale * flat.square().sum(1) + options.bias for flat in (left, right))
        ntk = nngp
        for _ in range(options.depth):
            product, slope = self.activated(nngp, rows[:, None], columns[None], same)
            nngp = options.weight * product + options.bias
            ntk = nngp + options.weight * ntk * slope
            rows, columns = (options.weight * self.own(each) + options.bias for each in (rows, columns))
        return ntk if options.of == "ntk" else nngp

    def floats_of_pair(self, shape: Shape) -> float:
        """Return about how many float64 values of memory a pair of images takes, with the graph."""
        # Measured on both activations, with some reserve.
        return 12.0 * (1 + self.options.depth)
