"""Code for this machine's processor, made by its own C++ compiler at first use and kept between runs."""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.system.home import cache_home

FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")


def compiler() -> str | None:
    """Path of the C++ compiler that torch uses, if there is one: ``$CXX``, else g++."""
    return shutil.which(os.environ.get("CXX") or "g++")


def code_folder() -> Path:
    """Where compiled code is kept between runs: ``ddbench-code`` in the user's cache folder, or in the system's for
    temporary files where the user has no home.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or cache_home())
    return cache / "ddbench-code"


@functools.cache
def library(source: Path) -> ctypes.CDLL:
    """The functions of a C++ file, whose calls let other threads of Python run.

    Raises:
        OSError: it could not be compiled, or not be kept.
    """
    found = compiler()
    if found is None:
        raise FileNotFoundError("no C++ compiler")
    # What the compiler defines tells its version and the processor's instructions: a folder may be shared by machines.
    defined = _run([found, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    key = hashlib.sha256(b"\0".join([source.read_bytes(), repr(FLAGS).encode(), defined])).hexdigest()[:16]
    kept = code_folder() / f"{source.stem}-{key}.so"
    if kept.exists():
        with contextlib.suppress(OSError):  # it may be broken
            return ctypes.CDLL(str(kept))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / kept.name
        _run([found, *FLAGS, "-o", str(made), str(source)])
        made.replace(kept)
    return ctypes.CDLL(str(kept))


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        (said, *_) = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
        raise OSError(said) from error
