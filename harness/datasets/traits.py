"""Traits of the field's data sets, and the option that declares the user's own images a copy of one."""

import math
from dataclasses import replace

import pydantic

from harness.errors import did_you_mean
from harness.types.dataset import DatasetOptions, RunDefaults, Traits
from harness.types.options import option

PAPER_DEFAULTS = RunDefaults(ipc=(1, 10), iterations=(1000, 2000, 3000), students=10)
"""The model-pool paper's grid; its logs show one set of 10 students for each cell."""

FULL_DEFAULTS = RunDefaults(iterations=(1000,), students=5)
"""Defaults of a sound run on a data set of full size."""

QUICK_DEFAULTS = RunDefaults(
    options={
        **{method: {"batch_real": "64"} for method in ("dc", "dsa", "dcc", "dsac", "dm")},
        "idc": {"inner": "10", "n_data": "128", "batch_real": "32", "metric": "l1", "lr_img": "0.001"},
        "mtt": {"experts": "5", "train_epochs": "20", "lr_img": "100"},
        "frepo": {"batch_real": "256", "networks": "4", "lr_img": "0.003"},
        "dd": {"batch_real": "256", "epochs": "10", "lr_img": "0.05"},
        **{evaluator: {"protocol": "quick"} for evaluator in ("plain", "kd", "kernel", "continual")},
    }
)
"""Defaults of a run of a few minutes, for small sets and for unknown ones."""

_DSA_WITHOUT_FLIP = "color+crop+cutout+scale+rotate"
_PLAIN = {"dc": "none", "dsa": _DSA_WITHOUT_FLIP}
_FLIPPED = {"dc": "none", "dsa": "color+crop+cutout+flip+scale+rotate"}
_MNIST = {"dc": "crop+scale+rotate", "dsa": _DSA_WITHOUT_FLIP}

# Licences: of Fashion-MNIST, the LICENSE file of its repository (zalandoresearch/fashion-mnist); of MNIST, what the
# documentation of tf.keras.datasets.mnist states for its copyright holders, LeCun and Cortes. The card of ylecun/mnist
# on the Hugging Face hub says mit instead, and names no source: the stricter of the two is stated here.
KNOWN_TRAITS = {
    "mnist": Traits("mnist", _MNIST, FULL_DEFAULTS, "mnist", licence="cc-by-sa-3.0"),
    "fashion-mnist": Traits("fashion-mnist", _FLIPPED, FULL_DEFAULTS, "fashion-mnist", licence="mit"),
    "svhn": Traits("svhn", _PLAIN, FULL_DEFAULTS, "svhn"),
    "cifar10": Traits("cifar10", _FLIPPED, PAPER_DEFAULTS, "cifar10"),
    "cifar100": Traits("cifar100", _FLIPPED, FULL_DEFAULTS, "cifar100"),
    "tinyimagenet": Traits("tinyimagenet", _FLIPPED, FULL_DEFAULTS, "tinyimagenet"),
}
"""The sets of the DC code base with its normalisations and augmentations (main.py, ``get_daparam``)."""


def convnet_depth(size: int) -> int:
    """Return the blocks of the ConvNet that papers use on images of ``size`` pixels a side.

    3 at 32, 4 at 64, 5 at 128, 6 at 256 (MTT): blocks halve the sides until about 4 are left. No paper was found to
    have one at 224 pixels; there it is 6, whose last maps of 3 x 3 are nearer to that than the 7 x 7 of 5 blocks.
    """
    return max(1, round(math.log2(size / 4)))


def sized(traits: Traits, size: int) -> Traits:
    """Return the traits with the main models for images of ``size`` pixels a side.

    Pools, teachers and students that are ConvNets by default have `convnet_depth` blocks.
    """
    depth = str(convnet_depth(size))
    if depth == "3":  # what a ConvNet has anyway
        return traits
    main = f"convnet[depth={depth}]"
    options = {
        "convnet": {"depth": depth},
        **{pool: {"main": main} for pool in ("single", "main-model", "main-similar", "adaptive", "deep")},
        "total-random": {"of": f"{main}+lenet+alexnet+vgg11"},
        "pair": {"of": f"{main}+resnet18"},
        "early-stage": {"of": main},
        **{evaluator: {"teacher": main} for evaluator in ("kd", "droppath")},
        **{method: {"network": main} for method in ("herding", "k-center")},
    }
    own = traits.defaults.options
    merged = {name: {**own.get(name, {}), **options.get(name, {})} for name in (*own, *options)}
    return replace(traits, defaults=replace(traits.defaults, options=merged))


TINY_IMAGENET_TRAITS = sized(KNOWN_TRAITS["tinyimagenet"], 64)
"""Tiny-ImageNet as papers run it: on a ConvNet of 4 blocks."""

IMAGENET_TRAITS = Traits("imagenet", _FLIPPED, FULL_DEFAULTS)
"""ImageNet and its subsets; the main models depend on the size."""

CORRUPTED_CIFAR10_TRAITS = replace(KNOWN_TRAITS["cifar10"], like_in_training_alone=True)
"""CIFAR-10 with other test images: sets are those of CIFAR-10, and its published accuracies do not apply."""

MEDICAL_TRAITS = Traits("auto", _PLAIN, FULL_DEFAULTS)
"""Medical images, of which many would be others if they were flipped."""

DIGITS_TRAITS = Traits("auto", _PLAIN, QUICK_DEFAULTS, licence="cc-by-4.0")
"""The embedded digits: mirrored digits are other signs, so nothing flips."""

UNKNOWN_TRAITS = Traits(None, _PLAIN, QUICK_DEFAULTS)
"""Traits of images about which nothing is known."""


class OwnImagesOptions(DatasetOptions):
    """Options of data sets made of the user's own files."""

    like: str | None = option(
        None,
        "the known set that these images are a copy of (cifar10, mnist, ...): its normalisation, run defaults and "
        "augmentations apply, and its published numbers are shown beside",
    )

    @pydantic.field_validator("like")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in KNOWN_TRAITS:
            raise ValueError(f"no known set is called {value!r}: {did_you_mean(value, KNOWN_TRAITS)}")
        return value

    @property
    def traits(self) -> Traits:
        """The traits of the set that the images are a copy of."""
        return KNOWN_TRAITS[self.like] if self.like else UNKNOWN_TRAITS
