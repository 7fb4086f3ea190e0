"""The files that a packed store leaves out on purpose: ``left-out.json`` lists them, so that they are no damage."""

import json
import os
from collections.abc import Collection
from pathlib import Path

from harness.store.files.reading import DamagedFile, read_checked, with_checksum

LEFT_OUT = "left-out.json"
REMEDY = "delete it, and verify names what is missing; or unpack the store again"


def read_left_out(store: Path) -> frozenset[str]:
    """Return the names of the files that were left out, as paths within the store; none if there is no list.

    Raises:
        DamagedFile: ``left-out.json`` cannot be read.
    """
    path = store / LEFT_OUT
    try:
        names = read_checked(path, ["files"])["files"]
    except FileNotFoundError:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedFile(path, "its files are not a list of names")
    return frozenset(names)


def absent(store: Path) -> frozenset[str]:
    """Return the names of the files that were left out and are still absent.

    Raises:
        DamagedFile: ``left-out.json`` cannot be read.
    """
    # The list is never written again: a run or a copy may put files back at any time.
    return frozenset(name for name in read_left_out(store) if not os.path.lexists(store / name))


def left_out_reason(store: Path, path: Path) -> str | None:
    """Return why a file of a store is not there; None if it was not left out on purpose."""
    name = path.relative_to(store).as_posix()
    if name not in absent(store):
        return None
    return f"{name} was left out when the store was packed (unpack a file that holds it)"


def left_out_text(names: Collection[str]) -> str:
    """Return the content of ``left-out.json`` for these files."""
    return json.dumps(with_checksum({"files": sorted(names)}), indent=1)
