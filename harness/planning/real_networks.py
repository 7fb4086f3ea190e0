"""Cells of networks trained on the real data: one for each training, whoever asks for it."""

from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import Resolve
from harness.planning.set_sources import machinery_digests
from harness.plugins.code_digest import code_digest
from harness.plugins.returns import plain_json
from harness.store.cells import Cell
from harness.types.plurals import plural
from harness.types.problem import Problem


def real_network_cell(request: RealNetwork, problem: Problem, seed: int, resolve: Resolve) -> Cell:
    """Return the cell of a network on the training images of a problem: shared by all components that ask for it.

    Args:
        request: what is asked for.
        problem: provides the training images.
        seed: the run's seed.
        resolve: finds architectures by name.
    """
    architecture, augmentation = resolve(request.architecture), request.augmentation
    identity = {
        "problem": problem.fingerprint,
        "real_network": plain_json(request.identity, "the identity of a real network"),
        "architecture": architecture.identity(),
        "seed": seed,
        # What an augmentation does may depend on them. Without one they change nothing, and are left out.
        **({"augmentations": dict(problem.augmentations)} if augmentation else {}),
    }
    digests = dict([architecture.code])
    if augmentation:
        digests[f"augmentation:{augmentation.name}"] = code_digest(augmentation.module)
    held_out = " without validation" if problem.hold_out else ""
    length = f"{request.snapshots[-1]} {plural(request.snapshots[-1], 'epoch')}"
    label = f"{request.kind} {request.index} of {architecture} on {problem.name}{held_out}, {length}"
    return Cell("artifact", identity, label, {**digests, **machinery_digests()})
