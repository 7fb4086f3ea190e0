"""The description of a component that ``ddbench methods show NAME`` and the like print."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch

from harness.architectures.network_size import bounded_size
from harness.cli.output import print_table
from harness.datasets.problems import data_root, make_problem
from harness.datasets.summary import DatasetSummary
from harness.errors import DataError, DDBenchError, UsageError
from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import mixture
from harness.plugins.guard import PluginFault, guarded
from harness.plugins.registry import Registry, Resolved
from harness.types.data.labels import listed
from harness.types.names import parse_name
from harness.types.pool import Pool
from harness.types.problem import Shape

SHAPES: tuple[Shape, ...] = ((3, 32, 32), (1, 28, 28))
"""Shapes of the images of CIFAR-10 and MNIST, for which parameters are counted."""
CLASSES = 10
MOST_CLASSES = 20
"""Classes of a data set that are printed with their numbers of images."""
LATER = 100_000
"""An iteration after any warm-up, for which a pool's distribution is shown too if it differs."""

Details = dict[str, Any]


def describe(kind: str, text: str, registry: Registry) -> Details:
    """Load a component and describe it as JSON, with the options in brackets.

    If a required option is missing, the description lacks what depends on it, and ``needs`` names the option.

    Raises:
        UsageError: a name or option is unknown, or a value is outside its range.
        PluginError: the component cannot be loaded, or fails.
    """
    name = parse_name(text)
    entry = registry.find(kind, name.name)
    cls = entry.load()
    details: Details = {
        "kind": kind,
        "name": text,
        "summary": entry.summary,
        "description": _first_paragraph(cls) or entry.summary,
        "provider": entry.provider,
        "provider_version": entry.provider_version,
        "version": cls.version,
        "target": entry.target,
        "options": list(cls.Options.describe()),
        "needs": None,
    }
    try:
        resolved = registry.resolve(kind, name)
    except UsageError as error:
        # An option that was typed is wrong. Without any, a required one is missing, which the description can say.
        if name.options:
            raise
        return {**details, "needs": str(error)}
    # The component's own code runs below, and may raise anything.
    fails = f"{kind} {text} of {entry.provider} fails:"
    try:
        with guarded(fails):
            return {**details, "name": str(resolved), **_MORE[kind](resolved, registry)}
    except PluginFault as fault:
        raise PluginFault(fails, fault.error) from fault.error


def print_details(details: Details) -> None:
    """Print the result of `describe` for people."""
    click.echo(f"{details['name']}: {details['description']}")
    provider = f"{details['provider']} {details['provider_version']}".rstrip()
    click.echo(f"{details['kind']} version {details['version']}, from {provider} ({details['target']})\n")
    if details["options"]:
        columns = ("option", "type", "default", "meaning", "source")
        print_table(columns, [list(option.values()) for option in details["options"]])
    else:
        click.echo("It takes no options.")
    if details["needs"]:
        click.echo(f"\nIncomplete: {details['needs']}")
    elif details["kind"] in _PRINT_MORE:
        _PRINT_MORE[details["kind"]](details)


def _first_paragraph(cls: type[Any]) -> str:
    text = inspect.cleandoc(vars(cls).get("__doc__") or "")  # inherited docstrings would describe the base class
    return " ".join(text.split("\n\n")[0].split())


def _method(resolved: Resolved[Any], registry: Registry) -> Details:
    return {"uses_pool": resolved.cls.uses_pool, "uses_total": resolved.cls.uses_total}


def _print_method(details: Details) -> None:
    if not details["uses_pool"]:
        click.echo("\nIt draws no networks, so it is used without a pool.")
    if details["uses_total"]:
        click.echo("\nIts schedule depends on the total number of iterations, so a run cannot be extended.")


def _pool(resolved: Resolved[Any], registry: Registry) -> Details:
    pool = resolved.make()
    first, later = ([*_drawn(pool, iteration, registry)] for iteration in (0, LATER))
    return {"main": pool.main, "distribution": first, "later": later if later != first else None}


