"""Time and memory of an iteration by images per class, beside what formulas predict, as a Markdown table.

    python benchmarks/speed/by_ipc.py --dataset mnist --ipc 1 --ipc 10 --ipc 50

Predicted seconds: those of a method's first row, times its own count of passes over images. Predicted memory: that of
the first row, and what the graphs of learned images and copies of weights take more. Each row is a process of its own.
"""

import sys
from pathlib import Path
from statistics import median

import click
import torch
from processes import timed

sys.path.insert(0, str(Path(__file__).parent / "timed"))
from subjects import method_name, real_problem, resolve

MEGABYTE = 1e6
FLOAT = 4


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dataset", default="digits", show_default=True)
@click.option("--pool", default="single[main=convnet[width=32]]", show_default=True)
@click.option("--ipc", "counts", multiple=True, type=click.IntRange(1), default=[1, 10, 50], show_default=True)
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, help="Iterations of each row.")
def main(dataset, pool, counts, count):
    problem = real_problem(dataset)
    network = resolve("architecture", resolve("pool", pool).make().main).make()
    network = network.build(problem.shape, len(problem.classes), torch.Generator())
    images, weights = activations(network, problem.shape), sum(FLOAT * each.numel() for each in network.parameters())
    click.echo("| method | ipc | passes | seconds | predicted | memory in MB | predicted |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for method, held in {"frepo": of_frepo, "dd": of_dd}.items():
        first = None
        for ipc in counts:
            passes, seconds, peak = measured(dataset, pool, method, ipc, count)
            options = resolve("method", method_name(dataset, method)).options
            alive = held(ipc * len(problem.classes), ipc, options, images, weights)
            first = first or (passes, seconds, peak, alive)
            cells = [f"`{method}`", str(ipc), f"{passes:,.0f}"]
            cells += [f"{seconds:.3g}", f"{first[1] * passes / first[0]:.3g}"]
            cells += [f"{peak / MEGABYTE:,.0f}", f"{(first[2] + alive - first[3]) / MEGABYTE:,.0f}"]
            click.echo(f"| {' | '.join(cells)} |")


def of_frepo(images, ipc, options, activations, weights):
    """One graph of all learned images, which are trained on afterwards without being mirrored."""
    return images * activations


def of_dd(images, ipc, options, activations, weights):
    """The weights before each step; the graph is of one step, whose images do not grow with the steps."""
    return options.epochs * ipc * weights


def activations(network, shape):
    """Return the bytes of all layers' outputs for one image."""
    total, handles = [], []
    for module in network.modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(lambda _, __, output: total.append(output.numel())))
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return FLOAT * sum(total)


def measured(dataset, pool, method, ipc, count):
    """Return the passes, the median seconds and the peak bytes of an iteration."""
    case = {"method": method, "pool": pool, "ipc": ipc, "count": count}
    lines = timed("iterations", dataset=dataset, policy="auto", cases=[case], peak=True)
    (passes,) = (line["passes"] for line in lines if "passes" in line)
    (peak,) = (line["peak"] for line in lines if "peak" in line)
    return passes, median(line["seconds"] for line in lines if "seconds" in line), peak


if __name__ == "__main__":
    main()
