"""What the protocols of evaluators consist of: constants by protocol, and their augmentations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from harness import Augment, Problem, Recipe
from mpdd_plugins.augmentations import dc, dsa, idc, ncfm, views
from mpdd_plugins.evaluators import decoupled_recipes
from mpdd_plugins.evaluators.decoupled_recipes import DECOUPLED, HalfCosine

EPOCHS = {
    "v1": (301, 1001),
    "quick": (101, 101),
    "dsa": (1001, 1001),
    "mtt": (1001, 1001),
    "idc": (1000, 1000),
    "ncfm": (2000, 2000),
    "dd": (1, 1),
    "seqmatch": (1001, 1001),
    "frepo": (1000, 1000),
    "frepo-softmax": (1000, 1000),
    **{name: (epochs, epochs) for name, epochs in decoupled_recipes.EPOCHS.items()},
}
"""Epochs of each protocol, without and with augmentation (DC, utils.py: the last index is 300 or 1000). Under dd, how
often the steps of the set's schedule are repeated: a schedule lists DD's own repetitions (Wang et al., section 3.4).
Under seqmatch, epochs of each step of the schedule. FRePo's depend on the number of images: these are those of ten."""
FAMILY = {
    "v1": "dc",
    "quick": "dc",
    "dsa": "dsa",
    "mtt": "dsa",
    "seqmatch": "dsa",
    "idc": "idc",
    "ncfm": "ncfm",
    "dd": "dd",
    "frepo": "dsa",
    "frepo-softmax": "dsa",
    **{name: name for name in DECOUPLED},
}
"""Family of augmentations of each protocol."""
FREPO: Mapping[str, Any] = {"optimizer": "adam", "schedule": "cosine", "batch": 500}
OWN: Mapping[str, Mapping[str, Any]] = {
    "idc": {"schedule": "milestones", "batch": 64},
    "ncfm": {"optimizer": "adamw", "schedule": "milestones", "batch": 128},
    "frepo": FREPO,
    "frepo-softmax": FREPO,
    **decoupled_recipes.OWN,
}
"""Options that a protocol has in place of the defaults."""
RATES = {"ncfm": 0.001, **dict.fromkeys(DECOUPLED, decoupled_recipes.RATE)}
"""Learning rates of protocols that have another than v1's."""
FALLS: Mapping[str, tuple[Sequence[Fraction], float]] = {
    "ncfm": ([Fraction(part, 5) for part in range(1, 5)], 0.5),
}
"""Of a protocol with a schedule of its own, the shares of the epochs at which the rate falls, and its factor there."""
USUAL_FALLS = ([Fraction(2, 3), Fraction(5, 6)], 0.2)
"""Those of ``schedule=milestones`` under every other protocol (IDC, train.py)."""
FREPO_STEPS = {10: 1000, 100: 2000, 200: 20000, 500: 5000, 1000: 10000}
"""Steps of FRePo's students by the most images for which they are taken (FRePo, script/eval)."""
FREPO_MOST, FREPO_WARMUP = 40000, 500
"""Steps on more images than these, and those in which the rate rises."""
LABEL_TEMPERATURE = 0.1
"""By which real labels are divided before their softmax under frepo-softmax: onehot - 1/10 has 0.9996 for its class."""


def _check_none(operations: str | None) -> str | None:
    """Raise `ValueError` unless the option ``augment`` asks for no augmentation."""
    if operations not in (None, "none"):
        raise ValueError("the protocol dd augments no images: leave out augment")
    return operations


# By family: how an option is validated, how an augmentation is created, and what the protocol has for a data set.
CHECK = {
    "dc": dc.check_strategy,
    "dsa": dsa.check_strategy,
    "idc": idc.check_strategy,
    "ncfm": ncfm.check_strategy,
    "dd": _check_none,
    **dict.fromkeys(DECOUPLED, views.check_strategy),
}
MAKE: dict[str, Callable[[str, int], Augment]] = {
    "dc": lambda operations, classes: dc.dc_augmentation(operations),
    "dsa": lambda operations, classes: dsa.dsa_augmentation(operations),
    "idc": idc.idc_augmentation,
    "ncfm": ncfm.ncfm_augmentation,
    **dict.fromkeys(DECOUPLED, views.view_augmentation),
}
OF_SET: dict[str, Callable[[Problem], str]] = {
    "dc": lambda problem: problem.augmentations.get("dc", "none"),
    "dsa": dsa.own_strategy,
    "idc": idc.own_strategy,
    "ncfm": ncfm.own_strategy,
    "dd": lambda problem: "none",
    **decoupled_recipes.OF_SET,
}
PROTOCOLS = (
    "v1: 301 epochs of SGD, momentum 0.9, weight decay 5e-4, lr 0.01, tenfold lower after epoch index 151 with "
    "fresh momentum, batch 256; 1001 epochs where the set is augmented (mnist). quick: 101 epochs, lower after "
    "index 51. dsa: v1 with 1001 epochs under DSA's augmentation. mtt: dsa with the learning rate that the set has "
    "learned. idc: 1000 epochs of v1's SGD, a fifth of the rate from two thirds and again from five sixths of them "
    "on with the momentum kept, batch 64, under IDC's augmentation with CutMix. ncfm: 2000 epochs of AdamW, lr "
    "0.001, weight decay 5e-4, half the rate at each fifth of them, batch 128, under DSA's augmentation with CutMix. "
    f"{decoupled_recipes.MEANING}"
)
SOFTMAX = "frepo-softmax: frepo's steps with the cross-entropy; real labels y become the class weights softmax(y / 0.1)"
"""The meaning of the option ``protocol`` of every evaluator."""
FIXED = {"dd": ("lr", "optimizer", "schedule", "batch"), "seqmatch": ("lr",)}
"""Options that a protocol does not have, because the set's schedule decides them."""


def falls_of(protocol: str, epochs: int) -> dict[str, Any]:
    """Return the milestones of a protocol in so many epochs, rounded down, and its factor, as fields of a recipe."""
    shares, factor = FALLS.get(protocol, USUAL_FALLS)
    # At least 1: of a single epoch, which has no milestone within it, all would be 0.
    milestones = tuple(sorted({max(1, int(share * epochs)) for share in shares}))
    return {"schedule": "milestones", "milestones": milestones, "factor": factor}


def scheduled(recipe: Recipe, schedule: str, protocol: str, length: int) -> Recipe:
    """Return a recipe with the schedule of an option over so many epochs (or steps)."""
    if schedule == "half-cosine":
        return HalfCosine(**{**vars(recipe), "schedule": "cosine"})
    return replace(recipe, **(falls_of(protocol, length) if schedule == "milestones" else {"schedule": schedule}))


def frepo_recipe(steps: int) -> Recipe:
    """Return the recipe of FRePo's students of so many steps; a shorter one than the published has less warm-up."""
    warmup = min(FREPO_WARMUP, steps // 2)
    return Recipe(epochs=0, lr=3e-4, weight_decay=0.0, steps=steps, warmup=warmup, last=0.01, **FREPO)
