"""The folders of a store: their names and entries, and moving aside what lies in the place of something else.

Nothing is deleted: what is moved aside lies in ``discarded/`` afterwards.
"""

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

from harness.store.files.reading import NOWHERE, kind_at
from harness.store.records import KEY
from harness.system.whole_files import hidden_beside, sync

MARKER, RECORD = "store.json", "record.json"
CELLS, FAILURES, LEASES, RUNS, PARTIAL, DISCARDED = "cells", "failures", "leases", "runs", "partial", "discarded"
DATA = "data"
LOCKS = "locks"
"""The folder of leases in stores of an older ddbench."""
FOLDERS = (CELLS, FAILURES, LEASES, RUNS, PARTIAL, DISCARDED, DATA)
Notice = Callable[[str], object]
_ATTEMPT = re.compile(rf"({KEY})-([1-9][0-9]{{0,17}})", re.ASCII)


def attempt_in(name: str) -> tuple[str, int] | None:
    """Return the key and the number in the name of an attempt's folder; None if it is the name of something else."""
    parts = _ATTEMPT.fullmatch(name)
    return (parts[1], int(parts[2])) if parts else None


def key_of_attempt(folder: Path) -> str:
    """Return the key in the name of an attempt's folder."""
    return folder.name.rpartition("-")[0]


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder without hidden ones, sorted by name; none if there is no such folder.

    Raises:
        OSError: it cannot be read.
    """
    # Hidden names are those of files that are being written, and the `.nfs...` of files that are open but removed.
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        if error.errno in NOWHERE:
            return []
        raise


def make_folder(store: Path, folder: Path, notice: Notice) -> None:
    """Create a folder of a store and its parent; a file in the place of either is set aside.

    Raises:
        OSError: it cannot be created.
    """
    make_way_for_folder(store, folder, notice)
    folder.mkdir(parents=True, exist_ok=True)


def make_way_for_folder(store: Path, folder: Path, notice: Notice) -> None:
    """Set aside a file in the place of a folder or of its parent.

    Raises:
        OSError: it cannot be moved.
    """
    # A link to a folder counts as one: a store may have its cells on another disk.
    for path in (folder.parent, folder):
        if path != store and os.path.lexists(path) and not path.is_dir():
            notice(f"{path} is not a folder, and was moved to {set_aside(store, path)}")


def make_way(store: Path, path: Path, notice: Notice) -> None:
    """Set aside what lies in the place of a file and is not a file.

    Raises:
        OSError: it cannot be moved.
    """
    if kind := kind_at(path):
        notice(f"{path} is {kind}, and was moved to {set_aside(store, path)}")


def set_aside(store: Path, path: Path) -> Path:
    """Move something of a store to ``discarded/``, and return its new path.

    Raises:
        OSError: it cannot be moved.
    """
    aside = store / DISCARDED
    # A file in the place of `discarded/` itself moves into the folder that replaces it, by way of a hidden name.
    if os.path.lexists(aside) and not aside.is_dir():
        hidden = hidden_beside(aside)
        aside.rename(hidden)
        aside.mkdir()
        hidden.rename(aside / DISCARDED)
        if path == aside:
            return aside / DISCARDED
    aside.mkdir(exist_ok=True)
    names = itertools.chain([path.name], (f"{path.name}.{number}" for number in itertools.count(1)))
    target = next(aside / name for name in names if not os.path.lexists(aside / name))
    path.rename(target)
    # Both folders: after a power cut the file may otherwise be in both of them or in neither.
    sync(path.parent)
    sync(aside)
    return target
