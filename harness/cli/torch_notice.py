"""A word before torch is imported for the first time, which may take a minute and more: nothing else is said then."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import click

_SAMPLES = 64
"""Places of the largest library that are looked at."""
_FEW = 0.3
"""Share of them in memory below which most of it has still to be read from disk; a warm start has three quarters."""


def announce_slow_import() -> None:
    """Say on stderr that torch is imported, when that is done and takes long."""
    sys.meta_path.insert(0, _Notice())


class _Notice(MetaPathFinder):
    """Finds nothing, but hears first of what is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave the import to others, after a word about torch."""
        if fullname == "torch":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec("torch")
            if spec and spec.origin and is_slow(Path(spec.origin)):
                click.echo("ddbench: importing torch, which takes a while the first time", err=True)
        return None


def is_slow(origin: Path) -> bool:
    """Whether the import has to compile its modules, or to read most of the library from disk."""
    if not Path(importlib.util.cache_from_source(str(origin))).exists():
        return True
    libraries = list((origin.parent / "lib").glob("*torch_cpu.*"))
    return bool(libraries) and share_in_memory(libraries[0]) < _FEW


def share_in_memory(file: Path) -> float:
    """How much of a file the system holds in memory, as samples tell; 1 if it cannot be known."""
    if not hasattr(os, "RWF_NOWAIT"):  # Linux only
        return 1.0
    here = 0
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            for sample in range(_SAMPLES):
                try:
                    os.preadv(opened.fileno(), [bytearray(1)], size * sample // _SAMPLES, os.RWF_NOWAIT)
                    here += 1
                except BlockingIOError:
                    pass
    except OSError:  # such as a file system that does not tell
        return 1.0
    return here / _SAMPLES
