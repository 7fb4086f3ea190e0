"""The skeleton of a new plugin: a folder to install, with working components and a test of their contract."""

import importlib.util
import keyword
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from harness.errors import UsageError
from harness.plugins.hookspecs import CONTRACT_VERSION

KINDS = (
    *("pool", "method", "parametrisation", "evaluator", "architecture", "dataset", "format", "report", "executor"),
    *("tracker", "metric"),
)
"""The kinds of components that there are templates of."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")
_SUMMARIES = {
    "pool": "a main architecture, and another one now and then",
    "method": "matches the mean features of real images in fresh networks",
    "parametrisation": "images that are trained on mirrored as well",
    "evaluator": "students trained with smoothed labels",
    "architecture": "two convolutions and a linear layer",
    "dataset": "images of an .npz file in the data folder",
    "format": "pixels of 8 bits and class indices, as arrays in one file",
    "report": "a table of all students, a line each",
    "executor": "processes of this machine that let others go first",
    "tracker": "losses of each distillation in a CSV file",
    "metric": "share of the scored images whose class is among the likeliest",
}


def write_skeleton(name: str, kinds: Sequence[str], into: Path) -> list[Path]:
    """Write a plugin that registers, for each kind, a component called ``name``.

    Args:
        name: the name of the distribution, its entry point and its components; letters and digits, joined by - or _.
        kinds: some of `KINDS`.
        into: the folder in which the folder ``name`` is created.

    Returns:
        The written files, ``pyproject.toml`` first.

    Raises:
        UsageError: the name is invalid, or a file or folder of that name exists.
    """
    module = _module(name)
    folder = into / name
    if folder.exists():
        raise UsageError(f"{folder} is there already: choose another name, or another folder with --into")
    words = {"name": name, "module": module, "camel": "".join(part.title() for part in re.split("[_-]", name))}
    # All texts are filled in before any file is written: a fault in a template leaves no half of a plugin behind.
    texts = {folder / path: text for path, text in _files(words, kinds)}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}; choose another folder with --into") from None
    return list(texts)


def _module(name: str) -> str:
    """Return the importable name that belongs to a distribution's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a plugin: use letters and digits, joined by - or _, a letter first")
    module = name.replace("-", "_").lower()
    # A plugin called like an installed package would hide that package from everything else in the environment.
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise UsageError(f"{name!r} would hide the module {module!r} that is there already: choose another name")
    return module


def _files(words: dict[str, str], kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    module = words["module"]
    yield "pyproject.toml", _filled("pyproject", words)
    yield "README.md", _filled("readme", words)
    hooks = (_filled("hook", {**words, "kind": kind, "summary": _SUMMARIES[kind]}) for kind in kinds)
    yield f"src/{module}/__init__.py", _filled("init", {**words, "contract": str(CONTRACT_VERSION)}) + "".join(hooks)
    for kind in kinds:
        yield f"src/{module}/{kind}.py", _filled(kind, words)
    contracts = sorted(f"{kind.title()}Contract" for kind in kinds)
    tests = (_filled("test", {**words, "kind": kind.title()}) for kind in kinds)
    yield "tests/test_contract.py", _filled("tests", {**words, "contracts": ", ".join(contracts)}) + "".join(tests)


def _filled(template: str, words: dict[str, str]) -> str:
    return Template((files("harness.plugins") / "templates" / f"{template}.txt").read_text()).substitute(words)
