"""Precisions of float32 work (TF32, bfloat16), and their measured speed on this machine."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.compute.compiling import has_quick_convolutions
from harness.compute.machine import device_name, keep_large_tensors_mapped
from harness.compute.native_code import code_folder
from harness.compute.parallel import side_by_side
from harness.compute.quick_convolutions import QuickConvolutions
from harness.system.whole_files import write_whole

Precision = Literal["fp32", "tf32", "bf16"]
"""Precision of a method's heavy part, as ``--precision`` names it."""
PrecisionContext = Callable[[], AbstractContextManager[object]]
"""Returns the context in which a network runs: an empty one, or autocast to a lower precision."""
FP32: Precision = "fp32"
WORTHWHILE = 1.1
"""Speed relative to float32 from which on another precision is worth its rounding."""
_ROUNDS = 3
"""Measurements of each piece of work, of which the shortest time counts."""
_IMAGES = {"cpu": 32, "cuda": 1280}
"""Images of the measured convolution: a slice of a batch on a CPU, ten images of each of 128 classes on a GPU."""


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Compute matrix products and convolutions in TF32 (10 bits of mantissa) if ``precision`` is ``tf32``.

    Otherwise they are in float32. The settings before are restored afterwards. A CPU is not affected.
    """
    # Both flags are set, because torch's defaults differ: products in float32, convolutions in TF32. They belong to the
    # process, so threads of one run share them.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def quickest_precision(device: torch.device, *, compiled: bool) -> Precision:
    """Return the precision in which the heavy part of a method is quickest on ``device``.

    It is ``fp32`` unless another one is at least `WORTHWHILE` times as fast.
    """
    speeds = precision_speeds(device, compiled=compiled)
    best = max(speeds, key=lambda precision: speeds[precision])
    return best if speeds[best] >= WORTHWHILE else FP32


def precision_speeds(device: torch.device, *, compiled: bool) -> Mapping[Precision, float]:
    """Return how many times as fast as in float32 a convolution and its gradients are in each precision of ``device``.

    It is measured once, in less than a second, and stored in a file for each kind of processor or GPU.

    Args:
        device: device that is measured.
        compiled: whether networks may run in compiled code; on a CPU, float32 then takes `QuickConvolutions`.
    """
    # No flag of a processor answers this: one with AVX512-BF16 may be slower in bfloat16 than in float32, another twice
    # as fast. So it is measured.
    quick = compiled and device.type == "cpu" and has_quick_convolutions()
    facts = [1, device_name(device), torch.__version__, quick]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return _speeds(device, quick, code_folder() / f"precision-{name}.json")


@cache
def _speeds(device: torch.device, quick: bool, file: Path) -> Mapping[Precision, float]:
    speeds = _read_speeds(file, _precisions_of(device))
    if speeds is None:
        speeds = _measure(device, quick)
        with contextlib.suppress(OSError):  # without a file, the next process measures again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(speeds))
    return speeds


def _read_speeds(file: Path, precisions: Sequence[Precision]) -> dict[Precision, float] | None:
    """Return the stored speed of each precision; None if the file lacks one or cannot be read."""
    try:
        speeds = json.loads(file.read_text())
        return {precision: float(speeds[precision]) for precision in precisions}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _precisions_of(device: torch.device) -> list[Precision]:
    return [FP32, "tf32", "bf16"] if device.type == "cuda" else [FP32, "bf16"]


def _measure(device: torch.device, quick: bool) -> dict[Precision, float]:
    keep_large_tensors_mapped()  # as in a run: otherwise page faults would be measured, too
    precisions = _precisions_of(device)
    work = {precision: partial(_seconds, device, precision, quick and precision == FP32) for precision in precisions}
    (seconds,) = side_by_side(lambda _: _shortest_times(work), [0], device)
    return {precision: round(seconds[FP32] / seconds[precision], 2) for precision in precisions}


def _shortest_times(work: Mapping[Precision, Callable[[], float]]) -> dict[Precision, float]:
    """Return the shortest time of each piece of work, in seconds."""
    # The first round is dropped: libraries prepare themselves in it. Work alternates, since the machine's load changes.
    rounds = [{name: measure() for name, measure in work.items()} for _ in range(1 + _ROUNDS)]
    return {name: min(times[name] for times in rounds[1:]) for name in work}


def _seconds(device: torch.device, precision: str, quick: bool) -> float:
    """Return the seconds for one of the ConvNet's convolutions (128 channels, 16x16 pixels) with both gradients."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(_IMAGES[device.type], 128, 16, 16, generator=draw).to(device)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(128, 128, 3, 3, generator=draw).to(device).requires_grad_()
    started = _clock(device)
    with (
        float32_products(precision),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        QuickConvolutions() if quick else contextlib.nullcontext(),
    ):
        output: Tensor = functional.conv2d(images, weight, padding=1)
        torch.autograd.grad(output.float().sum(), [images, weight])
    return _clock(device) - started


def _clock(device: torch.device) -> float:
    """Return the time in seconds once the device has finished all work so far."""
    # CPU time of this thread alone, so that other processes on the machine do not disturb the measurement.
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
