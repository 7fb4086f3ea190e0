"""Describes the machine, and measures how fast it multiplies and convolves: a line of JSON for each rate."""

import os
import platform
import shutil
import time
from statistics import median

import torch
from subjects import answer, real_problem, report, resolve
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from harness.compute.machine import keep_large_tensors_mapped, processor
from harness.compute.parallel import side_by_side
from harness.executors.local import cores

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
WAYS = ("a thread a core", "torch's threads")


def roofline(dataset, architecture, batches, images, side, repeats):
    """The machine; then, unless ``repeats`` is 0, each rate by each way of using its cores.

    Args:
        dataset: gives the shape of the images.
        architecture: gives the shapes of the convolutions.
        batches: images that a convolution takes at once.
        images: that it takes in one measurement.
        side: of the matrices.
        repeats: number of repetitions, of which the median is reported.
    """
    taken = keep_large_tensors_mapped()
    report(machine=description(taken))
    if not repeats:
        return
    for precision, dtype in TYPES.items():
        for way in WAYS:
            seconds = spent(lambda d=dtype: product(side, d), way, 1, repeats)
            report(rate="matrix product", precision=precision, way=way, flop=2 * side**3, seconds=seconds)
    problem = real_problem(dataset)
    network = resolve("architecture", architecture).make().build(problem.shape, 10, torch.Generator())
    for number, (layer, shape) in enumerate(convolutions(network, problem.shape)):
        for precision, dtype in TYPES.items():
            for way in WAYS:
                for batch in batches:
                    for layout in LAYOUTS:
                        flop_and_seconds = convolution(layer, shape, batch, dtype, LAYOUTS[layout], number > 0)
                        for direction, (make, flop) in flop_and_seconds.items():
                            seconds = spent(make, way, max(1, images // batch), repeats) / batch
                            report(
                                rate="convolution", layer=number, direction=direction, precision=precision, way=way,
                                batch=batch, layout=layout, flop=flop / batch, seconds=seconds,
                            )  # fmt: skip


def description(taken):
    """What a reader has to know of the machine."""
    return {
        "cpu": processor(),
        "cores": f"{cores()}",
        "threads of torch": f"{torch.get_num_threads()}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "memory settings": "taken by glibc" if taken else "not taken: no glibc",
        "compiler": os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "none"),
    }


def spent(make, way, calls, repeats):
    """Median seconds of one call of what ``make`` gives, all cores at work."""
    cores = torch.get_num_threads() if way == WAYS[0] else 1
    works = [make() for _ in range(cores)]

    def calling(core):
        for _ in range(calls):
            works[core]()

    def once():
        if cores > 1:
            list(side_by_side(calling, range(cores), torch.device("cpu")))
        else:
            calling(0)

    once()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        once()
        seconds.append((time.perf_counter() - begun) / (calls * cores))
    return median(seconds)


def product(side, dtype):
    first, second = torch.randn(2, side, side, dtype=dtype)
    return lambda: first @ second


def convolutions(network, shape):
    """Each convolution of a network with the shape of its input."""
    layers = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda layer, inputs, _: layers.append((layer, inputs[0].shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    return layers


def convolution(layer, shape, batch, dtype, layout, inner):
    """By direction, what makes the work on a batch, and its arithmetic; the input's gradient only where ``inner``."""

    def tensors():
        images = torch.randn(batch, *shape).to(dtype, memory_format=layout).requires_grad_(inner)
        weight, bias = (tensor.detach().to(dtype).requires_grad_() for tensor in (layer.weight, layer.bias))
        return images, weight.detach().to(memory_format=layout).requires_grad_(), bias

    def convolve(images, weight, bias):
        return functional.conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward():
        inputs = tuple(tensor.detach() for tensor in tensors())
        return lambda: convolve(*inputs)

    def backward():
        inputs = tensors()
        output = convolve(*inputs)
        wanted, weights = [tensor for tensor in inputs if tensor.requires_grad], torch.ones_like(output)
        return lambda: torch.autograd.grad(output, wanted, weights, retain_graph=True)

    with FlopCounterMode(display=False) as counter:
        forward()()
    flop = counter.get_total_flops()
    return {"forward": (forward, flop), "backward": (backward, flop * (2 if inner else 1))}


if __name__ == "__main__":
    answer(roofline)
