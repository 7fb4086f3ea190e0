"""The accuracy of a student on corrupted images: Hendrycks and Dietterich, ICLR 2019."""

import itertools
from collections.abc import Iterator, Mapping
from statistics import fmean

import pydantic
import torch
from torch import Tensor

from harness import DataError, Metric, NameList, Network, Options, Problem, Streams, logits_for, option
from mpdd_plugins.metrics.corruptions import CORRUPTIONS, SEVERITIES, THROUGH_PILLOW

_AT_ONCE = 1000
"""Images that are corrupted at once."""


class CorruptedOptions(Options):
    """Options of `Corrupted`."""

    kinds: NameList = option(
        tuple(CORRUPTIONS),
        "kinds, joined by +: noise, blur, contrast, pixelate, jpeg",
        source="CIFAR-10-C",
        min_length=1,
    )
    severities: NameList = option(
        tuple(map(str, SEVERITIES)), "severities from 1 to 5, joined by +", source="CIFAR-10-C", min_length=1
    )

    @pydantic.field_validator("kinds")
    @classmethod
    def _check_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in CORRUPTIONS:
                raise ValueError(f"{kind!r} is no kind of corruption: there is {', '.join(CORRUPTIONS)}")
        return tuple(kind for kind in CORRUPTIONS if kind in kinds)

    @pydantic.field_validator("severities")
    @classmethod
    def _check_severities(cls, severities: tuple[str, ...]) -> tuple[str, ...]:
        for severity in severities:
            if severity not in map(str, SEVERITIES):
                raise ValueError(f"{severity!r} is no severity: there is {', '.join(map(str, SEVERITIES))}")
        return tuple(sorted(set(severities)))


class Corrupted(Metric[CorruptedOptions]):
    """The accuracy on the scored images under each corruption, and its mean over kinds and severities.

    Fractions: ``corrupted``, ``corrupted.KIND`` (the mean over severities) and ``corrupted.KIND-SEVERITY``. Images are
    made from the scored ones under the run's seed, the same for all students. JPEG depends on the installed library.
    """

    Options = CorruptedOptions

    def check(self, problem: Problem) -> None:
        """Refuse images that are neither grey nor of three colours, for kinds that need a picture file.

        Raises:
            DataError: the images have another number of channels.
        """
        kinds = [kind for kind in self.options.kinds if kind in THROUGH_PILLOW]
        channels = problem.shape[0]
        if kinds and channels not in (1, 3):
            plain = "+".join(kind for kind in CORRUPTIONS if kind not in THROUGH_PILLOW)
            raise DataError(
                f"corrupted: {kinds[0]} is for images of 1 or 3 channels, and those of {problem.name} have {channels}: "
                f"ask for corrupted[kinds={plain}]"
            )

    def measure(self, network: Network, problem: Problem, streams: Streams) -> Mapping[str, float]:
        """Return the accuracies by kind and severity."""
        labels = problem.score.labels.cpu()
        parts: dict[str, float] = {}
        for kind, severity in itertools.product(self.options.kinds, self.options.severities):
            pixels = problem.score.images.cpu()
            logits = [logits_for(network, problem, part) for part in _corrupted(pixels, kind, int(severity), streams)]
            parts[f"{kind}-{severity}"] = float((torch.cat(logits).argmax(1) == labels).double().mean())
        means = {
            kind: fmean(parts[f"{kind}-{severity}"] for severity in self.options.severities)
            for kind in self.options.kinds
        }
        return {"all": fmean(parts.values()), **means, **parts}

    def work(self, problem: Problem) -> float:
        """Return the passes over the corrupted images."""
        return float(len(problem.score) * len(self.options.kinds) * len(self.options.severities))


def _corrupted(pixels: Tensor, kind: str, severity: int, streams: Streams) -> Iterator[Tensor]:
    """Yield corrupted images, part by part; each part has a random stream of its own."""
    number = list(CORRUPTIONS).index(kind)
    for index, part in enumerate(torch.split(pixels, _AT_ONCE)):
        yield CORRUPTIONS[kind](part, severity, streams.generator("corruption", number, severity, index))
