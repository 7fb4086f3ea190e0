"""The recipes of the protocols sre2l and rded, by which students of decoupled methods are trained.

Both train with AdamW on mixed images, and by their papers on the answers of a teacher that was trained on the real
data (``kd`` and ``soft-labels``); ``plain`` trains by the same recipe on the mixed labels of the set.

Departures from the published code. Weight decay is that of all weights (RDED's code leaves out those of norms and
biases), and accuracies are those after the last epoch (RDED's code reports the best of the last fifth). RDED has other
rates for some architectures (vgg11 5e-4, alexnet 1e-4): set ``lr``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import Recipe
from mpdd_plugins.augmentations import views

DECOUPLED = ("sre2l", "rded")
EPOCHS = {"sre2l": 400, "rded": 300}
OWN: Mapping[str, Mapping[str, Any]] = {
    "sre2l": {"optimizer": "adamw", "schedule": "cosine", "batch": 128},
    "rded": {"optimizer": "adamw", "schedule": "half-cosine", "batch": None},
}
"""Options that these protocols have in place of the defaults; the batch of rded depends on the images per class."""
RATE, WEIGHT_DECAY = 0.001, 0.01
OPERATIONS = {"sre2l": "crop+flip+mixup", "rded": "flip+cutmix"}
OF_SET = {name: views.own_strategy(operations) for name, operations in OPERATIONS.items()}
"""Augmentations. RDED crops parts of the size of a patch; on images of one patch, as on CIFAR, that is all of it."""
TEMPERATURES = {"sre2l": 30.0, "rded": 20.0}
TEACHER_MODES = {"sre2l": "train", "rded": "eval"}
"""SRe2L's code leaves its teacher in training mode, so that batch norm takes the statistics of each batch."""
MEANING = (
    "sre2l: 400 epochs of AdamW, lr 0.001, weight decay 0.01, a cosine to zero, batch 128, shifted and mirrored images "
    "under Mixup of beta 0.8. rded: 300 epochs of the same with a cosine to half of the rate, batch 10, 50 or 100 at "
    "up to 1, up to 10 or more images per class, twice that from 100 classes on, mirrored images under CutMix"
)


@dataclass(frozen=True)
class HalfCosine(Recipe):
    """A recipe whose rate falls by half a cosine's way: lr (1 + cos(pi epoch / (2 epochs))) / 2 (RDED, validation)."""

    def rate(self, unit: int, total: int | None = None) -> float:
        """Return the learning rate of the epoch with this index."""
        length = self.epochs if total is None else total
        return self.lr * 0.5 * (1 + math.cos(math.pi * unit / (2 * max(1, length))))

    def identity(self) -> dict[str, Any]:
        """Return the fields as JSON for the key of an artifact."""
        return {**super().identity(), "schedule": "half-cosine"}


def decoupled_batch(protocol: str, images: int, classes: int) -> int:
    """Return the images of a step: RDED's by the images per class; never more than there are images."""
    if protocol == "sre2l":
        return 128
    per_class = max(1, images // classes)
    batch = 10 if per_class == 1 else 50 if per_class <= 10 else 100
    return min(images, batch * (2 if classes >= 100 else 1))
