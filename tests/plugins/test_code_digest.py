"""What changes the digest of a component's code, and what does not."""

import ast
import importlib
import sys
import textwrap

import pytest

from harness.plugins.code_digest import code_digest, native_digest, package_digest, python_digest

MODULE = '''
"""A module."""

from typing import Annotated

LIMIT = 3
"""What an attribute holds."""


class Method:
    """A class."""

    rate: Annotated[float, "above 0"] = 0.1

    def step(self, images):
        """Do a step."""
        # a comment
        return f"{images:>{LIMIT}} of" " all" if images else (LIMIT + 1)
'''
SAME = """from typing import Annotated
LIMIT = (
    0x3
)
class Method:
    pass
    rate: Annotated[float, 'above 0'] = .1
    def step(self, images):  # another comment

        return (f"{images:>{LIMIT}} o" f"f a" "ll") if images else LIMIT+1
"""


def test_comments_docstrings_and_layout_change_nothing():
    assert python_digest(MODULE.encode()) == python_digest(SAME.encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [("LIMIT = 3", "LIMIT = 4"), ("LIMIT = 3", "LIMIT = 3.0"), ("LIMIT = 3", 'LIMIT = "3"'),
     ("LIMIT = 3", "LIMIT = None"), ("LIMIT = 3", "LIMIT = True"),
     ("LIMIT = 3", "LIMIT: int = 3"), ('"above 0"', '"above 1"'), ("float", "int"),
     ("LIMIT + 1", "LIMIT - 1"), ("LIMIT + 1", "LIMIT"), ("self, images", "self, *images"),
     ("self, images", "self, images=None"), ('" all"', '" al"'), ("{images:>", "{images!r:>"), ("return f", "yield f"),
     ("def step", "async def step"), ("def step", "def first"), ("class Method:", "class Method(list):")],
)  # fmt: skip
def test_every_part_of_the_code_counts(before, after):
    assert before in MODULE
    assert python_digest(MODULE.encode()) != python_digest(MODULE.replace(before, after, 1).encode())


@pytest.mark.parametrize(
    ("code", "alike"),
    [("return", "return None"), ("x = {**a}", "x = {None: a}"), ("f(*a)", "f(a)"), ("x = 1j", "x = 1"),
     ("x = b'a'", "x = 'a'"), ("x = ()", "x = []"), ("x = -0.0", "x = 0.0"), ("if a: b()\nelse: c()", "if a: b()\nc()"),
     ("def f(a, /): g()", "def f(a): g()"), ("def f(*, a): g()", "def f(a): g()"), ("x = ''", "x = None"),
     ("x = a < b < c", "x = a < b"), ("del x", "x = 1"), ("from a import b", "from .a import b")],
)  # fmt: skip
def test_what_looks_alike_differs(code, alike):
    indented = [f"def outer():\n{textwrap.indent(text, '    ')}".encode() for text in (code, alike)]
    assert python_digest(indented[0]) != python_digest(indented[1])


def test_fields_that_only_some_versions_of_python_write_count_for_nothing(monkeypatch):
    code = b"def f(a: int) -> None:\n    return g(u'a', a)\n"
    before, parse = python_digest(code), ast.parse

    def parse_as_another(source):
        tree = parse(source, type_comments=True)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                node._fields = (*(name for name in node._fields if name != "type_params"), "type_params", "newer")
                node.type_params, node.newer = [], None
            if isinstance(node, ast.FunctionDef):
                node.type_comment = "(int) -> None"
            if isinstance(node, ast.Constant):
                node.kind = None
            if isinstance(node, ast.Name):
                del node.ctx
        return tree

    monkeypatch.setattr(ast, "parse", parse_as_another)
    python_digest.cache_clear()
    assert python_digest(code) == before


def test_the_digest_is_the_same_in_every_version_of_python():
    """A value of another Python, or of another walk over the tree, would call every record stale."""
    assert python_digest(MODULE.encode()) == "78307c16be276df9fa0364d4c4bbf9e73568cf6d1cbd854b5a06eec2908843eb"


def test_a_sum_that_is_nested_deep_and_a_long_number_have_digests():
    assert python_digest(b"x = " + b" + ".join([b"a"] * 1500))
    assert python_digest(b"x = 0x" + b"f" * 5000)


def test_a_module_for_another_python_counts_by_its_bytes():
    assert python_digest(b"print 1") not in ("", python_digest(b"print 2"))


# --- C++ --------------------------------------------------------------------------------------------------------------

