"""NCFM's augmentation in training (Wang et al., CVPR 2025): DSA's, and CutMix on half of the batches after it."""

from harness import Augment, Composed, CutMix, Problem
from mpdd_plugins.augmentations import dsa, idc

CUTMIX = "cutmix"


def check_strategy(strategy: str | None) -> str | None:
    """Validate an option that names operations of DSA and ``cutmix``, joined by ``+`` (or ``_``), or ``none``.

    Returns:
        The same operations joined by ``+``, with ``cutmix`` at the end; None stands for the data set's own.

    Raises:
        ValueError: an operation is unknown or named twice.
    """
    if strategy is None or strategy == "none":
        return strategy
    names = [name.strip() for name in strategy.replace("_", "+").split("+")]
    of_images = [name for name in names if name != CUTMIX]
    if len(names) - len(of_images) > 1:
        raise ValueError(f"{CUTMIX!r} is named twice")
    for name in of_images:
        if name not in dsa.OPERATIONS:
            known = ", ".join([*dsa.OPERATIONS, CUTMIX])
            raise ValueError(f"there is no operation {name!r}: use {known} joined by +, or none")
    checked = dsa.check_strategy("+".join(of_images)) if of_images else None
    return "+".join(filter(None, [checked, CUTMIX if CUTMIX in names else None]))


def own_strategy(problem: Problem) -> str:
    """Return the operations that suit the data set: DSA's for it, and CutMix where IDC's protocol has it."""
    suited = dsa.own_strategy(problem)
    if suited == "none":
        return "none"
    return f"{suited}+{CUTMIX}" if idc.is_mixed(problem) else suited


def ncfm_augmentation(strategy: str, classes: int) -> Augment:
    """Return a function that augments training batches: one of DSA's operations a batch, and CutMix on half of them.

    Args:
        strategy: operations joined by ``+``; with CutMix, the result sees labels and returns class weights.
        classes: number of classes.
    """
    names = strategy.split("+")
    of_images = "+".join(name for name in names if name != CUTMIX)
    stages: list[Augment] = [dsa.dsa_augmentation(of_images)] if of_images else []
    if CUTMIX in names:
        stages.append(CutMix(classes, idc.MIXED))
    return stages[0] if len(stages) == 1 else Composed(*stages)
