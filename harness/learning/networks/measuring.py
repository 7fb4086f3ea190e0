"""Measurements of trained students beside the accuracy: the metrics that a run asks for."""

import re
from typing import Any

import torch
from torch import Tensor

from harness.compute.compiling import is_compiled, logits_of
from harness.compute.parallel import SLICE
from harness.errors import PluginError
from harness.plugins.returns import call_of, scalars
from harness.types.network import Network
from harness.types.problem import Problem
from harness.types.seeds import Streams
from harness.types.students.metric import WHOLE

IMAGES_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Images that pass through a network at once, by device type; compiled code takes `SLICE`."""
_PART = re.compile(r"[A-Za-z0-9_.-]+")


def measurements(network: Network, problem: Problem, streams: Streams) -> dict[str, float]:
    """Return what the problem's metrics measure of a student, by the names that its record has.

    Args:
        network: the trained network.
        problem: provides the metrics by full name, the images and the device.
        streams: of the student's distillation. Metrics draw from those of the seed alone, so that noise is the same for
            all students.

    Raises:
        PluginError: a metric returns anything but numbers by part.
    """
    values: dict[str, float] = {}
    for name, metric in problem.metrics.items():
        # A metric may have left it in another mode.
        network.eval()
        parts = metric.measure(network, problem, Streams(streams.seed))
        for part, value in checked_parts(parts, call_of(metric, "measure")).items():
            values[name if part == WHOLE else f"{name}.{part}"] = value
    return values


def checked_parts(value: Any, what: str) -> dict[str, float]:  # noqa: ANN401
    """Return what a metric has measured of a student, by part; the numbers need not be finite.

    Raises:
        PluginError: it is not a mapping of such parts to numbers, or has no number of the metric as a whole.
    """
    parts = scalars(value, what)
    if WHOLE not in parts:
        raise PluginError(f"{what} gives no number called {WHOLE!r}, the metric's own; NaN if it cannot be computed")
    for part in parts:
        # They are typed on the command line behind the metric's name, and stand as headings.
        if not _PART.fullmatch(part):
            raise PluginError(f"{what}: {part!r} cannot name a part of a metric: use letters, digits and . _ -")
    return parts


def logits_for(network: Network, problem: Problem, pixels: Tensor) -> Tensor:
    """Return a network's logits of stored images, slice by slice.

    Args:
        network: in evaluation mode.
        problem: provides the preprocessing and the device.
        pixels: uint8 (n, channels, height, width), 0 to 255, on any device.

    Returns:
        float32 (n, classes), on the CPU.
    """
    here = problem.resident  # before the inference mode, whose tensors no later step could differentiate
    compiled = problem.device.type == "cpu" and is_compiled(network, pixels)
    size = SLICE if compiled else IMAGES_AT_ONCE[problem.device.type]
    with torch.inference_mode():
        inputs = (here.preprocessing.to_inputs(part.to(problem.device)) for part in torch.split(pixels, size))
        # To the CPU at the end only: each transfer would wait for a GPU before the next slice is launched.
        return torch.cat([logits_of(network, part).float() for part in inputs]).cpu()
