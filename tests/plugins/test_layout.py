"""Who may import whom, and how long things may get."""

import ast
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent.parent
MODULES = sorted(path for package in ("harness", "mpdd_plugins") for path in (ROOT / package).rglob("*.py"))
FLOORS = [
    {"cli"},
    {"api"},
    {"report", "executors"},
    {"running", "testing"},
    {"planning"},
    {"learning", "datasets", "store"},
    {"compute", "architectures"},
    {"plugins"},
    {"types"},
    {"system"},
    {"errors"},
]
"""Rooms of the harness, from the top; a room imports itself and rooms of lower floors."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def relative(path):
    return str(path.relative_to(ROOT))


def parsed(path):
    return ast.parse(path.read_text())


def imports(path):
    """Each imported module with the name taken from it, None for the module itself."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "harness").rglob("*.py")), ids=relative)
def test_the_harness_does_not_know_the_plugins(path):
    assert not [module for module, _ in imports(path) if module.partition(".")[0] == "mpdd_plugins"]


@pytest.mark.parametrize("path", sorted((ROOT / "mpdd_plugins").rglob("*.py")), ids=relative)
def test_plugins_need_nothing_but_the_public_names(path):
    for module, name in imports(path):
        if module.partition(".")[0] == "harness":
            assert module == "harness"
            assert name is None or name in harness.__all__


@pytest.mark.parametrize("path", sorted((ROOT / "harness").glob("*/**/*.py")), ids=relative)
def test_rooms_go_one_way(path):
    room = path.relative_to(ROOT / "harness").parts[0]
    for module, name in imports(path):
        if module.partition(".")[0] != "harness":
            continue
        target = [*module.split("."), name or ""][1]
        if target in FLOOR_OF:
            allowed = target == room or FLOOR_OF[target] > FLOOR_OF[room]
            assert allowed, f"{relative(path)} imports {module}"
        else:
            assert target in [*harness.__all__, "__version__"], f"{relative(path)} imports {module} {name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_matplotlib_is_for_pages_only(path):
    """A job must not pay for its import."""
    top = {module.partition(".")[0] for module, _ in imports(path)}
    assert "matplotlib" not in top or path.parent == ROOT / "harness" / "report" / "page"


def test_every_room_has_its_floor():
    rooms = {path.relative_to(ROOT / "harness").parts[0] for path in (ROOT / "harness").glob("*/**/*.py")}
    assert rooms | {"errors"} == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_is_long(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, node.name


def test_every_public_name_is_there():
    for name in harness.__all__:
        assert getattr(harness, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        harness.nothing  # noqa: B018
