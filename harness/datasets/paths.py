"""Checks of the option ``path=`` of a data set."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from harness.errors import DataError
from harness.system.home import expand_home


def named_folder(path: str, wanted: str, typed: bool = True) -> Path:
    """Return the folder that a path names.

    Args:
        path: the path as the user typed it.
        wanted: what it should be, for the message: ``a folder with train/``.
        typed: whether the user typed the path; otherwise it is where files are looked for without ``path=``.

    Raises:
        DataError: it does not exist, is something else, or cannot be read.
        UsageError: there is no home folder for ``~``.
    """
    return _checked(path, stat.S_ISDIR, "a folder", f"path= must name {wanted}" if typed else _put_there(wanted))


def named_file(path: str, wanted: str) -> Path:
    """Return the plain file that a path names; arguments and errors as in `named_folder`."""
    return _checked(path, stat.S_ISREG, "a file", f"path= must name {wanted}")


def _put_there(wanted: str) -> str:
    return f"put {wanted} there, or name its place by path="


def _checked(path: str, is_wanted: Callable[[int], bool], kind: str, remedy: str) -> Path:
    place = expand_home(path)
    if any("\ud800" <= char <= "\udfff" for char in path):  # what Python makes of bytes that are no text
        raise DataError(f"{path!r} is not UTF-8, and could not be recorded: rename the file or folder")
    try:
        mode = os.stat(place).st_mode
        # A folder must be searchable too, not only listable, before its files can be opened.
        readable = os.access(place, os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        fault = "is a link that leads nowhere" if os.path.islink(place) else "does not exist"
        raise DataError(f"{place} {fault}: {remedy}") from None
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}; {remedy}") from None
    if not is_wanted(mode):
        raise DataError(f"{place} is {_kind(mode)}, not {kind}: {remedy}")
    if not readable:
        raise DataError(f"{place} cannot be read: Permission denied; {remedy}")
    return place


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a pipe"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device or a socket")
