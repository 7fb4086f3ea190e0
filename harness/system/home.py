"""Paths in the user's home folder, which not every user has."""

import os
import tempfile
from pathlib import Path

from harness.errors import UsageError


def expand_home(path: str | Path) -> Path:
    """Return the path with the home folder in place of a leading ``~`` or ``~user``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no home folder for {Path(path).parts[0]}: write the whole path") from None


def cache_home() -> Path:
    """Return ``~/.cache``; the system's folder for temporary files if the user has no home."""
    try:
        return Path("~/.cache").expanduser()
    except RuntimeError:  # a user id without an entry, as in containers
        return _temporary()


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # no folder can be written: the error that names the remedy comes when one is needed
        return Path(os.sep, "tmp")