NATIVE = """
#include <vector>  // what holds
#define TWICE(x) \\
    ((x) + (x))
/* the sum
   of all */
inline float sum(const float* values, int count) {
    float total = 1'000;  // from here
    for (int i = 0; i < count; i++) total += values[i] - -1;
    return total + sizeof("a // b") + '"';  /* done */
}
const char* text = R"x(one // two " )" three)x";
"""
SAME_NATIVE = """#include <vector>
#define TWICE(x) ((x) + (x))
inline float sum( const float* values,int count )
{
    float total = 1'000;
    for (int i = 0; i < count; i++)
    {/* }*/
        total += values[ i ] - -1;
    }
    return total + sizeof("a // b") + '"';
}
const char* text = R"x(one // two " )" three)x";
""".replace("{/* }*/", "").replace("- -1;\n    }", "- -1;")


def test_comments_and_blanks_of_native_code_change_nothing():
    assert native_digest(NATIVE) == native_digest(SAME_NATIVE)
    assert native_digest("// nothing\n/* at all */\n") == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [("1'000", "1'001"), ("- -1", "--1"), ("a // b", "a // c"), ("one // two", "one /* two"), ("three", "four"),
     ("TWICE(x)", "TWICE (x)"), ("const float*", "constfloat*"), ("<vector>", "<array>"), ("i++", "++i"),
     ("#define", "//#define"), ("'\"'", "'x'"), ("return total", "// return total")],
)  # fmt: skip
def test_every_token_of_native_code_counts(before, after):
    assert before in NATIVE
    assert native_digest(NATIVE) != native_digest(NATIVE.replace(before, after, 1))


# --- packages and components ------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of the name ``digested``, and get the digest of it or of a module of it."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {"__init__.py": "", "method.py": "from digested import steps\nRATE = 1\n", "steps.py": "STEPS = 2\n",
             "below/__init__.py": '"""Below."""\n', "below/deep.py": "DEPTH = 3\n", "below/fast.cpp": "int x = 4;\n",
             "other.py": "OTHER = 5\n"}  # fmt: skip

    def digest(module=None, moved=None, **changes):
        """Changes are new contents by the file's name, with ``__`` for what no identifier holds."""
        for name, text in files.items():
            path = tmp_path / "digested" / (moved or {}).get(name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changes.get(name.removesuffix(".py").replace("/", "_").replace(".", "_"), text))
        for name in [name for name in sys.modules if name.partition(".")[0] == "digested"]:
            monkeypatch.delitem(sys.modules, name)  # it may be of another test's folder
        importlib.invalidate_caches()
        code_digest.cache_clear()
        package_digest.cache_clear()
        return code_digest(f"digested.{module}") if module else package_digest("digested")

    return digest


def test_a_constant_changes_the_digest_of_a_package_and_a_comment_does_not(package):
    before = package()
    assert package(steps="# so many\nSTEPS = 2\n") == before
    assert package(method='"""Text."""\nfrom digested import steps\nRATE = 1\n') == before
    changed = {package(steps="STEPS = 3\n"), package(below_deep="DEPTH = 4\n"), package(below_fast_cpp="int x = 5;\n")}
    assert len(changed - {before}) == 3
    assert package(below_deep="'''Deep.'''\nDEPTH = 3\n", below_fast_cpp="int x  =  4; // four\n") == before


def test_names_of_files_do_not_count_and_more_files_do(package, tmp_path):
    before = package()
    for name in ("other.py", "below/deep.py", "below/fast.cpp"):
        (tmp_path / "digested" / name).unlink()
    moved = {"other.py": "renamed.py", "below/deep.py": "further/deeper.py", "below/fast.cpp": "quick.cpp"}
    assert package(moved=moved) == before
    (tmp_path / "digested" / "empty.py").write_text('"""Nothing yet."""\n')
    assert package(moved=moved) == before
    (tmp_path / "digested" / "more.py").write_text("OTHER = 5\n")
    assert package(moved=moved) != before


def test_a_component_counts_with_the_neighbours_that_it_imports(package):
    before = package("method")
    assert package("method", other="OTHER = 6\n", below_deep="DEPTH = 4\n") == before
    assert package("method", steps="STEPS = 3\n") != before
    assert package("method", method="from digested import steps\nRATE = 2\n") != before
    assert package("method", method="# by\nfrom digested import steps\n\nRATE = 1\n") == before


def test_neighbours_in_folders_below_count_and_so_do_relative_imports(package):
    relative = "from .below import deep\n"
    before = package("method", method=relative)
    assert package("method", method=relative, below_deep="DEPTH = 4\n") != before
    through = {"method": "from . import below\n", "below___init__": "from .deep import DEPTH\n"}
    before = package("method", **through)
    assert package("method", **through, below_deep="DEPTH = 4\n") != before


def test_the_harness_is_digested_by_folder():
    assert len({package_digest("harness.learning"), package_digest("harness.compute"), package_digest("nowhere")}) == 3
    assert code_digest("harness.architectures.mlp") != code_digest("harness.architectures.convnet")
