"""The source that computes a component's numbers, as a digest: by it a record made by other source is known."""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path


@functools.cache
def source_digest(module: str) -> str:
    """SHA-256 over a module's source and that of its neighbours that it imports, directly or not.

    Neighbours share its first package, or its room where that is the harness.
    """
    sources: dict[str, bytes] = {}
    _collect(module, _neighbourhood(module), sources)
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name])
    return digest.hexdigest()


@functools.cache
def package_digest(package: str) -> str:
    """SHA-256 over all modules of a package, by name, and the C++ beside them."""
    origin = _path_of(package)
    digest = hashlib.sha256()
    paths = [path for kind in ("*.py", "*.cpp") for path in origin.parent.glob(kind)] if origin else []
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _neighbourhood(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "harness" else parts[:1])


def _collect(module: str, neighbourhood: str, sources: dict[str, bytes]) -> None:
    path = _path_of(module)
    if module in sources or path is None:
        return
    sources[module] = path.read_bytes()
    for imported in _imports(sources[module], module):
        if imported == neighbourhood or imported.startswith(neighbourhood + "."):
            _collect(imported, neighbourhood, sources)


def _path_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(source: bytes, module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            target = ".".join(part for part in (base, node.module or "") if part)
            found |= {target} | {f"{target}.{alias.name}" for alias in node.names}
    return found