def _drawn(pool: Pool[Any], iteration: int, registry: Registry) -> Iterator[Details]:
    for architecture, probability in mixture(pool, iteration, lambda name: registry.resolve("architecture", name)):
        yield {"architecture": str(architecture), "probability": probability}


def _print_pool(details: Details) -> None:
    for title, rows in (("iteration 0", details["distribution"]), (f"iteration {LATER}", details["later"])):
        if rows:
            click.echo(f"\nAt {title}, equal architectures merged:\n")
            lines = [(f"{row['probability']:.6f}", row["architecture"]) for row in rows]
            print_table(("probability", "architecture"), lines)


def _architecture(resolved: Resolved[Any], registry: Registry) -> Details:
    outlines = [_outline(resolved, shape) for shape in SHAPES]
    # Of the first shape that it takes: a model without poolings that an image is too small for has the same taps.
    taps: list[str] = next((row["taps"] for row in outlines if row["taps"]), [])
    return {"parameters": [{key: row[key] for key in row if key != "taps"} for row in outlines], "taps": taps}


def _outline(resolved: Resolved[Any], shape: Shape) -> Details:
    row: Details = {"shape": "x".join(map(str, shape)), "classes": CLASSES, "count": None, "reason": None, "taps": []}
    try:
        with (
            torch.device("meta"),
            torch.random.fork_rng(devices=[]),
            bounded_size(str(resolved)),
        ):
            # On the meta device, building a network takes no memory for weights and no time.
            network = resolved.make().network(shape, CLASSES)
        row["count"] = sum(parameter.numel() for parameter in network.parameters())
        row["taps"] = list(network.taps)
    except DDBenchError as error:
        row["reason"] = str(error)
    return row


def _print_architecture(details: Details) -> None:
    click.echo("")
    rows = [
        (row["shape"], str(row["classes"]), f"{row['count']:,}" if row["reason"] is None else row["reason"])
        for row in details["parameters"]
    ]
    print_table(("images", "classes", "parameters"), rows)
    if details["taps"]:
        click.echo(f"\nTaps, from input to output: {', '.join(details['taps'])}.")


def _dataset(resolved: Resolved[Any], registry: Registry) -> Details:
    dataset = resolved.make()
    # A mistyped path of an option is reported here, and not only when a run reads the images.
    dataset.check_files(data_root())
    traits = dataset.traits
    images, reason = None, None
    try:
        images = DatasetSummary(make_problem(resolved, root=data_root())).as_json()
    except DataError as error:
        # The user's own data are what was asked for. What has only to be downloaded can be described all the same.
        if "path" in dataset.options.changed():
            raise
        reason = str(error)
    return {
        "images": images,
        "images_unread": reason,
        "normalize": traits.normalize,
        "like": traits.like,
        "augmentations": dict(traits.augmentations),
        "defaults": dataclasses.asdict(traits.defaults),
    }


def _print_dataset(details: Details) -> None:
    _print_images(details)
    click.echo("")
    normalize = details["normalize"] or "unknown: computed from the training images"
    rows = [("normalisation", normalize), ("published numbers of", details["like"] or "none")]
    rows += [(f"augmentation {family}", words) for family, words in details["augmentations"].items()]
    for key, value in details["defaults"].items():
        if key == "options":
            for name, options in value.items():
                rows.append((f"default {name}", ", ".join(f"{option}={text}" for option, text in options.items())))
        else:
            rows.append((f"default {key}", ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)))
    print_table(("what", "value"), rows)


