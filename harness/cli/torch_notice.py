"""A notice before torch is imported for the first time, which may take more than a minute without any output."""

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
"""Number of places in torch's largest library that are probed."""
_FEW = 0.3
"""If a smaller share of them is in memory, most must be read from disk; a warm start has three quarters."""


def announce_slow_import() -> None:
    """Print a notice on stderr when torch is imported, if the import will take long."""
    sys.meta_path.insert(0, _Notice())


class _Notice(MetaPathFinder):
    """A meta path finder that finds no module; it only sees first what is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None, which leaves the import to other finders, after a notice about torch."""
        if fullname == "torch":
            sys.meta_path.remove(self)  # find_spec below asks every finder again
            spec = importlib.util.find_spec("torch")
            # Found, but not loaded: the notice must come before the slow part.
            if spec and spec.origin and is_slow(Path(spec.origin)):
                click.echo("ddbench: importing torch, which takes a while the first time", err=True)
        return None


def is_slow(origin: Path) -> bool:
    """Return whether the import must compile torch's modules, or read most of its library from disk."""
    if not Path(importlib.util.cache_from_source(str(origin))).exists():
        return True
    # The library with the CPU kernels is by far the largest file that the import reads.
    libraries = list((origin.parent / "lib").glob("*torch_cpu.*"))
    return bool(libraries) and share_in_memory(libraries[0]) < _FEW


def share_in_memory(file: Path) -> float:
    """Estimate from samples which share of a file is in the page cache; 1 if that is unknown."""
    # RWF_NOWAIT (Linux only) makes a read fail instead of waiting for the disk.
    if not hasattr(os, "RWF_NOWAIT"):
        return 1.0
    here = 0
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            for sample in range(_SAMPLES):
                try:
                    os.preadv(opened.fileno(), [bytearray(1)], size * sample // _SAMPLES, os.RWF_NOWAIT)
                    here += 1
                # This page is not in memory, and would have to be read.
                except BlockingIOError:
                    pass
    except OSError:  # such as a file system without RWF_NOWAIT
        return 1.0
    return here / _SAMPLES
