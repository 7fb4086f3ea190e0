"""Torchvision's classifiers as architectures."""

from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor, nn

from harness.errors import DataError, UsageError, did_you_mean
from harness.types.network import Architecture, Network
from harness.types.options import Options, option
from harness.types.problem import Shape


class TorchvisionOptions(Options):
    """Options of `TorchvisionClassifier`."""

    model: str = option(..., "a classifier of torchvision, such as mobilenet_v2")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        known = classifiers()
        if model not in known:
            raise UsageError(f"torchvision[model={model}]: there is no such classifier: {did_you_mean(model, known)}")
        return model


class TorchvisionNetwork(Network):
    """A classifier of torchvision, taken apart before its last linear layer, or its last convolution if it has none."""

    def __init__(self, model: nn.Module, shape: Shape) -> None:
        super().__init__()
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        if linear:
            self.classifier = model.get_submodule(linear[-1])
            model.set_submodule(linear[-1], nn.Identity())
            self.trunk = model
        else:  # SqueezeNet: its classifier is a convolution on maps, so features are flattened and unflattened again
            self.trunk = model.get_submodule("features")
            maps = self.trunk.eval()(torch.zeros(1, 3, *shape[1:])).shape[1:]
            self.classifier = nn.Sequential(nn.Unflatten(1, maps), model.get_submodule("classifier"), nn.Flatten())

    def features(self, images: Tensor) -> Tensor:
        """Return the flattened input of the classifier, (n, features); a grey image is repeated on three channels."""
        vectors: Tensor = self.trunk(images.expand(-1, 3, -1, -1))
        return vectors.flatten(1)


class TorchvisionClassifier(Architecture[TorchvisionOptions]):
    """Any classifier of torchvision, without trained weights.

    Layers and initial weights are torchvision's, so a vision transformer, which is built for the size of the images,
    starts with a classifier of zeros. The auxiliary classifiers of GoogLeNet and Inception are left out.
    """

    Options = TorchvisionOptions

    def network(self, shape: Shape, classes: int) -> TorchvisionNetwork:
        """Build a network for images of ``shape`` (c, h, w), and try it on one image.

        Raises:
            DataError: the images are neither grey nor colour, or of a size that the model cannot take.
        """
        if shape[0] not in (1, 3):
            raise DataError(f"{self._name} takes grey or colour images, not {shape[0]} channels: drop or add channels")
        # Whether a model takes images of a size shows only when it runs. In evaluation mode, in which batch norm
        # accepts a single image.
        try:
            network = TorchvisionNetwork(self._model(shape, classes), shape).eval()
            with torch.no_grad():
                network(torch.zeros(1, *shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise DataError(
                f"{self._name} cannot use images of {shape[1]}x{shape[2]}: resize them ({self._advice()}) or take "
                f"another model ({str(error).splitlines()[0]})"
            ) from error
        return network.train()

    @property
    def _name(self) -> str:
        return f"torchvision[model={self.options.model}]"

    def _model(self, shape: Shape, classes: int) -> nn.Module:
        from torchvision.models import get_model

        name, extra = self.options.model, dict[str, Any]()
        if name in ("googlenet", "inception_v3"):
            extra = {"aux_logits": False, "init_weights": False}
        elif name.startswith("vit_") and shape[1] == shape[2]:
            extra = {"image_size": shape[1]}
        model: nn.Module = get_model(name, weights=None, num_classes=classes, **extra)
        # No network here works in place: a tensor that a method or a hook holds may not change afterwards.
        module: Any
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        return model

    def _advice(self) -> str:
        from torchvision.models import get_model_weights

        height, width = next(iter(get_model_weights(self.options.model))).meta["min_size"]
        return f"it is meant for {height}x{width} or more"


def classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models

    return list(models.list_models(module=models))
