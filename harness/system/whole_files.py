"""Files and folders that are written whole or not at all, whatever happens meanwhile."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, and the disk after a power cut, has all of it, or what was there before."""
    with beside(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path``; the file or folder written there takes its place in the end, or is removed."""
    path = Path(os.path.abspath(path))  # ``.`` has a name only as an absolute path
    temporary = hidden_beside(path)
    try:
        yield temporary
        _sync_all(temporary)
        _put(temporary, path)
        sync(temporary.parent)
    finally:
        _remove(temporary)


def hidden_beside(path: Path) -> Path:
    """Return a name that nobody else takes, in the same folder: ``.NAME-hex``."""
    # Only a rename within one file system is atomic, so the temporary file lies in the target's own folder.
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}")


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    # A rename may reach the disk before the content does: without this, a power cut leaves an empty file of that name.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(path: Path) -> None:
    """Have the disk hold a file, or a folder with all that is in it."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync_all(entry)
    sync(path)


def _put(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; an old folder, which cannot be replaced, steps aside and is removed afterwards."""
    if not path.is_dir() or path.is_symlink():
        os.replace(new, path)
        return
    old = hidden_beside(path)
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
