"""What pyproject.toml and CI say of the package."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
IMPORTED_AS = {"pillow": "PIL"}


def names(requirements):
    """The names that the required distributions are imported by."""
    distributions = [re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements]
    return {IMPORTED_AS.get(name, name) for name in distributions}


def imported():
    """All third-party packages that the code of the two packages imports, wherever it does."""
    for path in (path for package in ("harness", "mpdd_plugins") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.partition(".")[0]


def test_what_is_imported_is_declared_and_the_other_way_round():
    third_party = set(imported()) - set(sys.stdlib_module_names) - {"harness", "mpdd_plugins"}
    # Ray is imported by name, where somebody asks for it.
    optional = {"submitit", "trackio", "wandb", "pandas", "polars", "optuna"}
    optional |= {"timm", "huggingface_hub", "datasets", "medmnist"}
    assert third_party - optional == names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    of_extras = ("slurm", "trackio", "wandb", "pandas", "polars", "tune", "timm", "hf", "medmnist", "hub")
    assert optional == {name for extra in of_extras for name in names(extras[extra])}


def test_dependencies_are_floors():
    """``.ci/lowest`` makes constraints of them; a pin of torch could bring it without the torchvision that fits."""
    assert [name for name in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+>=[\d.]+", name)] == []


def test_ci_runs_each_python_that_is_declared():
    declared = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    (matrix,) = re.findall(r"python: \[(.*)\]", WORKFLOW)
    assert re.findall(r"[\d.]+", matrix) == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    assert f"Python {declared[0]} to {declared[-1]}" in (ROOT / "README.md").read_text()


def test_ci_calls_scripts_that_exist():
    called = re.findall(r"- run: (\S+)", WORKFLOW)
    assert called == [".ci/run", ".ci/lowest"]
    assert "\n.ci/wheel\n" in (ROOT / ".ci" / "run").read_text()
    assert all((ROOT / script).stat().st_mode & 0o111 for script in [*called, ".ci/wheel"])
