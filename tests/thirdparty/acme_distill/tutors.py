"""The network on the real data that three components of this plugin ask for, and so share."""

from harness import CutMix, NamedAugment, Options, RealNetwork, Recipe, option


class TutorOptions(Options):
    """Options of components that ask for a network on the real data."""

    tutor_epochs: int = option(4, "epochs of the network on the real data", ge=0)
    cutmix: float = option(0.0, "probability of CutMix while it is trained", ge=0, le=1)


def tutor(architecture: str, options: TutorOptions) -> RealNetwork:
    """Its weights before, and after all epochs."""
    share = options.cutmix
    cutmix = NamedAugment(f"cutmix {share:g}", lambda problem: CutMix(len(problem.classes), share))
    return RealNetwork(
        architecture=architecture,
        recipe=Recipe(options.tutor_epochs, lr=0.1, batch=16),
        snapshots=(0, options.tutor_epochs),
        augmentation=cutmix if share else None,
    )
