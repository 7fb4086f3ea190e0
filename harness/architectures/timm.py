"""timm's classifiers as architectures (PyTorch Image Models, Wightman, 2019)."""

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationInfo, field_validator
from torch import nn

from harness.architectures.pretrained import WeightOptions, check_weights, load_weights, weights_option
from harness.architectures.torchvision import TorchvisionNetwork
from harness.errors import DataError, UsageError, did_you_mean
from harness.system.packages import require_packages
from harness.types.network import Architecture
from harness.types.options import option
from harness.types.problem import Shape

NEEDS = {"timm": "ddbench[timm]"}


class TimmOptions(WeightOptions):
    """Options of `TimmClassifier`."""

    model: str = option(..., "a classifier of timm, such as resnet10t; without the tag of weights")
    weights: str | None = weights_option("the tag c3_in1k")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        require_packages(f"timm[model={model}]", NEEDS)
        import timm

        if not timm.is_model(model) or "." in model:
            near = (
                did_you_mean(model, timm.list_models())
                if timm.list_models(f"*{model[:4]}*")
                else "see timm.list_models()"
            )
            raise UsageError(f"timm[model={model}]: there is no such classifier: {near}")
        return model

    @field_validator("weights")
    @classmethod
    def _are_known(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if "model" in info.data:  # otherwise that is the error to report
            check_weights("timm", weights, lambda: _tags(info.data["model"]))
        return weights

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; weights of timm by their tag, which ``default`` may come to change."""
        values = super().as_json()
        if self.weights == "default":
            values["weights"] = _configuration(self).tag
        return values


class TimmClassifier(Architecture[TimmOptions]):
    """Any classifier of timm whose last layer is linear, initialised at random or from pretrained weights.

    Layers and initial weights are timm's. Models that are built for a size of images (vision transformers) are built
    for that of the data set. Taps have the names of the model's parts, and of the parts of sequences among them. The
    rules for pretrained weights and grey images are those of `TorchvisionClassifier`.
    """

    Options = TimmOptions

    @property
    def pretrained(self) -> bool:
        """Whether networks start from pretrained weights."""
        return self.options.weights is not None

    def network(self, shape: Shape, classes: int) -> TorchvisionNetwork:
        """Build a network for images of ``shape`` (c, h, w), and try it on one image.

        Raises:
            DataError: the images are neither grey nor colour, or of a size that the model cannot take; or its last
                layer is not one linear layer.
        """
        if shape[0] not in (1, 3):
            raise DataError(f"{self._name} takes grey or colour images, not {shape[0]} channels: drop or add channels")
        try:
            model, head = self._model(shape, classes), _configuration(self.options).classifier
            if not isinstance(head, str) or not isinstance(model.get_submodule(head), nn.Linear):
                raise DataError(f"{self._name} does not end in one linear layer: take another model")
            if file := self._weight_file():
                load_weights(model, file, head, self._name)
            network = TorchvisionNetwork(model, shape, head).eval()
            with torch.no_grad():
                network.try_on(torch.zeros(1, *shape))
        except (RuntimeError, ValueError, AssertionError, AttributeError) as error:
            side = _configuration(self.options).input_size[-1]
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{self._name} cannot use images of {shape[1]}x{shape[2]}: resize them (it is meant for {side}x{side}) "
                f"or take another model ({reason})"
            ) from error
        return network.train()

    @property
    def _name(self) -> str:
        return f"timm[model={self.options.model}]"

    def _model(self, shape: Shape, classes: int) -> nn.Module:
        import timm

        sized: dict[str, Any] = {"img_size": shape[1:]} if _configuration(self.options).fixed_input_size else {}
        model: nn.Module = timm.create_model(self.options.model, pretrained=False, num_classes=classes, **sized)
        return model

    def _weight_file(self) -> Path | None:
        """Return the file of the weights; None if there are none.

        Raises:
            DataError: the cache of the Hugging Face hub does not hold it.
        """
        options = self.options
        if options.weights is None or options.weight_file:
            return options.weight_file
        from huggingface_hub import try_to_load_from_cache

        place = _configuration(options).hf_hub_id
        cached = try_to_load_from_cache(place, "model.safetensors") if place else None
        if not isinstance(cached, str | os.PathLike):
            remedy = f"`hf download {place} model.safetensors` puts them there" if place else "timm has none on the hub"
            raise DataError(f"{self._name}: the weights are not in the hub's cache: {remedy}; or name a file")
        return Path(cached)


def _configuration(options: TimmOptions) -> Any:  # noqa: ANN401
    """Return timm's description of the model with the weights that are named, or its default ones."""
    from timm.models import get_pretrained_cfg

    tagged = options.weights in _tags(options.model)
    return get_pretrained_cfg(f"{options.model}.{options.weights}" if tagged else options.model)


def _tags(model: str) -> list[str]:
    import timm

    return [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
