"""Distributions on disk, as pip leaves them, with plugins of every kind of manners."""

import importlib
import sys
import textwrap

import pytest

from harness.plugins.discovery import plugins

HEADER = "from harness import hookimpl\n"


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution with one module, the same name, and the entry point of the same name; again, and again."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("DDBENCH_PLUGINS", raising=False)
    installed = []

    def install(name, source="", *, version="1.2", target=None):
        module = name.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ddbench]\n{name} = {target or module}\n")
        (site / f"{module}.py").write_text(HEADER + textwrap.dedent(source))
        installed.append(module)
        importlib.invalidate_caches()
        plugins.cache_clear()
        return site

    plugins.cache_clear()
    yield install
    plugins.cache_clear()
    for module in installed:
        sys.modules.pop(module, None)


def registering(kind, name, target, summary="a summary"):
    """A hook that registers one component."""
    return f"@hookimpl\ndef register_{kind}s(register):\n    register({name!r}, {target!r}, {summary!r})\n"


POOL = """
from harness import Pool

class Mine(Pool):
    '''Mine, and only mine.

    More about it.
    '''

    def distribution(self, iteration):
        return {"mlp": 0.75, "mlp[width=128]": 0.25}
"""
