"""Networks and pairs of image batches whose gradients are matched, in double precision."""

import torch
from toys import component

from harness import Pair, freeze_statistics

NETWORKS = {
    "mlp": "mlp[width=8]",
    "convnet": "convnet[width=4,depth=2]",
    "convnet with batch norm": "convnet[width=4,depth=2,norm=batch]",
    "convnet with max pooling": "convnet[width=4,depth=2,norm=layer,pool=max]",
    "lenet": "lenet",
}
SHAPE, CLASSES = (1, 16, 16), 3


def network_of(name, seed=0):
    """A network in float64, with frozen batch norm."""
    generator = torch.Generator().manual_seed(seed)
    network = component("architecture", NETWORKS[name]).build(SHAPE, CLASSES, generator).double()
    freeze_statistics(network, lambda: torch.randn(20, *SHAPE, generator=generator, dtype=torch.float64))
    return network


def pairs_of(ipc, counts=(5, 5, 5), dtype=torch.float64):
    """One pair a class, each with a transform of its own."""
    generator = torch.Generator().manual_seed(7)

    def transform(label):
        return lambda images: images.roll(label, 3) * (1 + 0.1 * label)

    return [
        Pair(
            label,
            torch.randn(count, *SHAPE, generator=generator, dtype=dtype),
            torch.randn(ipc, *SHAPE, generator=generator, dtype=dtype),
            transform(label),
        )
        for label, count in enumerate(counts)
    ]


def assert_same(actual, expected, rtol):
    losses, gradients = actual
    assert not losses.requires_grad
    torch.testing.assert_close(losses, expected[0], rtol=rtol, atol=0)
    for mine, other in zip(gradients, expected[1], strict=True):
        assert other.norm() > 0
        assert (mine - other).norm() <= rtol * other.norm()
