"""Pool of a main ConvNet and networks of thirty layers or more: a question that the model-pool paper leaves open."""

from harness import NameList, option
from mpdd_plugins.pools.main_model import MainModel, MainModelOptions

DEEP = (
    "convnet[depth=30,skip=true]",
    "resnet-cifar[depth=32,norm=instance]",
    "resnet-cifar[depth=56,norm=instance]",
    "wrn[depth=40,width=1,norm=instance]",
    "densenet-bc[norm=instance]",
)
"""Networks of 31, 32, 56, 40 and 40 layers with weights, whose norm is that of the main ConvNet."""


class DeepOptions(MainModelOptions):
    """Options of `Deep`."""

    others: NameList = option(DEEP, "the deep networks, which share the rest equally", source="own choice")


class Deep(MainModel):
    """Draws a main ConvNet with one probability, and otherwise a network of 30 layers or more.

    It is ``main-model`` with other others: by default what ``mix[of=convnet:0.9+...]`` says with a weight of 0.02 for
    each of the five deep networks.
    """

    Options = DeepOptions
