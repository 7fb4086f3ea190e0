"""Seconds an iteration of DC: `python benchmarks/gpu/dc.py DATA`.

Class by class against all classes together, in three precisions; the parts of a step; the architectures that pools
draw; then 1000 iterations at ipc 1, and at ipc 10 as far as the time allows, to be gone on with by --resume.
"""

import dataclasses
import itertools
import json
from functools import partial

import torch
from bench import Bench, architecture, make
from safetensors.torch import load_file, save_file
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from harness import DISTANCES, Pair, Recipe, Streams, Task, gradient_of, train_classifier
from harness.compute.compiling import compilation, set_compilation
from harness.compute.precision import float32_products
from harness.learning.batched_matching import match_together
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import History, Trajectory
from mpdd_plugins.methods.dc import DC

PRECISIONS = ("tf32", "fp32", "bf16")
DRAWN = ("convnet", "lenet", "alexnet", "vgg11")
"""What the pools of tables 4 and 5 draw, or nearly: similar ConvNets take about as long as the main one."""


class ClassByClass(DC):
    """The plain loop, one class after the other, nothing recorded."""

    def _match(self, network, iteration, round_):
        losses, gradients = zip(*(self._one(network, pair) for pair in pairs_of(self, iteration, round_)), strict=True)
        self.images.grad = torch.cat(gradients)
        return torch.stack(losses).sum()

    def _one(self, network, pair):
        with self.task.reduced_precision():
            target = gradient_of(network, pair.real, self.labels.new_full((len(pair.real),), pair.label))
        images = pair.synthetic.detach().requires_grad_()
        labels = self.labels[self.mine(pair.label)]
        loss = self.distance(gradient_of(network, images, labels, differentiable=True), target)
        return loss.detach(), torch.autograd.grad(loss, images)[0]


WAYS = {"together": DC, "class by class": ClassByClass}


def pairs_of(method, iteration, round_):
    for label in range(method.classes):
        real = method.real(label, method.options.batch_real, "real", iteration, round_)
        yield Pair(label, real, method.images[method.mine(label)], lambda images: images)


def trajectory_of(bench, way, ipc, precision, main="convnet"):
    options = DC.Options(batch_real=2, outer=2, inner=1) if bench.quick else DC.Options()
    streams = Streams(0)
    method = WAYS[way](Task(bench.problem, ipc, streams, 3000, precision), options)
    pool = make("pool", f"single[main={main}]")
    return Trajectory(method, PoolNetworks(pool, architecture, bench.problem, streams), bench.problem, streams)


def seconds_of(bench, way, ipc, precision, main):
    """Seconds an iteration, after some to get warm."""
    policy = compilation()
    set_compilation("never" if way == "class by class" else policy)
    try:
        trajectory = trajectory_of(bench, way, ipc, precision, main)
        warm, count = (1, 1) if bench.quick else ((4, 20) if ipc == 1 else (1, 2))
        trajectory.advance(warm)
        cost = bench.timed(partial(trajectory.advance, warm + count))
    finally:
        set_compilation(policy)
    return {**cost, "seconds": cost["seconds"] / count}


