"""How a GPU multiplies float32 numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Matrix products and convolutions in TF32 (10 bits of mantissa) under ``tf32``, else in float32; then as before.

    Left to itself torch takes TF32 for convolutions. Of no effect on a CPU. The setting belongs to the process.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
