"""Batch normalisation while gradients are matched: fixed statistics of real images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_statistics(network: nn.Module, images: Callable[[], Tensor]) -> None:
    """Set every batch norm's running statistics to those of ``images()`` and let it use them from now on.

    The reference moves them only a tenth of the way (momentum 0.1 from a fresh start); here they are exactly the
    batch's: cumulative statistics of one forward pass. ``network.train()`` makes the layers use batch statistics again.
    A network without batch norm is left alone, and ``images`` is not called.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None
    with torch.no_grad():
        network(images())
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
