"""Native code for this machine's processor, compiled by its C++ compiler at first use and stored between runs."""

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
    """Return the path of the C++ compiler that torch uses (``$CXX``, otherwise g++); None if there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def code_folder() -> Path:
    """Return the folder for compiled code: ``ddbench-code`` in the user's cache folder.

    If the user has no home, it is in the system's folder for temporary files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or cache_home())
    return cache / "ddbench-code"


@functools.cache
def compiled_library(source: Path) -> ctypes.CDLL:
    """Return the library of a C++ file's functions, which is compiled if that has not been done before.

    Raises:
        OSError: the file cannot be compiled, or the result cannot be stored or loaded.
    """
    path = compiler()
    if path is None:
        raise FileNotFoundError("no C++ compiler")
    # A home on NFS is shared by machines, and -march=native code of another processor would crash. The macros that the
    # compiler defines show its version and the processor's instructions, so they are part of the name.
    defined = _run([path, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    key = hashlib.sha256(b"\0".join([source.read_bytes(), repr(FLAGS).encode(), defined])).hexdigest()[:16]
    file = code_folder() / f"{source.stem}-{key}.so"
    # CDLL (unlike PyDLL) releases the GIL during each call, so that slices in other threads go on.
    if file.exists():
        with contextlib.suppress(OSError):  # a damaged file is compiled again
            return ctypes.CDLL(str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    # Compiled in a folder of its own beside the target, and then renamed: processes that start together each replace
    # the file as a whole, and none loads half of it. A rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        compiled = Path(folder) / file.name
        _run([path, *FLAGS, "-o", str(compiled), str(source)])
        compiled.replace(file)
    return ctypes.CDLL(str(file))


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        (reason, *_) = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
        raise OSError(reason) from error
