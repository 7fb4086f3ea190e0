"""Batch norm with the fixed statistics of real images, which gradient matching needs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_statistics(network: nn.Module, images: Callable[[], Tensor]) -> None:
    """Set the running statistics of every batch norm to those of ``images()``, and make the layers use them.

    The statistics are exactly the batch's. DC's code moves them only a tenth of the way (momentum 0.1 from a fresh
    start). ``network.train()`` makes the layers use the statistics of each batch again.

    Args:
        network: changed in place; if it has no batch norm, nothing happens.
        images: returns network inputs (n, c, h, w); not called if there is no batch norm, so that it may be costly.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        # None is torch's cumulative average: after a reset, one pass sets the statistics to the batch's own.
        layer.momentum = None
    with torch.no_grad():
        network(images())
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        # Only the norm layers: dropout and the like go on as in training, as in DC's code.
        layer.eval()
