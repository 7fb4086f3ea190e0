"""Files and folders that exist as a whole or not at all, whatever interrupts their writing."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file atomically: a reader, or the disk after a power cut, has all of it or what was there before."""
    with beside(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Provide a temporary path beside ``path``; what is written there is renamed to ``path`` at the end."""
    path = Path(os.path.abspath(path))  # even ``.`` has a name then
    temporary = hidden_beside(path)
    try:
        yield temporary
        # Content first, then the rename, then the folder: in any other order a power cut can leave the new name with no
        # content.
        _sync_all(temporary)
        _put(temporary, path)
        sync(temporary.parent)
    finally:
        _remove(temporary)


def hidden_beside(path: Path) -> Path:
    """Return a name in the same folder that no other process uses: ``.NAME-hex``."""
    # Only a rename within one file system is atomic, so the temporary file lies in the target's own folder.
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}")


def sync(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(path: Path) -> None:
    """Flush a file, or a folder with everything in it."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync_all(entry)
    sync(path)


def _put(new: Path, path: Path) -> None:
    """Rename into place; a folder cannot replace another, so the old one steps aside until the new one is there."""
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