def parts_of(bench, ipc, precision, main):
    """Seconds of each part of one step on a ConvNet: real gradients in two ways, synthetic ones, an inner epoch."""
    method = trajectory_of(bench, "together", ipc, precision, main).method
    network = architecture(main).make().build(
        bench.problem.shape, method.classes, torch.Generator().manual_seed(0)
    ).to(bench.device)  # fmt: skip
    pairs = list(pairs_of(method, 0, 0))
    few = [dataclasses.replace(pair, real=pair.real[:1]) for pair in pairs]
    trained = {name: weight.detach() for name, weight in network.named_parameters()}
    count = min(len(pair.real) for pair in pairs)
    stacked = torch.stack([pair.real[:count] for pair in pairs])
    labels = torch.arange(len(pairs), device=bench.device)[:, None].expand(-1, count)

    def real_one_by_one():
        with method.task.reduced_precision():
            for row, targets in zip(stacked, labels, strict=True):
                gradient_of(network, row, targets)

    def real_together():
        def loss(weights, images, targets):
            return functional.cross_entropy(functional_call(network, weights, (images,)), targets)

        with method.task.reduced_precision():
            vmap(grad(loss), in_dims=(None, 0, 0))(trained, stacked, labels)

    works = {
        "drawing real images": lambda: list(pairs_of(method, 0, 0)),
        "real gradients one by one": real_one_by_one,
        "real gradients by vmap": real_together,
        "synthetic gradients": lambda: match_together(
            network, few, DISTANCES["layerwise"], method.task.reduced_precision
        ),
        "an inner epoch": lambda: train_classifier(
            network,
            method.images.detach(),
            method.labels,
            Recipe(1, 1e-6, "sgd", "constant", 0.0, 0.0),
            lambda purpose, epoch: torch.Generator(),
        ),
    }
    with float32_products(precision):
        for work in works.values():
            work()
        repeats = 1 if bench.quick else 20
        return {name: bench.timed(work, repeats)["seconds"] for name, work in works.items()}


def go_on(bench, ipc, precision, total, chunk, main):
    """Advance a whole trajectory, keeping its state, until it is done or time is up."""
    key = f"whole, ipc {ipc}, {precision}"
    if key in bench.results:
        bench.measure(key, None)
        return
    state, history = (bench.out / f"dc-ipc{ipc}.{suffix}" for suffix in ("safetensors", "json"))
    trajectory = trajectory_of(bench, "together", ipc, precision, main)
    if state.exists() and history.exists():
        trajectory.restore(load_file(state), History(**json.loads(history.read_text())))
    while trajectory.history.iterations < total and trajectory.history.diverged_at is None and not bench.late:
        trajectory.advance(min(total, trajectory.history.iterations + chunk))
        tensors, history_so_far = trajectory.state()
        save_file(tensors, state)
        history.write_text(json.dumps(dataclasses.asdict(history_so_far)))
        bench.say(f"{key}: {history_so_far.iterations} iterations in {history_so_far.seconds:.1f} s")
    history_so_far = trajectory.history
    if history_so_far.iterations == total or history_so_far.diverged_at is not None:
        status = trajectory.status(trajectory.method.distilled())
        ends = {"first_loss": history_so_far.scalars["loss"][0], "last_loss": history_so_far.scalars["loss"][-1]}
        done = {"iterations": history_so_far.iterations, "seconds": history_so_far.seconds, "status": status}
        bench.measure(key, lambda: {**done, **ends})


def main(argv=None):
    bench = Bench("dc", __doc__, argv)
    convnet = "convnet[width=8]" if bench.quick else "convnet"
    # What the goals are about comes first: the time may end before the rest.
    for way, ipc, precision in itertools.product(WAYS, (1, 10), PRECISIONS):
        bench.measure(f"{way}, ipc {ipc}, {precision}", seconds_of, bench, way, ipc, precision, convnet)
    for ipc in (1, 10):
        for drawn in DRAWN[:2] if bench.quick else DRAWN:
            main = f"{drawn}[width=8]" if bench.quick and drawn == "convnet" else drawn
            bench.measure(f"{drawn}, ipc {ipc}, tf32", seconds_of, bench, "together", ipc, "tf32", main)
    for precision in PRECISIONS:
        bench.measure(f"parts, ipc 1, {precision}", parts_of, bench, 1, precision, convnet)
    go_on(bench, 1, "tf32", 4 if bench.quick else 1000, 2 if bench.quick else 100, convnet)
    go_on(bench, 10, "tf32", 2 if bench.quick else 1000, 1 if bench.quick else 10, convnet)
    bench.save()


if __name__ == "__main__":
    main()