def _print_images(details: Details) -> None:
    images = details["images"]
    if images is None:
        click.echo(f"\nIts images cannot be read: {details['images_unread']}")
        return
    smallest, size = images["smallest_class"], images["shape"]
    classes = [f"{row['name']} {row['train']}+{row['test']}" for row in images["classes"]]
    more = [f"{len(classes) - MOST_CLASSES} more (--json lists them)"] if len(classes) > MOST_CLASSES else []
    rows = [
        ("training images", f"{images['train']:,}"),
        ("test images", f"{images['test']:,}"),
        (f"{len(classes)} classes, training + test", ", ".join(classes[:MOST_CLASSES] + more)),
        ("smallest class", f"{smallest['name']}, {smallest['train']:,} training images"),
        ("image size", f"{size['height']}x{size['width']}, channels: {size['channels']}"),
        ("mean of the pixels", ", ".join(f"{value:.4f}" for value in images["mean"])),
        ("std of the pixels", ", ".join(f"{value:.4f}" for value in images["std"])),
    ]
    click.echo("")
    print_table(("images", "value"), rows)


def _format(resolved: Resolved[Any], registry: Registry) -> Details:
    cls = resolved.cls
    return {"suffixes": list(cls.suffixes), "written": cls.is_written(), "several": cls.several}


def _print_format(details: Details) -> None:
    by_suffix = f", by the suffix {' or '.join(details['suffixes'])}" if details["suffixes"] else ""
    click.echo(f"\nIt is read and written{by_suffix}." if details["written"] else "\nIt is only read.")
    if details["several"]:
        click.echo("A file may hold several sets: --entry names one.")


def _executor(resolved: Resolved[Any], registry: Registry) -> Details:
    cls = resolved.cls
    return {"in_process": cls.in_process, "detaches": cls.detaches, "needs_packages": dict(cls.needs)}


def _print_executor(details: Details) -> None:
    if details["in_process"]:
        click.echo("\nIt works in this process: a crash or a hang ends the run.")
    if details["detaches"]:
        click.echo("\nIts jobs continue after the process of the run has ended: `ddbench run --detach`.")
    _print_packages(details)


def _print_parametrisation(details: Details) -> None:
    what = {"pixels": "pixels in [0, 1], which are then preprocessed", "inputs": "network inputs"}
    click.echo(f"\nIt decodes to {what[details['decodes_to']]}.")


def _evaluator(resolved: Resolved[Any], registry: Registry) -> Details:
    evaluator = resolved.make()
    request = evaluator.artifact(0)
    return {
        "label_kinds": list(evaluator.label_kinds),
        "real_data": bool(evaluator.uses_real_data) or isinstance(request, RealNetwork),
        "protocols": [{str(key): str(value) for key, value in row.items()} for row in evaluator.protocols()],
    }


def _print_evaluator(details: Details) -> None:
    click.echo(f"\nIt trains on {listed(details['label_kinds'])} labels.")
    if details["real_data"]:
        click.echo("It uses real images beside the set: its scores are marked, and compared with their like alone.")
    if rows := details["protocols"]:
        click.echo("\nIts protocols, with the constants that options depart from:\n")
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def _print_packages(details: Details) -> None:
    for module, package in details["needs_packages"].items():
        click.echo(f"\nIt needs the package {module}: pip install '{package}'.")


_MORE: dict[str, Callable[[Resolved[Any], Registry], Details]] = {
    "method": _method,
    "pool": _pool,
    "parametrisation": lambda resolved, registry: {"decodes_to": resolved.cls.decodes_to},
    "evaluator": _evaluator,
    "architecture": _architecture,
    "dataset": _dataset,
    "format": _format,
    "report": lambda resolved, registry: {},
    "executor": _executor,
    "tracker": lambda resolved, registry: {"needs_packages": dict(resolved.cls.needs)},
    "metric": lambda resolved, registry: {},
}
_PRINT_MORE: dict[str, Callable[[Details], None]] = {
    "method": _print_method,
    "pool": _print_pool,
    "parametrisation": _print_parametrisation,
    "evaluator": _print_evaluator,
    "architecture": _print_architecture,
    "dataset": _print_dataset,
    "format": _print_format,
    "executor": _print_executor,
    "tracker": _print_packages,
}
