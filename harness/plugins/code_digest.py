"""The digest of the code that computes a component's numbers: by it, records of another version are recognised.

What counts is the syntax tree. Comments, docstrings, line breaks, positions and the names of files change no number, so
they do not change a digest either. Annotations count: pydantic reads bounds, conversions and defaults of options from
them, and so does whatever else asks for types while a program runs.
"""

import ast
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_NATIVE = (".cpp", ".cc", ".cu", ".cuh", ".h", ".hpp")
_WITHOUT_MEANING = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields of syntax trees that change no number: how a name is used follows from its place, and ``u`` from nothing."""


@functools.cache
def code_digest(module: str) -> str:
    """Return the SHA-256 of a module's code and of its neighbours that it imports, directly or not.

    Neighbours share the module's first package, or its folder of the harness.
    """
    modules: dict[str, bytes] = {}
    _collect(module, _neighbourhood(module), modules)
    return _digest_of_all(map(python_digest, modules.values()))


@functools.cache
def package_digest(package: str) -> str:
    """Return the SHA-256 of all code in a package's folder and the folders below it: Python and the C++ beside it."""
    origin = _path_of(package)
    paths = [path for path in origin.parent.rglob("*") if path.is_file()] if origin else []
    python = [python_digest(path.read_bytes()) for path in paths if path.suffix == ".py"]
    native = [native_digest(path.read_text(errors="replace")) for path in paths if path.suffix in _NATIVE]
    return _digest_of_all([*python, *native])


@functools.cache
def python_digest(source: bytes) -> str:
    """Return the SHA-256 of a module's syntax tree; empty if the module computes nothing."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # written for another Python, so that no tree can be had: each byte counts
        return hashlib.sha256(source).hexdigest()
    tokens = "\n".join(_tokens(tree))
    return hashlib.sha256(tokens.encode()).hexdigest() if any(map(_computes, tree.body)) else ""


def native_digest(source: str) -> str:
    """Return the SHA-256 of the tokens of a C++ file; empty if there are none."""
    text = _without_blanks(source)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest() if text else ""


def _digest_of_all(digests: Iterable[str]) -> str:
    """Combine the digests of files whatever they are called; files without code count for nothing."""
    return hashlib.sha256("\n".join(sorted(filter(None, digests))).encode()).hexdigest()


def _tokens(tree: ast.AST) -> Iterator[str]:
    """Write a syntax tree as text that is the same in Python 3.11 to 3.14.

    `ast.dump` is not: Python 3.13 leaves out empty fields, and 3.12 added ``type_params`` to functions and classes. So
    fields that are empty, None or without meaning are left out here. A stack of its own takes the place of recursion,
    because a long sum nests deeper than Python recurses.
    """
    stack: list[Any] = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, _Written):
            yield value
        elif isinstance(value, ast.Constant):
            yield f"(Constant {_literal(value.value)})"
        elif isinstance(value, ast.AST):
            yield f"({type(value).__name__}"
            stack.append(_Written(")"))
            for name, field in reversed(list(ast.iter_fields(value))):
                part = _canonical(value, field)
                if name not in _WITHOUT_MEANING and part is not None and part != []:
                    stack += [part, _Written(f".{name}")]
        elif isinstance(value, list):
            yield "["
            stack += [_Written("]"), *reversed(value)]
        else:
            yield _literal(value)


class _Written(str):
    """A token that is text already, beside names and numbers that are still to be written."""

    __slots__ = ()


def _literal(value: object) -> str:
    # In hexadecimal, because Python refuses to write long whole numbers in decimal; and with `ascii`, because which
    # characters `repr` escapes depends on the Unicode version of each Python.
    return hex(value) if type(value) is int else ascii(value)


def _canonical(node: ast.AST, field: Any) -> Any:  # noqa: ANN401
    """Return a field of a node without the statements that compute nothing, and the texts of f-strings in one piece."""
    if not isinstance(field, list):
        return field
    if isinstance(node, ast.JoinedStr):
        return _merged(field)
    return [part for part in field if not isinstance(part, ast.stmt) or _computes(part)]


def _computes(statement: ast.stmt) -> bool:
    """Return whether a statement does anything; docstrings of modules, classes, functions and attributes do not."""
    return not isinstance(statement, ast.Pass) and not (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """Join texts that follow on each other in an f-string: versions of Python split them in different places."""
    merged: list[ast.expr] = []
    for value in values:
        last = merged[-1] if merged else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            merged.append(value)
    return merged


_TOKEN = re.compile(
    r"""
    (?P<blank>(?:[^\S\n]|\\\n|/\*.*?\*/|//(?:\\\n|[^\n])*)+)
    |(?P<newline>\n)
    |(?P<raw>(?:u8|[uUL])?R"(?P<fence>[^()\\\s]{0,16})\(.*?\)(?P=fence)")
    |(?P<text>(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"|(?:u8|[uUL])?'(?:\\.|[^'\\\n])+')
    |(?P<word>\.?\d(?:'?[\w.])*|\w+)
    |(?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
"""What a C++ file consists of; a word may be a number, whose quotes (1'000) begin no character."""
_ALONE = frozenset("(){}[];,")
"""Signs that are never part of a longer one, so that blanks beside them mean nothing."""


def _without_blanks(source: str) -> str:
    """Return C++ without comments and without blanks that separate nothing.

    A directive of the preprocessor keeps its line and single spaces: ``#define F (x)`` is not ``#define F(x)``.
    """
    parts: list[str] = []
    has_blank, in_directive, begins_line = False, False, True
    for token in _TOKEN.finditer(source):
        text = token.group()
        if token.lastgroup == "newline":
            if in_directive:
                parts.append("\n")
            has_blank, in_directive, begins_line = not in_directive, False, True
        elif token.lastgroup == "blank":
            has_blank = True
        else:
            if begins_line and text == "#":
                in_directive = True
                if parts and parts[-1] != "\n":
                    parts.append("\n")
            elif has_blank and parts and parts[-1] != "\n" and (in_directive or _is_apart(parts[-1], text)):
                parts.append(" ")
            parts.append(text)
            has_blank = begins_line = False
    return "".join(parts).strip("\n")


def _is_apart(before: str, after: str) -> bool:
    """Return whether two tokens would be read as others without a blank between them."""
    if before in _ALONE or after in _ALONE:
        return False
    return _is_word(before[-1]) == _is_word(after[0])


def _is_word(character: str) -> bool:
    return character.isalnum() or character in "_.\"'"


def _neighbourhood(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "harness" else parts[:1])


def _collect(module: str, neighbourhood: str, modules: dict[str, bytes]) -> None:
    path = _path_of(module)
    if module in modules or path is None:
        return
    modules[module] = path.read_bytes()
    for imported in _imports(modules[module], module, is_package=path.name == "__init__.py"):
        if imported == neighbourhood or imported.startswith(neighbourhood + "."):
            _collect(imported, neighbourhood, modules)


def _path_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(source: bytes, module: str, is_package: bool) -> set[str]:
    """Return the names that a module imports from, with each name that it takes: that may be a module as well."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # One dot means the package that a module lies in, which for a package's own file is that package.
            folder = module.split(".")[: len(module.split(".")) - node.level + is_package]
            target = ".".join(part for part in (*(folder if node.level else ()), node.module or "") if part)
            names |= {target} | {f"{target}.{alias.name}" for alias in node.names}
    return names
