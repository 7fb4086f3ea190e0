from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.builtin import register_datasets
from harness.datasets.problems import make_problem
from harness.plugins.registry import Entry, Registry, Resolved
from harness.types.problem import Problem


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Random pixels of a shape."""
    return _noise


@pytest.fixture(scope="session")
def resolve() -> Callable[[str], Resolved[Any]]:
    """Resolve a data set as the command line does, with the built-in data sets only."""
    registry = Registry()
    register_datasets(lambda name, target, summary: registry.add(Entry("dataset", name, target, summary, "x", "1")))
    return lambda name: registry.resolve("dataset", name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def problem(resolve, root) -> Callable[..., Problem]:
    """Make the problem that a name stands for."""
    return lambda name, **how: make_problem(resolve(name), root=root, **how)


@pytest.fixture
def load(resolve, root):
    """Load the raw data that a name stands for."""

    def load(name: str):
        resolved = resolve(name)
        return resolved.make().load(root)

    return load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of PNG images of 5x4 pixels (width x height), in colour: 4 and 2 in train/, 2 and 1 in test/."""
    base = tmp_path / "pets"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (base / split / name).mkdir(parents=True)
            for index in range(count // (label + 1)):
                pixels = _noise(4, 5, 3, seed=100 * count + 10 * label + index)
                Image.fromarray(pixels).save(base / split / name / f"{index}.png")
    return base


@pytest.fixture
def arrays(tmp_path: Path) -> Callable[..., Path]:
    """Write an .npz file of 3 classes, 12 training and 6 test images of 6x6; given arrays replace its own."""

    def write(**changes: Any) -> Path:
        content = {
            "x_train": _noise(12, 6, 6, 3, seed=1),
            "y_train": np.arange(12) % 3,
            "x_test": _noise(6, 6, 6, 3, seed=2),
            "y_test": np.arange(6) % 3,
        }
        content.update(changes)
        np.savez(tmp_path / "mine.npz", **{key: value for key, value in content.items() if value is not None})
        return tmp_path / "mine.npz"

    return write
