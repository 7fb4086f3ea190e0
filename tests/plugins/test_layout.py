"""Who may import whom, how long things may get, and what they may be called."""

import ast
import io
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest

import harness
import mpdd_plugins
from harness import builtin

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
SOURCES = [*MODULES, *(path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py")))]
FAMILY = ("to" + "ld", "te" + "lls", "te" + "lling")
"""Words that say neither parse nor describe, format, render, report or name: in no identifier, comment or string."""
VAGUE = {"found", "given", "made", "kept", "one", "standing", FAMILY[0]}
"""Words that do not say what they hold: no variable, parameter, function or module has such a name."""
FEWEST_COMMENTS = 3
"""Lines with a comment in a hundred lines of code; docstrings are neither."""
MOST_MODULES = 16
"""Modules of a folder, beside its ``__init__.py``."""
MODULE_NAME = re.compile(r"(?<![\w./-])(?:harness|mpdd_plugins)(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?(?!\w*[/-])")
"""A dotted name in a string, perhaps with a class after a colon; not a path."""
UPWARD_NAMES = {
    ("harness/plugins/discovery.py", "harness.builtin"): "the plugin of the harness itself, loaded as any other is",
}
"""Names in strings that do not go down, by the file that has them, each with its reason."""


def relative(path):
    return str(path.relative_to(ROOT))


@cache
def parsed(path):
    return ast.parse(path.read_text())


@cache
def nodes_of(path):
    """All nodes of a module's tree: walking through it once takes longer than half of the checks of this file."""
    return tuple(ast.walk(parsed(path)))


@pytest.fixture(scope="module", autouse=True)
def _forget_trees():
    """The collector of garbage would look through a million nodes again and again in the files to come."""
    yield
    parsed.cache_clear()
    nodes_of.cache_clear()


def of_each(paths):
    """Make one test of a check of many files or folders; it fails with a line for each that breaks the rule.

    A test for each of them would spend more time on reporting than on reading.
    """

    def make_test(check):
        def test():
            complaints = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    complaints.append(f"{relative(path)}: {error}")
            assert not complaints, "\n".join(complaints)

        # Not functools.wraps: pytest would take the path for a fixture.
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return make_test


def imported_by(nodes, path):
    """Each module that import statements name, with the name taken from it, None for the module itself."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            yield from ((node.module, alias.name) for alias in node.names)


def imports(path):
    """The imports anywhere in a module."""
    return imported_by(nodes_of(path), path)


@of_each(sorted((ROOT / "harness").rglob("*.py")))
def test_the_harness_does_not_know_the_plugins(path):
    assert not [module for module, _ in imports(path) if module.partition(".")[0] == "mpdd_plugins"]


@of_each(sorted((ROOT / "mpdd_plugins").rglob("*.py")))
def test_plugins_need_nothing_but_the_public_names(path):
    for module, name in imports(path):
        if module.partition(".")[0] == "harness":
            assert module == "harness"
            assert name is None or name in harness.__all__


@of_each(sorted((ROOT / "harness").glob("*/**/*.py")))
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


@of_each(MODULES)
def test_matplotlib_is_for_pages_only(path):
    """A job must not pay for its import."""
    top = {module.partition(".")[0] for module, _ in imports(path)}
    assert "matplotlib" not in top or ROOT / "harness" / "report" / "page" in path.parents


def test_every_room_has_its_floor():
    rooms = {path.relative_to(ROOT / "harness").parts[0] for path in (ROOT / "harness").glob("*/**/*.py")}
    assert rooms | {"errors"} == set(FLOOR_OF)


def test_system_needs_nothing_but_the_errors():
    for path in (ROOT / "harness" / "system").glob("*.py"):
        ours = {module for module, _ in imports(path) if module.partition(".")[0] == "harness"}
        assert all(module == "harness.errors" or module.startswith("harness.system") for module in ours), relative(path)


# --- names of modules in strings --------------------------------------------------------------------------------------


def module_file(name):
    """The file of a module or package, None if there is none; a folder may do without ``__init__.py``."""
    place = ROOT.joinpath(*name.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py", place)
    return next((file for file in files if file.exists()), None)


def defined_in(file):
    """The names that a module defines or imports at its top level."""
    names = set()
    for node in parsed(file).body if file.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


def exists(name):
    """Whether a dotted name is a module, or a public name, or a module's own name (after a dot or a colon)."""
    module, _, attribute = name.partition(":")
    if not attribute and module_file(module) is None:
        module, _, attribute = module.rpartition(".")
    if module == "harness" and attribute in [*harness.__all__, "__version__"]:
        return True
    file = module_file(module)
    return file is not None and (not attribute or attribute in defined_in(file))


def names_in_strings(path, prose):
    """The dotted names in docstrings, or in all other strings of a module."""
    docstrings = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (id(node) in docstrings) == prose:
            yield from MODULE_NAME.findall(node.value)


@of_each(MODULES)
def test_modules_named_in_strings_exist(path):
    for name in [*names_in_strings(path, prose=True), *names_in_strings(path, prose=False)]:
        assert exists(name), f"{relative(path)} names {name}, which is not there"


@of_each(MODULES)
def test_modules_named_in_strings_go_down(path):
    """Docstrings may name whoever uses a module; any other string is there to be imported."""
    parts = path.relative_to(ROOT).parts
    for name in names_in_strings(path, prose=False):
        target = re.split("[.:]", name)[1]
        is_room = parts[0] == "harness" and len(parts) > 2
        if not is_room or target in harness.__all__ or (relative(path), name) in UPWARD_NAMES:
            continue
        goes_down = target == parts[1] or FLOOR_OF.get(target, -1) > FLOOR_OF[parts[1]]
        assert goes_down, f"{relative(path)} names {name}, which lies above it: give a reason in UPWARD_NAMES"


def test_the_listed_upward_names_are_used():
    for (file, name), reason in UPWARD_NAMES.items():
        assert name in set(names_in_strings(ROOT / file, prose=False)), (
            f"{file} does not name {name}: take it off the list"
        )
        assert reason


@pytest.mark.parametrize("plugin", [builtin, mpdd_plugins], ids=lambda plugin: plugin.__name__)
def test_registered_classes_exist(plugin):
    targets = []
    for name, hook in vars(plugin).items():
        if name.startswith("register_"):
            hook(lambda name, target, summary: targets.append(target))
    assert targets
    assert not [target for target in targets if not exists(target)]


def test_entry_points_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = [*project["scripts"].values(), *project["entry-points"]["ddbench"].values()]
    assert targets
    assert not [target for target in targets if target not in ("harness", "mpdd_plugins") and not exists(target)]


# --- torch ------------------------------------------------------------------------------------------------------------


def run_on_import(body):
    """The statements that importing a module executes: what stands in functions, or for type checkers, does not."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from run_on_import(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from run_on_import(getattr(node, field, ()))
        for handler in getattr(node, "handlers", ()):
            yield from run_on_import(handler.body)


def loaded_with(name):
    """The modules that an import of ``name`` loads at once, its packages included; those of others by their names."""
    packages = [name.rsplit(".", count)[0] for count in range(name.count(".") + 1)]
    for package in packages:
        file = module_file(package)
        if file is None or not file.is_file():
            continue
        for module, attribute in imported_by(run_on_import(parsed(file).body), file):
            yield module
            if attribute and module_file(f"{module}.{attribute}"):
                yield f"{module}.{attribute}"


def way_to(wanted, start):
    """The chain of imports from a module to one of another project, by module-level imports alone; None if none."""
    seen, waiting = {start}, [(start,)]
    while waiting:
        way = waiting.pop()
        for module in loaded_with(way[-1]):
            if module.partition(".")[0] == wanted:
                return (*way, module)
            if module.partition(".")[0] in ("harness", "mpdd_plugins") and module not in seen:
                seen.add(module)
                waiting.append((*way, module))
    return None


@of_each(sorted((ROOT / "harness" / "store").rglob("*.py")))
def test_the_store_does_not_import_torch(path):
    module = relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert way_to("torch", module) is None


def test_a_way_to_torch_would_be_found():
    assert way_to("torch", "harness.types.problem") == ("harness.types.problem", "torch")
    assert way_to("torch", "harness.report.page.page") is not None


# --- sizes ------------------------------------------------------------------------------------------------------------


@of_each(MODULES)
def test_nothing_is_long(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, node.name


@of_each(sorted({path.parent for path in MODULES}))
def test_no_folder_is_crowded(folder):
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, modules


def test_every_public_name_is_there():
    for name in harness.__all__:
        assert getattr(harness, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        harness.nothing  # noqa: B018


# --- words ------------------------------------------------------------------------------------------------------------


def names_given_in(path):
    """Each name that a module gives to a variable, an attribute, a parameter, a function or a class, with its line."""
    for node in nodes_of(path):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def comment_lines(path):
    """How many lines of a module hold a comment for readers, and how many hold code."""
    source = path.read_text()
    strings = (node for node in nodes_of(path) if isinstance(node, ast.Expr))
    strings = [node for node in strings if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    docstrings = {line for node in strings for line in range(node.lineno, node.end_lineno + 1)}
    comments, code = set(), set()
    layout = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_for_tools = token.string.lstrip("# ").startswith(("noqa", "type:", "fmt:"))
            comments |= set() if is_for_tools else {token.start[0]}
        elif token.type not in layout:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - docstrings)


@of_each(SOURCES)
def test_names_say_what_they_hold(path):
    assert path.stem not in VAGUE
    assert not [f"{relative(path)}:{line}: {name}" for name, line in names_given_in(path) if name in VAGUE]


@of_each(SOURCES)
def test_the_words_are_plain(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    assert not [
        f"{relative(path)}:{number}: {line}" for number, line in lines if re.search("|".join(FAMILY), line, re.I)
    ]


def test_there_are_comments_where_a_reader_would_wonder():
    comments, code = (sum(counts) for counts in zip(*map(comment_lines, MODULES), strict=True))
    assert 100 * comments / code >= FEWEST_COMMENTS, f"{comments} lines with comments in {code} lines of code"
