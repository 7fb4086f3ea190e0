"""Torchvision's classifiers as architectures."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from harness.architectures.pretrained import WeightOptions, check_weights, load_weights, weights_option
from harness.errors import DataError, UsageError, did_you_mean
from harness.types.network import LAST_TAP, Architecture, Network
from harness.types.options import option
from harness.types.problem import Shape


class TorchvisionOptions(WeightOptions):
    """Options of `TorchvisionClassifier`."""

    model: str = option(..., "a classifier of torchvision, such as mobilenet_v2")
    weights: str | None = weights_option("IMAGENET1K_V1")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        known = classifiers()
        if model not in known:
            raise UsageError(f"torchvision[model={model}]: there is no such classifier: {did_you_mean(model, known)}")
        return model

    @field_validator("weights")
    @classmethod
    def _are_known(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if "model" in info.data:  # otherwise that is the error to report
            check_weights("torchvision", weights, lambda: _names_of_weights(info.data["model"]))
        return weights

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; of weights of torchvision the file's name, which holds a digest."""
        values = super().as_json()
        if self.weights is not None and self.weight_file is None:
            values["weights"] = Path(_url(self.model, self.weights)).name
        return values


class TorchvisionNetwork(Network):
    """A classifier taken apart before its last layer, of which no layer works in place.

    Args:
        model: a classifier of torchvision, or of another library.
        shape: of an image.
        head: the path of its last layer if that is linear; None: SqueezeNet, whose classifier is a convolution.
    """

    def __init__(self, model: nn.Module, shape: Shape, head: str | None) -> None:
        super().__init__()
        # No network here works in place: a tensor that a method or a hook holds may not change afterwards.
        module: Any
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        if head is not None:
            self.classifier = model.get_submodule(head)
            model.set_submodule(head, nn.Identity())
            self.trunk = model
        else:  # SqueezeNet: its classifier is a convolution on maps, so features are flattened and unflattened again
            self.trunk = model.get_submodule("features")
            maps = self.trunk.eval()(torch.zeros(1, 3, *shape[1:])).shape[1:]
            self.classifier = nn.Sequential(nn.Unflatten(1, maps), model.get_submodule("classifier"), nn.Flatten())
        # Taps have torchvision's names, also where the trunk is a part of its model.
        self._prefix = "features." if head is None else ""
        self._last = head or ""

    def try_on(self, images: Tensor) -> None:
        """Run the network on one image (1, c, h, w), in the present mode, and name its taps in the order of the run."""
        ran: list[str] = []

        def hook(place: str) -> Callable[..., None]:
            def note(_module: nn.Module, _inputs: object, output: object) -> None:
                # What is no batch of anything is counted twice, and so left out below.
                is_batch = isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(images)
                ran.extend([place] if is_batch else [place, place])

            return note

        # Not the place of the last layer, nor what holds it: under these names torchvision returns logits.
        parts = [(place, part) for place, part in _parts(self.trunk) if not f"{self._last}.".startswith(f"{place}.")]
        handles = [part.register_forward_hook(hook(place)) for place, part in parts]
        try:
            self(images)
        finally:
            for handle in handles:
                handle.remove()
        names = {f"{self._prefix}{place}": f"trunk.{place}" for place in ran if ran.count(place) == 1}
        # The sequence `features` returns what its last part does, and the name means the classifier's input here.
        names.pop(LAST_TAP, None)
        self.name_taps(names)

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]  # the base class adds taps
        """Return the flattened input of the classifier, (n, features); a grey image is repeated on three channels."""
        vectors: Tensor = self.trunk(images.expand(-1, 3, -1, -1))
        return vectors.flatten(1)


class TorchvisionClassifier(Architecture[TorchvisionOptions]):
    """Any classifier of torchvision, initialised at random or from pretrained weights.

    Layers and initial weights are torchvision's, so a vision transformer, which is built for the size of the images,
    starts with a classifier of zeros. The auxiliary classifiers of GoogLeNet and Inception are left out.

    Pretrained weights must fit all layers but the last. That takes its weights only if it has as many classes as
    theirs, and starts at random otherwise. Grey images are repeated on three channels. Nothing is downloaded.

    Taps have the names that torchvision gives to a model's parts, and to the parts of sequences among them: ``layer1``
    and ``layer1.0`` of a ResNet, ``features.3`` of a VGG, ``encoder.layers.encoder_layer_0`` of a vision transformer.
    Parts that run more than once are left out. The axes after the first are the model's own.
    """

    Options = TorchvisionOptions

    @property
    def pretrained(self) -> bool:
        """Whether networks start from pretrained weights."""
        return self.options.weights is not None

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
            model = self._model(shape, classes)
            linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
            if file := self._weight_file():
                load_weights(model, file, linear[-1] if linear else "classifier.1", self._name)
            network = TorchvisionNetwork(model, shape, linear[-1] if linear else None).eval()
            with torch.no_grad():
                network.try_on(torch.zeros(1, *shape))
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
            # Their trained weights want inputs of another normalisation, which they apply themselves.
            extra = {"aux_logits": False, "init_weights": False, "transform_input": self.pretrained}
        elif name.startswith("vit_") and shape[1] == shape[2]:
            extra = {"image_size": shape[1]}
        model: nn.Module = get_model(name, weights=None, num_classes=classes, **extra)
        return model

    def _weight_file(self) -> Path | None:
        """Return the file of the weights; None if there are none.

        Raises:
            DataError: the cache of torch does not hold it.
        """
        options = self.options
        if options.weights is None or options.weight_file:
            return options.weight_file
        file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(_url(options.model, options.weights)))
        if not file.is_file():
            raise DataError(
                f"{self._name}: the weights are not in torch's cache: put {_url(options.model, options.weights)} "
                f"into {file.parent}, or name a file"
            )
        return file

    def _advice(self) -> str:
        from torchvision.models import get_model_weights

        height, width = next(iter(get_model_weights(self.options.model))).meta["min_size"]
        return f"it is meant for {height}x{width} or more"


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of a model with their paths, and the children of those that are sequences."""
    for name, child in model.named_children():
        yield name, child
        # Vision transformers hold their blocks one level deeper than other models do: in encoder.layers.
        inner = getattr(child, "layers", None)
        path, sequence = (name, child) if inner is None else (f"{name}.layers", inner)
        if isinstance(sequence, nn.Sequential | nn.ModuleList):
            yield from ((f"{path}.{part_name}", part) for part_name, part in sequence.named_children())


def _names_of_weights(model: str) -> list[str]:
    from torchvision.models import get_model_weights

    return [weights.name for weights in get_model_weights(model)]


def _url(model: str, weights: str) -> str:
    from torchvision.models import get_model_weights

    url: str = get_model_weights(model)["DEFAULT" if weights == "default" else weights].url
    return url


def classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models

    return list(models.list_models(module=models))
