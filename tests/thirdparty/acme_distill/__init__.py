"""A plugin of ddbench as a third party writes it: one entry point, and nothing of ddbench but its public names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import DistilledSet, Register, hookimpl

ddbench_contract = 2


@hookimpl
def register_methods(register: Register) -> None:
    register("centroid", "acme_distill.centroid:Centroid", "images that wander to their class's mean")
    register("surest", "acme_distill.surest:Surest", "real images that a network on the real data is surest of")
    register("warm", "acme_distill.warm:Warm", "feature means of networks on the way through a real training")


@hookimpl
def register_pools(register: Register) -> None:
    register("bandit", "acme_distill.bandit:Bandit", "draws more often what is matched worst")


@hookimpl
def register_parametrisations(register: Register) -> None:
    register("dimmed", "acme_distill.dimmed:Dimmed", "each image, and a copy of it in a light that all share")


@hookimpl
def register_formats(register: Register) -> None:
    register("acme-raw", "acme_distill.raw:Raw", "a head of five numbers, then pixels and labels as bytes")


@hookimpl
def register_evaluators(register: Register) -> None:
    register("anchored", "acme_distill.anchored:Anchored", "students held near the logits of an anchor network")
    register("tutored", "acme_distill.tutored:Tutored", "soft labels of a teacher trained on the real data")


@hookimpl
def register_architectures(register: Register) -> None:
    register("patches", "acme_distill.patches:Patches", "an MLP on the mean of embedded patches")


@hookimpl
def register_datasets(register: Register) -> None:
    register("shapes", "acme_distill.shapes:Shapes", "squares, crosses and stripes, drawn when they are asked for")


@hookimpl
def step(cell: Mapping[str, Any], iteration: int, scalars: Mapping[str, float]) -> None:
    """Append what a step logged to the file that ACME_STEPS names, if it names one."""
    if "ACME_STEPS" in os.environ:
        with Path(os.environ["ACME_STEPS"]).open("a") as log:
            log.write(f"{cell['key']} {iteration} {' '.join(sorted(scalars))}\n")


@hookimpl
def set_finished(cell: Mapping[str, Any], distilled: DistilledSet) -> None:
    """Note how much each finished set stores, and shows to a student, in the file that ACME_SETS names."""
    if "ACME_SETS" in os.environ:
        images, _ = distilled.training_data()
        with Path(os.environ["ACME_SETS"]).open("a") as log:
            log.write(f"{cell['key']} {distilled.storage_bits} {len(images)}\n")


@hookimpl
def cell_finished(cell: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """Note each finished cell in the file that ACME_LOG names, if it names one."""
    if "ACME_LOG" in os.environ:
        with Path(os.environ["ACME_LOG"]).open("a") as log:
            log.write(f"{cell['kind']} {outcome['kind']} {cell['key']}\n")
